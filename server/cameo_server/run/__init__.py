"""A run, driven stage by stage: admission, epochs, rounds, evaluation, publication."""

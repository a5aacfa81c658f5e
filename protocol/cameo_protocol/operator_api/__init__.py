"""The operator interface's contract: operator.proto and what is generated from it."""

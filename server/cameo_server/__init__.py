"""The coordinator: launches runs, drives rounds, opens noisy sums. Never imports the client."""

"""What both sides must agree on: plan, privacy, secure sum. Pure: no flwr, hydra, torch, files, clock or sockets."""

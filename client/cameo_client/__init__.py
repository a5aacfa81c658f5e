"""One hospital's node: data, training, ledger, tags. Never imports the server."""

"""The operator interface over gRPC: who may call what, the two services, the server, and the client of `cameo`."""

"""What the coordinator's and the hospital's pages share: log-in by one-time link, sessions, headers, static files."""

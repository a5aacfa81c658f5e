"""The hospital's page: budget, data quality, tags, review queue, consents, audit heads, runs. On loopback only."""

"""The coordinator's dashboard: runs, one run live, sites, reports. On loopback, behind a one-time link."""

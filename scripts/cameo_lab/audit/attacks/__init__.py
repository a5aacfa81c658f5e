"""Attacks on a plan, each on the product's own bytes and each with a control arm that must break; see `table`."""

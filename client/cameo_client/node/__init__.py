"""The hospital's side of a run: one long-lived process answers the coordinator, stage by stage."""

"""The networks and how they score. torch and numpy only; no I/O."""

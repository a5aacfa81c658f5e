"""The main job on this machine: one coordinator and four hospitals as real processes. Only a driver of the two CLIs."""

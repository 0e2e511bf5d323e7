"""What the host has, what of it is used, and what its guests were last known to do."""

"""What the agent does to servers: one module for each kind of work."""

"""What the agent does to servers: one module per story."""

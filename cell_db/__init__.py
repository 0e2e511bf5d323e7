"""A cell's database: its servers and all that hangs off them, its hosts, its cleanups. cell0 has the same schema."""

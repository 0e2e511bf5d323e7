"""Everything that asks more than one cell: gates, routes, scatter, merge. Nothing else reaches a cell from the API
level."""

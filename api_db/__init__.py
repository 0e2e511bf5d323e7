"""The API database: which cell owns what, orders that no cell owns yet, and what is global (flavors, key pairs, quota,
aggregates)."""

"""A whole Cellplane on one machine: for trying it, for working on it, for its tests."""

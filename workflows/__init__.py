"""The form of long work: steps of several processes, which may be repeated, and undone until a point."""

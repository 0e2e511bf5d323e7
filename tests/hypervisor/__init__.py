"""One contract for all drivers."""

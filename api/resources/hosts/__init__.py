"""Hosts, as operators see them, and the services on them."""

"""Servers: what they are, what is done to them, what is told of them."""

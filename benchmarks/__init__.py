"""Measurements of a whole cloud: what a boot costs, what a list costs, and where it goes."""

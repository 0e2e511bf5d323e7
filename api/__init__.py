"""The program that answers the Compute API."""

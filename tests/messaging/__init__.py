"""Messaging: one suite for both brokers."""

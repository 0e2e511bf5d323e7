"""What a server may be, what may be done to it, and what that makes of it: pure tables and functions."""

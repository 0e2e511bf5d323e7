"""A cell's console proxy: users' WebSockets on one side, the TCP ports of guests' consoles on the other."""

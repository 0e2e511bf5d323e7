"""From a validated request to an order: what a server needs is looked up and checked before it is accepted."""

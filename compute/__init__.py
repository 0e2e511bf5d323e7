"""The agent of one host: it drives the hypervisor, and knows no database and no Placement."""

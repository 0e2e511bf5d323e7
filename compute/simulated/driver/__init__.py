"""The simulated hypervisor behind the interface of all drivers."""

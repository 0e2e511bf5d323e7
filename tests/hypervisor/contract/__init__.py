"""What `compute.hypervisor` promises, for every driver: one file for each facet."""

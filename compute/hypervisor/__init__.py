"""The one small interface behind which the drivers live: a Protocol for each facet, and `Hypervisor`, their sum."""

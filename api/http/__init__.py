"""HTTP as the Compute API speaks it; knows no resource."""

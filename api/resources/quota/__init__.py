"""What projects and users may use."""

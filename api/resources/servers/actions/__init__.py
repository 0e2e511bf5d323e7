"""What can be done to a server: POST /servers/{id}/action, one row for each key."""

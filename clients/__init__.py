"""The neighbours: one file for each service that Cellplane asks for something."""

"""One file per noun: its routes, schemas, views and handlers side by side."""

"""The workflows of the product, one in each file."""

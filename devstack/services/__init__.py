"""The backing services a stack needs: how each real part is laid out, initialised and started."""

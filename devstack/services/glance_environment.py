"""Glance's programs, for tests, in an environment of their own; `python -m devstack.services.glance_environment` makes
sure of it."""

import sys

from devstack.services.own_environment import OwnEnvironment

# What devstack.renew_pins pins in constraints.txt.
REQUIREMENTS = ("glance ~= 33.0", "gunicorn >= 23.0")
GLANCE = OwnEnvironment("glance", "Glance", "devstack.services.glance_environment", sources=("simplegeneric",))

if __name__ == "__main__":
    sys.exit(GLANCE.main())

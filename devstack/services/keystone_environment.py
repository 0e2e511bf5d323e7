"""Keystone's programs in an environment of their own; `python -m devstack.services.keystone_environment` makes sure of
it."""

import sys

from devstack.services.own_environment import OwnEnvironment

# What devstack.renew_pins pins in constraints.txt.
REQUIREMENTS = ("keystone ~= 30.0", "gunicorn >= 23.0", "PyMySQL >= 1.1.1")
KEYSTONE = OwnEnvironment("keystone", "Keystone", "devstack.services.keystone_environment")

if __name__ == "__main__":
    sys.exit(KEYSTONE.main())

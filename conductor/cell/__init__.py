"""A cell's conductor: owns every operation in its cell and writes its database on behalf of the hosts."""

"""The API level's conductor: places builds, hands them to a cell, and knows the hosts of all cells."""

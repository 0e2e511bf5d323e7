"""Messages between programs: brokers, verbs, those who send and those who listen."""

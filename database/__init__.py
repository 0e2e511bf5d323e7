"""Access to databases: engines, types of columns, transactions, statements that are compiled once, migrations."""

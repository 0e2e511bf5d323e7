"""The two kinds of conductor: one at the API level that places work, one in each cell that sees it through."""

"""The version of the api schema that this release works with."""

import pathlib

from database.schema import Schema

SCHEMA = Schema(
    "api", pathlib.Path(__file__).parent / "migrations", newest="0005", mend="cellctl db sync", mark="cell_mappings"
)

"""The version of the cell schema that this release works with."""

import pathlib

from database.schema import Schema

SCHEMA = Schema(
    "cell", pathlib.Path(__file__).parent / "migrations", newest="0009", mend="cellctl db sync", mark="instances"
)

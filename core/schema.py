"""Which version a schema is at, and the refusal to work with one that this release does not know.

Moving a schema is `core.migrations`; a program only looks, and so does without Alembic's weight.
"""

import dataclasses
import pathlib

import sqlalchemy as sa

import core.errors
from core.database import Database, is_missing_table

_VERSION = sa.table("alembic_version", sa.column("version_num"))


@dataclasses.dataclass(frozen=True)
class Schema:
    """One of the two schemas.

    Attributes:
        name: "api" or "cell".
        migrations: the folder of its Alembic scripts.
        newest: the revision that this release works with.
        mend: the command that an operator runs when the version is wrong.
    """

    name: str
    migrations: pathlib.Path
    newest: str
    mend: str

    def current(self, database: Database) -> str | None:
        """The revision that the database is at; None for an empty one.

        Raises:
            Unavailable: the database did not answer.
        """
        try:
            with database.reading() as connection:
                return connection.execute(sa.select(_VERSION.c.version_num)).scalar()
        except sa.exc.DBAPIError as error:
            if is_missing_table(error):
                return None
            raise core.errors.Unavailable(f"the {self.name} database does not answer: {error.orig}") from error

    def check(self, database: Database) -> None:
        """Returns if the database is at the revision that this release knows.

        Raises:
            Broken: it is not; the message names the command that mends it.
            Unavailable: the database did not answer.
        """
        found = self.current(database)
        if found != self.newest:
            state = "is empty" if found is None else f"is at revision {found}"
            raise core.errors.Broken(f"the {self.name} schema {state}, this release needs {self.newest}: run `{self.mend}`")

"""Which version a schema is at, and the refusal to work with one that this release does not know.

Moving a schema is `database.migrations`; a program only looks, and so does without Alembic's weight.
"""

import dataclasses
import pathlib
from typing import Any

import sqlalchemy as sa

import core.errors
from database.engine import Database
from database.errors import is_missing_table

_VERSION = sa.table("alembic_version", sa.column("version_num"))


@dataclasses.dataclass(frozen=True)
class Schema:
    """One of the two schemas.

    Attributes:
        name: "api" or "cell".
        migrations: the folder of its Alembic scripts.
        newest: the revision that this release works with.
        mend: the command that an operator runs when the version is wrong.
        mark: a table that it has and the other one has not: both count their revisions alike.
    """

    name: str
    migrations: pathlib.Path
    newest: str
    mend: str
    mark: str

    def current(self, database: Database) -> str | None:
        """The revision that the database is at; None for an empty one.

        Raises:
            Broken: it has tables, and not those of this schema.
            Unavailable: the database did not answer.
        """
        revision: str | None = self._read(database, sa.select(_VERSION.c.version_num))
        if (
            revision is not None
            and self._read(database, sa.select(sa.func.count()).select_from(self._first_row())) is None
        ):
            raise core.errors.Broken(
                f"the database has another schema than {self.name}: its URL is another one's, or another program's"
            )
        return revision

    def _first_row(self) -> sa.Subquery:
        return sa.select(sa.literal(1)).select_from(sa.table(self.mark)).limit(1).subquery()

    def _read(self, database: Database, query: sa.Select[Any]) -> Any:
        """The one value; None without its table, too."""
        try:
            with database.reading() as connection:
                return connection.execute(query).scalar()
        except sa.exc.DBAPIError as error:
            if is_missing_table(error):
                return None
            raise core.errors.Unavailable(f"the {self.name} database does not answer: {error.orig}") from error

    def is_newest(self, connection: sa.Connection) -> bool:
        """Whether the database is at the revision that this release knows."""
        return bool(connection.execute(sa.select(_VERSION.c.version_num)).scalar() == self.newest)

    def check(self, database: Database) -> None:
        """Returns if the database is at the revision that this release knows.

        Raises:
            Broken: it is not, the message names the command that mends it; or it has another schema.
            Unavailable: the database did not answer.
        """
        revision = self.current(database)
        if revision != self.newest:
            state = "is empty" if revision is None else f"is at revision {revision}"
            raise core.errors.Broken(
                f"the {self.name} schema {state}, this release needs {self.newest}: run `{self.mend}`"
            )


def takes_writes(connection: sa.Connection) -> bool:
    """Writes what stands there already. A refusal is an answer, not a failure of the database."""
    try:
        connection.execute(sa.update(_VERSION).values(version_num=_VERSION.c.version_num))
    except sa.exc.DBAPIError:
        return False
    return True

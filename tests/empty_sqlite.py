"""SQLite databases with the tables of a schema, copied from one that is made once: making tables takes longer than most
tests do."""

import atexit
import functools
import pathlib
import shutil
import tempfile

import sqlalchemy as sa

from database.engine import Database

_PREFIX = "sqlite:///"


def make_tables(url: str, metadata: sa.MetaData) -> None:
    """Makes the database of this URL, unless it is there."""
    assert url.startswith(_PREFIX)
    path = pathlib.Path(url.removeprefix(_PREFIX))
    if not path.exists():
        shutil.copyfile(_template(metadata), path)


def new_folder() -> pathlib.Path:
    """One that lasts as long as this process."""
    folder = tempfile.mkdtemp(prefix="cellplane-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return pathlib.Path(folder)


@functools.cache
def _template(metadata: sa.MetaData) -> pathlib.Path:
    path = new_folder() / "empty.sqlite"
    database = Database(f"{_PREFIX}{path}")
    metadata.create_all(database.engine)
    database.close()
    return path

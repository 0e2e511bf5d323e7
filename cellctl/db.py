"""Schemas: `cellctl db sync` brings them to this release, `cellctl db version` says where they are."""

import argparse
import concurrent.futures
import dataclasses
import pathlib
from collections.abc import Sequence

import alembic.util
import sqlalchemy as sa

import api_db.cells
import api_db.schema
import cell_db.schema
import core.errors
from cellctl import arguments, cloud, commands, exits, urls
from database import migrations
from database.engine import Database
from database.schema import Schema

SCHEMAS = {"api": api_db.schema.SCHEMA, "cell": cell_db.schema.SCHEMA}
MIGRATION_S = 3600.0
AT_ONCE = 8


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """One database to sync or look at. `name`: as it is shown."""

    name: str
    schema: Schema
    url: str


def _of_api(open_cloud: cloud.Cloud) -> Target:
    return Target("api", api_db.schema.SCHEMA, open_cloud.api_url)


def _of_cell(cell: api_db.cells.CellMapping) -> Target:
    return Target(cell.name, cell_db.schema.SCHEMA, cell.database_connection)


def _revision(target: Target, deadline_s: float) -> str | None:
    """The revision that the database is at; None for an empty one.

    Raises:
        Broken: it has another schema.
        Unavailable: it does not answer, or nobody can connect to what its mapping says.
    """
    try:
        database = Database(
            target.url, pool_size=1, connect_timeout_s=deadline_s, io_timeout_s=deadline_s, wait_s=deadline_s
        )
    except core.errors.Invalid as error:
        raise core.errors.Unavailable(f"{target.name}: {error.message}") from error
    if database.is_sqlite and _is_to_be_made(pathlib.Path(database.url.database or "")):
        return None  # Looking would make the file.
    try:
        return target.schema.current(database)
    except core.errors.Unavailable as error:
        raise core.errors.Unavailable(f"{target.name}: {error.message}") from error
    except core.errors.Broken as error:
        raise core.errors.Broken(f"{target.name}: {error.message}") from error
    finally:
        database.close()


def _is_to_be_made(file: pathlib.Path) -> bool:
    return not file.exists() and file.parent.is_dir()


# ---- db sync ---------------------------------------------------------------------------------------------------------


class SyncDatabases(commands.Command):
    """Bring database schemas to the newest revision of this release.

    Without an option: the API database, cell0 and every cell. A database that does not answer is named and the others
    are synced. It may be run at any time, and again; not twice at once.
    """

    exit_codes = "Exit code 5: some database did not answer, the others are synced. 1: some schema could not be moved."

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        which = parser.add_mutually_exclusive_group()
        which.add_argument("--api", action="store_true", help="only the API database")
        which.add_argument(
            "--cell",
            metavar="NAME",
            type=arguments.by_id,
            action="append",
            help="only this cell's database (name or uuid); may be repeated",
        )
        which.add_argument("--all", action="store_true", help="the API database, cell0 and every cell: the default")
        which.add_argument(
            "--database", metavar="URL", help="only this database, which no cell needs to be mapped to; with --schema"
        )
        parser.add_argument("--schema", choices=sorted(SCHEMAS), help="what the database of --database holds")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        if (parsed_args.database is None) != (parsed_args.schema is None):
            raise core.errors.Invalid("--database and --schema go together", field="--schema")
        if parsed_args.database is not None:
            url = urls.checked_database(parsed_args.database, option="--database")
            self._sync([Target(f"{parsed_args.schema} database", SCHEMAS[parsed_args.schema], url)], cloud.CONNECT_S)
            return
        open_cloud = self.cloud()
        deadline_s = max(cloud.CONNECT_S, open_cloud.conf.cells.deadline_s)
        if parsed_args.cell:
            self._sync([_of_cell(open_cloud.find_cell(name)) for name in parsed_args.cell], deadline_s)
            return
        self._sync([_of_api(open_cloud)], deadline_s)
        if not parsed_args.api and self.exit_code == exits.DONE:
            self._sync([_of_cell(cell) for cell in open_cloud.api_read(api_db.cells.list_all)], deadline_s)

    def _sync(self, targets: Sequence[Target], deadline_s: float) -> None:
        for target in targets:
            try:
                self._sync_one(target, deadline_s)
            except core.errors.CellplaneError as error:
                self.complain(error.message)
                self.exit_code = max(self.exit_code, exits.code_of(error))

    def _sync_one(self, target: Target, deadline_s: float) -> None:
        before = _revision(target, deadline_s)
        if before == target.schema.newest:
            self.app.stdout.write(f"{target.name}: at {before} already\n")
            return
        # A migration may work on one statement for long: only the first look had a short deadline.
        database = Database(target.url, pool_size=1, connect_timeout_s=deadline_s, io_timeout_s=MIGRATION_S)
        try:
            migrations.sync(target.schema, database)
        except (sa.exc.DBAPIError, alembic.util.CommandError) as error:
            why = error.orig if isinstance(error, sa.exc.DBAPIError) else error
            # A second look tells a database that went away from a migration that failed.
            raise core.errors.Broken(
                f"{target.name}: the schema stays at {_revision(target, deadline_s) or 'nothing'}: {why}"
            ) from error
        finally:
            database.close()
        self.app.stdout.write(f"{target.name}: {before or 'empty'} -> {target.schema.newest}\n")
        self.app.stdout.flush()


# ---- db version ------------------------------------------------------------------------------------------------------


class ListVersions(commands.Lister):
    """List the schema revision of the API database and of every cell's.

    Columns: database (api, or the cell), schema, current, newest, state (newest, other, empty, away).
    """

    columns = ("database", "schema", "current", "newest", "state")
    exit_codes = "Exit code 0: all are at the newest revision. 1: some are not. 5: some did not answer."

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], list[tuple[object, ...]]]:
        open_cloud = self.cloud()
        deadline_s = max(cloud.CONNECT_S, open_cloud.conf.cells.deadline_s)
        rows = [self._row(_of_api(open_cloud), deadline_s)]
        if rows[0][-1] == "newest":
            targets = [_of_cell(cell) for cell in open_cloud.api_read(api_db.cells.list_all)]
            with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as threads:
                rows += threads.map(lambda target: self._row(target, deadline_s), targets)
        states = {row[-1] for row in rows}
        self.exit_code = exits.AWAY if "away" in states else exits.REFUSED if states != {"newest"} else exits.DONE
        return self.columns, rows

    def _row(self, target: Target, deadline_s: float) -> tuple[object, ...]:
        newest = target.schema.newest
        try:
            current = _revision(target, deadline_s)
        except core.errors.Unavailable as error:
            self.complain(error.message)
            return target.name, target.schema.name, None, newest, "away"
        except core.errors.Broken as error:
            self.complain(error.message)
            return target.name, target.schema.name, None, newest, "other"
        state = "newest" if current == newest else "empty" if current is None else "other"
        return target.name, target.schema.name, current, newest, state

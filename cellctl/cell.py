"""Cells: `cellctl cell create|list|show|update|enable|disable|delete`."""

import argparse
import re
import uuid as uuids
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

import api_db.cells
import core.errors
from api_db.cells import CELL0_TRANSPORT, CELL0_UUID, CellMapping, InUse
from cellctl import arguments, cloud, commands, urls
from cellctl.cloud import API_LEVEL
from core.log import masked

CELL0_NAME = "cell0"
COLUMNS = ("name", "uuid", "database_connection", "transport_url", "disabled")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def _row(cell: CellMapping, *, show_secrets: bool) -> tuple[object, ...]:
    shown = (lambda url: url) if show_secrets else masked
    return cell.name, cell.uuid, shown(cell.database_connection), shown(cell.transport_url), cell.disabled


def _add_secrets_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--show-secrets", action="store_true", help="show the passwords in URLs instead of ***")


def _add_cell_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cell", metavar="NAME", type=arguments.by_id, help="name or uuid of the cell")


def _checked_name(name: str, option: str) -> str:
    """A name that stands as it is in letters (`CELL:NUMBER`), in `[rabbitmq] management_urls` (`CELL:URL,CELL:URL`), in
    a label of a metric, in a line of a log, and as a part of the name of a file.

    Raises:
        Invalid: it cannot; the message names the option.
    """
    if _NAME.fullmatch(name) is None:
        raise core.errors.Invalid(
            f"{option} has to be 1 to 64 letters, digits, dots, hyphens and underscores, the first a letter or a digit",
            field=option,
        )
    if name == API_LEVEL:
        raise core.errors.Invalid(
            f"{option} must not be {API_LEVEL}: commands mean the API level by that", field=option
        )
    if _is_uuid(name):
        raise core.errors.Invalid(f"{option} must not look like a uuid: commands take names and uuids", field=option)
    return name


def _is_uuid(text: str) -> bool:
    try:
        uuids.UUID(text)
    except ValueError:
        return False
    return True


# ---- which databases and brokers are taken ---------------------------------------------------------------------------


def _refuse_shared(
    connection: sa.Connection, open_cloud: cloud.Cloud, *, uuid: str | None, database: str | None, broker: str | None
) -> None:
    """A database or a broker's virtual host belongs to one level only: they would read each other's rows and messages.

    Raises:
        Conflict: it has an owner already, whichever user its URL names; the message names owner and option.
    """
    others = [cell for cell in api_db.cells.list_all(connection) if cell.uuid != uuid]
    if database is not None:
        owners = {urls.database_address(cell.database_connection): f"cell {cell.name}" for cell in others}
        owners[urls.database_address(open_cloud.api_url)] = "the API level"
        _refuse_owned(owners.get(urls.database_address(database)), "--database-connection", "database")
    if broker is not None:
        owners = {
            address: f"cell {cell.name}" for cell in others for address in urls.broker_addresses(cell.transport_url)
        }
        owners |= dict.fromkeys(
            urls.broker_addresses(open_cloud.conf.transport_url or CELL0_TRANSPORT), "the API level"
        )
        taken = sorted(owners[address] for address in urls.broker_addresses(broker) if address in owners)
        _refuse_owned(taken[0] if taken else None, "--transport-url", "broker")


def _refuse_owned(owner: str | None, option: str, what: str) -> None:
    if owner is not None:
        raise core.errors.Conflict(f"{option}: this {what} is already used by {owner}", field=option)


# ---- cell create -----------------------------------------------------------------------------------------------------


class CreateCell(commands.ShowOne):
    """Map a cell.

    Its database need not be there yet: `cellctl db sync --cell NAME` makes its tables. Running processes notice the
    cell by themselves.
    """

    columns = COLUMNS
    exit_codes = (
        "Exit code 3: the name, the uuid, the database or the broker belongs to another cell, or to the API level."
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "name",
            metavar="NAME",
            nargs="?",
            help="name of the cell; cell0 is the cell of builds that could not be placed",
        )
        parser.add_argument("--cell0", action="store_true", help="map cell0: it has a database and no broker")
        parser.add_argument(
            "--database-connection", metavar="URL", required=True, help="mysql+pymysql://user:password@host:port/name"
        )
        parser.add_argument(
            "--transport-url",
            metavar="URL",
            help="amqp://user:password@host:port/vhost; several of a cluster separated by ;",
        )
        parser.add_argument("--disabled", action="store_true", help="nothing is built there until `cell enable`")
        parser.add_argument("--uuid", help="the cell's uuid instead of a random one")
        parser.add_argument(
            "--if-absent", action="store_true", help="do nothing if there is such a cell with these URLs"
        )
        _add_secrets_option(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Sequence[object]]:
        wanted = (
            _wanted_cell0(parsed_args)
            if parsed_args.cell0 or parsed_args.name == CELL0_NAME
            else _wanted_cell(parsed_args)
        )
        open_cloud = self.cloud()
        cell, is_new = open_cloud.api_write(
            _create, open_cloud, wanted, if_absent=parsed_args.if_absent, with_uuid=bool(parsed_args.uuid)
        )
        self.say(f"cell {cell.name} is mapped" if is_new else f"cell {cell.name} was there already")
        return self.columns, _row(cell, show_secrets=parsed_args.show_secrets)


def _wanted_cell0(parsed_args: argparse.Namespace) -> CellMapping:
    for option, value in (
        ("--transport-url", parsed_args.transport_url),
        ("--uuid", parsed_args.uuid),
        ("--disabled", parsed_args.disabled),
    ):
        if value:
            raise core.errors.Invalid(f"{option} is not for cell0", field=option)
    if parsed_args.name not in (None, CELL0_NAME):
        raise core.errors.Invalid(f"NAME is {CELL0_NAME} with --cell0, or left out", field="name")
    database = urls.checked_database(parsed_args.database_connection, option="--database-connection")
    return CellMapping(CELL0_UUID, CELL0_NAME, database, CELL0_TRANSPORT, False)


def _wanted_cell(parsed_args: argparse.Namespace) -> CellMapping:
    if parsed_args.name is None:
        raise core.errors.Invalid("NAME is missing (or --cell0)", field="name")
    if parsed_args.transport_url is None:
        raise core.errors.Invalid("--transport-url is missing", field="--transport-url")
    if parsed_args.uuid is not None and (not _is_uuid(parsed_args.uuid) or uuids.UUID(parsed_args.uuid).int == 0):
        raise core.errors.Invalid("--uuid is no uuid that a cell can have", field="--uuid")
    return CellMapping(
        uuid=str(uuids.UUID(parsed_args.uuid) if parsed_args.uuid else uuids.uuid4()),
        name=_checked_name(parsed_args.name, "NAME"),
        database_connection=urls.checked_database(parsed_args.database_connection, option="--database-connection"),
        transport_url=urls.checked_broker(parsed_args.transport_url, option="--transport-url"),
        disabled=parsed_args.disabled,
    )


def _create(
    connection: sa.Connection, open_cloud: cloud.Cloud, wanted: CellMapping, *, if_absent: bool, with_uuid: bool
) -> tuple[CellMapping, bool]:
    """The cell, and whether it is new."""
    present = next(
        (cell for cell in api_db.cells.list_all(connection) if wanted.name == cell.name or wanted.uuid == cell.uuid),
        None,
    )
    if present is not None and if_absent:
        _refuse_other(present, wanted, with_uuid=with_uuid)
        return present, False
    if present is not None:
        option = "NAME" if present.name == wanted.name else "--uuid"
        raise core.errors.Conflict(f"{option}: there is a cell {present.name} ({present.uuid}) already", field=option)
    broker = None if wanted.transport_url == CELL0_TRANSPORT else wanted.transport_url
    _refuse_shared(connection, open_cloud, uuid=wanted.uuid, database=wanted.database_connection, broker=broker)
    created = api_db.cells.create(
        connection,
        name=wanted.name,
        database_connection=wanted.database_connection,
        transport_url=wanted.transport_url,
        disabled=wanted.disabled,
        uuid=wanted.uuid,
    )
    return created, True


def _refuse_other(present: CellMapping, wanted: CellMapping, *, with_uuid: bool) -> None:
    """Whether the cell that is there is the one that was wanted; enabled or disabled is the operator's own affair
    meanwhile."""
    compared = {
        "NAME": (present.name, wanted.name),
        "--uuid": (present.uuid, wanted.uuid if with_uuid else present.uuid),
        "--database-connection": (present.database_connection, wanted.database_connection),
        "--transport-url": (present.transport_url, wanted.transport_url),
    }
    for option, (has, asked) in compared.items():
        if has != asked:
            raise core.errors.Conflict(
                f"{option}: cell {present.name} has {masked(has)} instead of {masked(asked)}: use `cellctl cell "
                "update`",
                field=option,
            )


# ---- cell list and show ----------------------------------------------------------------------------------------------


class ListCells(commands.Lister):
    """List the cells, cell0 first, then by name.

    Columns: name, uuid, database_connection, transport_url, disabled. Passwords are shown as ***.
    """

    columns = COLUMNS

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        _add_secrets_option(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], list[tuple[object, ...]]]:
        cells = self.cloud().api_read(api_db.cells.list_all)
        return self.columns, [_row(cell, show_secrets=parsed_args.show_secrets) for cell in cells]


class ShowCell(commands.ShowOne):
    """Show one cell and what is mapped to it.

    Fields: those of `cell list`, and hosts, servers, deleted_servers, orders: how many of them are mapped to the cell.
    """

    columns = (*COLUMNS, "hosts", "servers", "deleted_servers", "orders")

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        _add_cell_argument(parser)
        _add_secrets_option(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Sequence[object]]:
        open_cloud = self.cloud()
        cell = open_cloud.find_cell(parsed_args.cell)
        use = open_cloud.api_read(api_db.cells.in_use, cell.uuid)
        return self.columns, (
            *_row(cell, show_secrets=parsed_args.show_secrets),
            use.hosts,
            use.servers,
            use.deleted_servers,
            use.orders,
        )


# ---- cell update, enable and disable ---------------------------------------------------------------------------------


class UpdateCell(commands.ShowOne):
    """Rename or re-address a cell.

    Running processes of the API level follow within `[cells] refresh_s`; the cell's own processes have their own
    settings.
    """

    columns = COLUMNS
    exit_codes = (
        "Exit code 3: the new name, database or broker belongs to another cell, or to the API level. 1: "
        "refused for cell0."
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        _add_cell_argument(parser)
        parser.add_argument("--name", metavar="NEW_NAME", help="the new name")
        parser.add_argument("--database-connection", metavar="URL", help="where its database is now")
        parser.add_argument("--transport-url", metavar="URL", help="where its broker is now")
        _add_secrets_option(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Sequence[object]]:
        changes: dict[str, str] = {}
        if parsed_args.name is not None:
            changes["name"] = _checked_name(parsed_args.name, "--name")
        if parsed_args.database_connection is not None:
            changes["database_connection"] = urls.checked_database(
                parsed_args.database_connection, option="--database-connection"
            )
        if parsed_args.transport_url is not None:
            changes["transport_url"] = urls.checked_broker(parsed_args.transport_url, option="--transport-url")
        if not changes:
            raise core.errors.Invalid(
                "nothing to change: give --name, --database-connection or --transport-url", field="--name"
            )
        open_cloud = self.cloud()
        cell = open_cloud.api_write(_update, open_cloud, parsed_args.cell, changes)
        return self.columns, _row(cell, show_secrets=parsed_args.show_secrets)


def _update(
    connection: sa.Connection, open_cloud: cloud.Cloud, name_or_uuid: str, changes: dict[str, str]
) -> CellMapping:
    cell = api_db.cells.find(connection, name_or_uuid)
    if cell.uuid == CELL0_UUID and "name" in changes:
        raise core.errors.WrongState("--name: cell0 keeps its name", field="--name")
    if cell.uuid == CELL0_UUID and "transport_url" in changes:
        raise core.errors.WrongState("--transport-url: cell0 has no broker", field="--transport-url")
    if cell.uuid != CELL0_UUID and changes.get("name") == CELL0_NAME:
        raise core.errors.Conflict("--name: cell0 is the name of another cell", field="--name")
    _refuse_shared(
        connection,
        open_cloud,
        uuid=cell.uuid,
        database=changes.get("database_connection"),
        broker=changes.get("transport_url"),
    )
    return api_db.cells.update(connection, cell.uuid, **changes)


class _SetDisabled(commands.ShowOne):
    columns = COLUMNS
    disabled: bool

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        _add_cell_argument(parser)
        _add_secrets_option(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Sequence[object]]:
        cell = self.cloud().api_write(_set_disabled, parsed_args.cell, disabled=self.disabled)
        return self.columns, _row(cell, show_secrets=parsed_args.show_secrets)


class EnableCell(_SetDisabled):
    """Let servers be built in the cell again; fine if it is enabled already."""

    disabled = False


class DisableCell(_SetDisabled):
    """Build nothing new in the cell; its servers go on and can be managed; fine if it is disabled already."""

    disabled = True
    exit_codes = "Exit code 1: refused for cell0."


def _set_disabled(connection: sa.Connection, name_or_uuid: str, *, disabled: bool) -> CellMapping:
    cell = api_db.cells.find(connection, name_or_uuid)
    if cell.uuid == CELL0_UUID and disabled:
        raise core.errors.WrongState("cell0 cannot be disabled: it holds the builds that failed before they had a cell")
    return api_db.cells.update(connection, cell.uuid, disabled=disabled)


# ---- cell delete -----------------------------------------------------------------------------------------------------


class DeleteCell(commands.Command):
    """Unmap a cell.

    Refused for cell0, while servers are in the cell or orders are on their way to it, and, without --force, while hosts
    or the mappings of deleted servers are left. Its database, its broker and its hosts' providers in Placement stay as
    they are.
    """

    exit_codes = "Exit code 1: refused; what stands in the way is named. 4: there is no such cell (any more)."

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        _add_cell_argument(parser)
        parser.add_argument(
            "--force", action="store_true", help="also forget its hosts and the mappings of its deleted servers"
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="say what would be done, or why not, and change nothing"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        open_cloud = self.cloud()
        options: dict[str, Any] = {"force": parsed_args.force, "dry_run": parsed_args.dry_run}
        if parsed_args.dry_run:
            cell, use = open_cloud.api_read(_delete, parsed_args.cell, **options)
        else:
            cell, use = open_cloud.api_write(_delete, parsed_args.cell, **options)
        with_it = (
            f" with {use.hosts} hosts and the mappings of {use.deleted_servers} deleted servers"
            if use.hosts or use.deleted_servers
            else ""
        )
        self.app.stdout.write(
            f"cell {cell.name} ({cell.uuid}) {'would be' if parsed_args.dry_run else 'is'} unmapped{with_it}\n"
        )


def _delete(connection: sa.Connection, name_or_uuid: str, *, force: bool, dry_run: bool) -> tuple[CellMapping, InUse]:
    cell = api_db.cells.find(connection, name_or_uuid)
    if cell.uuid == CELL0_UUID:
        raise core.errors.WrongState("cell0 cannot be deleted: it holds the builds that failed before they had a cell")
    use = api_db.cells.in_use(connection, cell.uuid)
    _refuse_used(cell, use, force=force)
    if not dry_run:
        try:
            api_db.cells.delete(connection, cell.uuid)
        except sa.exc.IntegrityError as error:
            raise core.errors.WrongState(f"cell {cell.name} is in use: something was mapped to it just now") from error
    return cell, use


def _refuse_used(cell: CellMapping, use: InUse, *, force: bool) -> None:
    reasons = []
    if use.servers:
        reasons.append(f"it has {use.servers} servers: delete or move them first")
    if use.orders:
        reasons.append(f"{use.orders} orders are on their way to it: wait until its conductor has taken them")
    if use.hosts and not force:
        reasons.append(f"{use.hosts} hosts are mapped to it: delete them with `cellctl host delete`, or use --force")
    if use.deleted_servers and not force:
        reasons.append(f"the mappings of {use.deleted_servers} deleted servers are left: use --force")
    if reasons:
        raise core.errors.WrongState(f"cell {cell.name} is in use: " + "; ".join(reasons))

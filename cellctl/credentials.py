"""A host's account at its cell's broker: `cellctl host credentials`."""

import argparse
import contextlib
import dataclasses
import os
import pathlib
import secrets
import shlex
import urllib.parse
from collections.abc import Iterator, Sequence

import api_db.hosts
import core.broker_url
import core.errors
import messaging.rabbitmq as rabbitmq
from api_db.cells import CellMapping
from cellctl import arguments, cloud, commands
from clients.rabbitmq import Management
from core.broker_url import AMQP, AMQPS, BrokerUrl
from messaging import access

LONGEST_WORD = 200
TIMEOUT_S = 10.0
OWNER_ONLY = 0o600


@dataclasses.dataclass(frozen=True, slots=True)
class Account:
    """A host's user at the broker where its cell is; `addresses`: of the cell mapping, which know the place and not
    this user."""

    user: access.User
    addresses: Sequence[BrokerUrl]

    @property
    def vhost(self) -> str:
        """The virtual host of the cell."""
        return self.addresses[0].vhost

    def transport_url(self, password: str) -> str:
        """What the agent's settings need."""
        return ";".join(one.of(self.user.name, password) for one in self.addresses)


class HostCredentials(commands.ShowOne):
    """Make, renew or remove the account with which a host's agent logs in at its cell's broker.

    The account speaks for this host and for no other, reads this host's orders, and may make nothing. Done by
    RabbitMQ's management API where the setting [rabbitmq] management_urls names it; else the commands that are to be
    run on the broker's machine are shown. May be repeated: an account that is there keeps its password, and gets its
    rights once more.

    Fields: host, cell, user, result, transport_url (unless it is in --file), run (what is left to be done by hand).
    """

    columns = ("host", "cell", "user", "result", "transport_url", "run")
    exit_codes = (
        "Exit code 2: the cell's broker is no RabbitMQ. 3: the host belongs to another cell. 4: no such "
        "cell. 5: the management API does not answer."
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("host", metavar="HOST", help="name of the host, as in its agent's settings")
        parser.add_argument(
            "--cell",
            metavar="NAME",
            type=arguments.by_id,
            help="the host's cell (name or uuid); of a host that is mapped it is known",
        )
        parser.add_argument(
            "--file",
            metavar="FILE",
            type=arguments.file,
            help="write the line `transport_url = ...` there, for its owner only",
        )
        parser.add_argument("--renew", action="store_true", help="make a new password; the agent needs it at once")
        parser.add_argument("--remove", action="store_true", help="remove the account, and the host's queue")
        parser.add_argument("--dry-run", action="store_true", help="say what would be done and change nothing")
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> tuple[Sequence[str], Sequence[object]]:
        open_cloud = self.cloud()
        cell = _cell_of(open_cloud, _checked(parsed_args.host), parsed_args.cell)
        account = Account(access.host(parsed_args.host), _rabbitmq(cell.transport_url))
        done: dict[str, object] = {"host": parsed_args.host, "cell": cell.name, "user": account.user.name}
        management = open_cloud.conf.rabbitmq.management_urls.get(cell.name)
        with _managed(management) as api:
            if parsed_args.remove:
                done |= _remove(account, api, dry_run=parsed_args.dry_run)
            else:
                done |= _make(account, api, parsed_args.file, renew=parsed_args.renew, dry_run=parsed_args.dry_run)
        return tuple(done), tuple(done.values())


def _checked(host: str) -> str:
    if (
        not host
        or "/" in host
        or host in (".", "..")
        or not host.isprintable()
        or len(access.word_of(host)) > LONGEST_WORD
    ):
        raise core.errors.Invalid(f"{host!r} cannot be the name of a host", field="HOST")
    return host


def _cell_of(open_cloud: cloud.Cloud, host: str, named: str | None) -> CellMapping:
    owners = {one.host: one.cell_uuid for one in open_cloud.api_read(api_db.hosts.list_all)}
    if named is None and host not in owners:
        raise core.errors.Invalid(
            f"host {host} is not mapped to a cell yet: --cell says which it is in", field="--cell"
        )
    cell = open_cloud.find_cell(named or owners[host])
    if owners.get(host, cell.uuid) != cell.uuid:
        raise core.errors.Conflict(f"host {host} belongs to another cell")
    return cell


def _rabbitmq(url: str) -> list[BrokerUrl]:
    addresses = [] if url.startswith("none") else core.broker_url.parse(url, option="--cell: the broker of the cell")
    if not all(one.scheme in (AMQP, AMQPS) for one in addresses) or not addresses:
        raise core.errors.Invalid("the cell's broker is no RabbitMQ: there are no accounts to make", field="--cell")
    return addresses


@contextlib.contextmanager
def _managed(url: str | None) -> Iterator[Management | None]:
    if url is None:
        yield None
        return
    api = Management(url, timeout_s=TIMEOUT_S)
    try:
        yield api
    finally:
        api.close()


def _make(
    account: Account, api: Management | None, file: pathlib.Path | None, *, renew: bool, dry_run: bool
) -> dict[str, object]:
    is_known = api.has_user(account.user.name) if api else False
    password = None if is_known and not renew else secrets.token_hex(24)
    if api is None and file is not None and not renew:
        password = _password_in(file, account) or password
    if dry_run:
        return {"result": "would make new credentials" if password else "would give it its rights once more"}
    hashed = rabbitmq.password_hash(password) if password else None
    definitions = rabbitmq.user(account.vhost, account.user, hashed=hashed)
    told: dict[str, object] = {}
    if password and file is None:
        told["transport_url"] = account.transport_url(password)
    # The broker first, and the file at once afterwards: as a fresh one beside it, so that what can fail has failed
    # before.
    with _fresh(file if password else None, f"transport_url = {account.transport_url(password or '')}\n"):
        if api is None:
            path = pathlib.Path(f"{urllib.parse.quote(account.user.name, safe='')}.definitions.json").absolute()
            with _fresh(path, rabbitmq.text(definitions)):
                pass
            told["run"] = shlex.join(["rabbitmqctl", "import_definitions", str(path)])
        else:
            api.import_definitions(definitions)
    return {
        "result": "made" if password and not is_known else "renewed" if password else "kept, with its rights",
        **told,
    }


def _remove(account: Account, api: Management | None, *, dry_run: bool) -> dict[str, object]:
    queue = account.user.name
    if dry_run:
        return {"result": "would be removed"}
    if api is None:
        by_hand = (
            ["rabbitmqctl", "delete_user", account.user.name],
            ["rabbitmqctl", "delete_queue", "--vhost", account.vhost, queue],
        )
        return {"result": "to be removed by hand", "run": "\n".join(shlex.join(words) for words in by_hand)}
    was_there = api.delete_user(account.user.name)
    api.delete_queue(account.vhost, queue)
    return {"result": "removed" if was_there else "was not there"}


def _password_in(file: pathlib.Path, account: Account) -> str | None:
    """The password of an earlier run."""
    with contextlib.suppress(FileNotFoundError, core.errors.Invalid):
        url = core.broker_url.parse(file.read_text().partition("=")[2].strip())[0]
        if url.user == account.user.name:
            return url.password or None
    return None


@contextlib.contextmanager
def _fresh(path: pathlib.Path | None, text: str) -> Iterator[None]:
    """Inside, the text lies beside the file, readable by its owner only; it takes the file's place if nothing fails."""
    if path is None:
        yield
        return
    fresh = path.with_name(path.name + ".fresh")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY), "w") as file:
        file.write(text)
    try:
        yield
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)

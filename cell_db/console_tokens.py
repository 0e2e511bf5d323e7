"""Tokens that open one console of one server for a while. Only their hashes are kept: who reads the table can open
nothing."""

import dataclasses
import hashlib
import secrets
from typing import Any

import sqlalchemy as sa

from cell_db.tables import console_auth_tokens, instances
from database.types import now_sql
from lifecycle import refusals, states
from lifecycle.actions import GET_CONSOLE
from objects.console import Address

_RANDOM_BYTES = 32
_ENDED = (states.BUILD_DELETING, states.BUILD_DELETED)


@dataclasses.dataclass(frozen=True, slots=True)
class ConsoleAccess:
    """What a token stands for: the console of this kind, of this server, at this address of its host
    (`objects.console.Address`)."""

    instance_uuid: str
    instance_host: str
    kind: str
    host: str | None
    port: int | None
    path: str | None

    @property
    def address(self) -> Address:
        """Where the console was served when the token was issued.

        Raises:
            ValueError: the row holds no address.
        """
        return Address(kind=self.kind, host=self.host, port=self.port, path=self.path)


_COLUMNS = tuple(console_auth_tokens.c[field.name] for field in dataclasses.fields(ConsoleAccess))


def issue(connection: sa.Connection, uuid: str, *, instance_host: str, address: Address, ttl_s: float) -> str:
    """A new token for the console of this server at this address of this host; nobody can read it again.

    Raises:
        WrongState: the server has left this host since, or is being deleted; the message names its state.
    """
    query = sa.select(instances.c.host, instances.c.state, instances.c.vm_state).where(instances.c.uuid == uuid)
    server = connection.execute(query).first()
    if server is None or server.host != instance_host or server.state in _ENDED:
        vm_state = states.DELETED if server is None else server.vm_state
        raise refusals.wrong_state(
            GET_CONSOLE, uuid, attribute="vm_state", state=vm_state, why="it is being deleted or has left its host"
        )
    token = secrets.token_urlsafe(_RANDOM_BYTES)
    ticket = ConsoleAccess(uuid, instance_host, address.kind, address.host, address.port, address.path)
    values: dict[str, Any] = {**dataclasses.asdict(ticket), "token_hash": _hash(token)}
    connection.execute(sa.insert(console_auth_tokens).values(**values, created_at=now_sql(), expires_at=now_sql(ttl_s)))
    return token


def resolve(connection: sa.Connection, token: str) -> ConsoleAccess | None:
    """What the token stands for; None: it is unknown or too old, or its server was deleted or went to another host."""
    same_address = sa.and_(
        instances.c.uuid == console_auth_tokens.c.instance_uuid, instances.c.host == console_auth_tokens.c.instance_host
    )
    query = (
        sa.select(*_COLUMNS)
        .join(instances, same_address)
        .where(
            console_auth_tokens.c.token_hash == _hash(token),
            console_auth_tokens.c.expires_at > now_sql(),
            instances.c.state.not_in(_ENDED),
        )
    )
    row = connection.execute(query).first()
    return None if row is None else ConsoleAccess(*row)


def forget(connection: sa.Connection, uuid: str) -> None:
    """The server's tokens are gone: whoever was let in stays, nobody else is."""
    connection.execute(sa.delete(console_auth_tokens).where(console_auth_tokens.c.instance_uuid == uuid))


def expire(connection: sa.Connection, *, most: int) -> int:
    """Removes tokens that are too old, the oldest first; how many."""
    old = sa.select(console_auth_tokens.c.id).where(console_auth_tokens.c.expires_at <= now_sql())
    ids = list(connection.execute(old.order_by(console_auth_tokens.c.expires_at).limit(most)).scalars())
    if ids:
        connection.execute(sa.delete(console_auth_tokens).where(console_auth_tokens.c.id.in_(ids)))
    return len(ids)


def _hash(token: str) -> str:
    # It is random and long: a plain hash cannot be guessed back.
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()

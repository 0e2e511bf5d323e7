"""Key pairs: each belongs to a user, in all projects."""

import datetime
from dataclasses import dataclass

import sqlalchemy as sa

import api_db.quota
import core.errors
from api_db.tables import key_pairs
from database.errors import is_duplicate
from database.statements import changed
from database.types import now_sql

SSH = "ssh"
X509 = "x509"

_COLUMNS = (
    key_pairs.c.id,
    key_pairs.c.user_id,
    key_pairs.c.name,
    key_pairs.c.type,
    key_pairs.c.fingerprint,
    key_pairs.c.public_key,
    key_pairs.c.created_at,
)


@dataclass(frozen=True, slots=True)
class KeyPair:
    """The public half of a key pair; nobody keeps the private one."""

    id: int
    user_id: str
    name: str
    type: str
    fingerprint: str
    public_key: str
    created_at: datetime.datetime


def get(conn: sa.Connection, user_id: str, name: str) -> KeyPair:
    """
    Raises:
        NotFound: the user has no key pair of this name.
    """
    row = conn.execute(sa.select(*_COLUMNS).where(_is(user_id, name))).first()
    if row is None:
        raise _not_found(user_id, name)
    return KeyPair(*row)


def list_of_user(
    conn: sa.Connection, user_id: str, *, limit: int | None = None, marker: str | None = None
) -> list[KeyPair]:
    """The user's key pairs in the order of their names, those after `marker` only.

    Raises:
        Invalid: the user has no key pair of the marker's name.
    """
    query = sa.select(*_COLUMNS).where(key_pairs.c.user_id == user_id).order_by(key_pairs.c.name).limit(limit)
    if marker is not None:
        if conn.execute(sa.select(key_pairs.c.id).where(_is(user_id, marker))).first() is None:
            raise core.errors.Invalid(f"marker [{marker}] not found", field="marker")
        query = query.where(key_pairs.c.name > marker)
    return [KeyPair(*row) for row in conn.execute(query)]


def count_of_user(conn: sa.Connection, user_id: str) -> int:
    """How many key pairs the user has."""
    query = sa.select(sa.func.count()).select_from(key_pairs).where(key_pairs.c.user_id == user_id)
    return int(conn.execute(query).scalar_one())


def insert(
    conn: sa.Connection, *, user_id: str, name: str, kind: str, fingerprint: str, public_key: str, most: int
) -> KeyPair:
    """A new key pair of a user who may have `most` of them, -1 meaning any number.

    Raises:
        OverQuota: the user has that many.
        Conflict: the user has one of this name.
    """
    # The lock of projects serves: should a project have the user's id, the two merely wait for each other.
    api_db.quota.lock(conn, user_id)
    if 0 <= most <= count_of_user(conn, user_id):
        raise core.errors.OverQuota("Quota exceeded, too many key pairs.", quota="key_pairs")
    values = {"user_id": user_id, "name": name, "type": kind, "fingerprint": fingerprint, "public_key": public_key}
    try:
        conn.execute(sa.insert(key_pairs).values(created_at=now_sql(), **values))
    except sa.exc.IntegrityError as error:
        if is_duplicate(error):
            raise core.errors.Conflict(f"Key pair '{name}' already exists.") from error
        raise
    return get(conn, user_id, name)


def delete(conn: sa.Connection, user_id: str, name: str) -> None:
    """
    Raises:
        NotFound: the user has no key pair of this name.
    """
    if not changed(conn.execute(sa.delete(key_pairs).where(_is(user_id, name)))):
        raise _not_found(user_id, name)


def _is(user_id: str, name: str) -> sa.ColumnElement[bool]:
    return sa.and_(key_pairs.c.user_id == user_id, key_pairs.c.name == name)


def _not_found(user_id: str, name: str) -> core.errors.NotFound:
    return core.errors.NotFound(f"Keypair {name} not found for user {user_id}")

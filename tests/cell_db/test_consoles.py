"""Tokens of consoles, and the proxies that honour them."""

import pytest
import sqlalchemy as sa

import cell_db.console_proxies
import cell_db.console_tokens
import cell_db.endings
import cell_db.heartbeats
import core.errors
from cell_db.tables import console_auth_tokens, services
from core.clock import utcnow
from database.engine import Database
from database.types import now_sql
from lifecycle import states
from objects.console import Address, Proxy
from objects.host import CONSOLE_PROXY
from tests.cell_db.rows import insert_instance, update_instance

VNC = Address(kind="vnc", host="10.0.0.1", port=5900)
SOCKET = Address(kind="serial", path="/consoles/one.serial")
PROXY = Proxy(public_url="https://consoles.example", token_ttl_s=600.0)


def issued(database: Database, uuid: str, address: Address = VNC, *, host: str = "host-1", ttl_s: float = 600.0) -> str:
    with database.transaction() as connection:
        return cell_db.console_tokens.issue(connection, uuid, instance_host=host, address=address, ttl_s=ttl_s)


def resolved(database: Database, token: str) -> cell_db.console_tokens.ConsoleAccess | None:
    with database.reading() as connection:
        return cell_db.console_tokens.resolve(connection, token)


def tokens(database: Database) -> list[sa.Row[tuple[object, ...]]]:
    with database.reading() as connection:
        return list(connection.execute(sa.select(console_auth_tokens)))


@pytest.mark.parametrize("address", [VNC, SOCKET], ids=["port", "socket"])
def test_a_token_leads_to_its_console_and_no_other_does(database: Database, address: Address) -> None:
    uuid = insert_instance(database)

    token = issued(database, uuid, address)

    ticket = resolved(database, token)
    assert ticket is not None
    assert (ticket.instance_uuid, ticket.instance_host, ticket.address) == (uuid, "host-1", address)
    for other in ("", token[:-1], token + "a", token.swapcase(), "\udc80", "' or 1=1 --"):
        assert resolved(database, other) is None
    assert issued(database, uuid, address) != token, "each is a new one"


def test_nobody_reads_a_token_from_the_table(database: Database) -> None:
    token = issued(database, insert_instance(database))

    (row,) = tokens(database)

    assert len(token) >= 40
    assert all(token not in str(value) for value in row)


def test_a_token_ends_with_its_time_by_the_databases_clock(database: Database) -> None:
    uuid = insert_instance(database)
    fresh, old = issued(database, uuid), issued(database, uuid, ttl_s=0.0)

    assert resolved(database, old) is None
    assert resolved(database, fresh) is not None


@pytest.mark.parametrize(
    "change",
    [{"host": "host-2"}, {"host": None}, {"state": states.BUILD_DELETING}, {"state": states.BUILD_DELETED}],
    ids=["moved", "nowhere", "going", "gone"],
)
def test_a_token_opens_nothing_once_its_server_has_gone_or_moved(database: Database, change: dict[str, object]) -> None:
    uuid = insert_instance(database)
    token = issued(database, uuid)

    update_instance(database, uuid, **change)

    assert resolved(database, token) is None
    with pytest.raises(core.errors.WrongState):
        issued(database, uuid)


def test_no_token_for_a_server_that_is_not_there(database: Database) -> None:
    with pytest.raises(core.errors.WrongState):
        issued(database, "9b0a1c5e-4b6b-4c0b-8f9d-0e6ad3f6a111")


def test_the_tokens_of_a_deleted_server_are_gone_with_it(database: Database) -> None:
    gone, stays = insert_instance(database, state=states.BUILD_ACTIVE), insert_instance(database)
    issued(database, gone)
    issued(database, gone, SOCKET)
    kept = issued(database, stays)
    update_instance(database, gone, state=states.BUILD_DELETING)

    with database.transaction() as connection:
        assert cell_db.endings.deleted(connection, gone)

    assert {row.instance_uuid for row in tokens(database)} == {stays}
    assert resolved(database, kept) is not None


def test_old_tokens_are_swept_in_batches_and_the_others_stay(database: Database) -> None:
    uuid = insert_instance(database)
    kept = issued(database, uuid)
    for _ in range(5):
        issued(database, uuid, ttl_s=0.0)

    swept = []
    for _ in range(4):
        with database.transaction() as connection:
            swept.append(cell_db.console_tokens.expire(connection, most=2))

    assert swept == [2, 2, 1, 0]
    assert len(tokens(database)) == 1 and resolved(database, kept) is not None


# ---- proxies ---------------------------------------------------------------------------------------------------------


def beat(database: Database, host: str, proxy: Proxy = PROXY) -> None:
    with database.transaction() as connection:
        cell_db.console_proxies.beat(connection, host=host, version="0.1", started_at=utcnow(), proxy=proxy)


def living(database: Database) -> Proxy | None:
    with database.reading() as connection:
        return cell_db.console_proxies.living(connection, down_after_s=30.0)


def age(database: Database, host: str, seconds: float) -> None:
    with database.transaction() as connection:
        connection.execute(sa.update(services).where(services.c.host == host).values(last_seen_at=now_sql(-seconds)))


def test_a_cell_without_a_proxy_has_none(database: Database) -> None:
    assert living(database) is None


def test_one_of_the_proxies_that_live_is_chosen(database: Database) -> None:
    second = Proxy(public_url="https://second.example", token_ttl_s=60.0)
    beat(database, "proxy-1")
    beat(database, "proxy-2", second)
    assert {living(database) for _ in range(64)} == {PROXY, second}

    age(database, "proxy-1", 31.0)
    assert {living(database) for _ in range(8)} == {second}

    beat(database, "proxy-1", Proxy(public_url="https://moved.example", token_ttl_s=600.0))
    age(database, "proxy-2", 31.0)
    assert living(database) == Proxy(public_url="https://moved.example", token_ttl_s=600.0)


def test_a_proxy_that_stopped_or_fell_silent_is_away_not_unknown(database: Database) -> None:
    beat(database, "proxy-1")
    with database.transaction() as connection:
        cell_db.heartbeats.leave(connection, host="proxy-1", binary=CONSOLE_PROXY)
    with pytest.raises(core.errors.Unavailable):
        living(database)

    beat(database, "proxy-1")
    assert living(database) == PROXY
    age(database, "proxy-1", 31.0)
    with pytest.raises(core.errors.Unavailable):
        living(database)

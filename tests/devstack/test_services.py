"""Private MariaDB servers and RabbitMQ nodes: started, frozen, killed, started again."""

import pathlib
from collections.abc import Iterator

import kombu
import pymysql
import pytest
import sqlalchemy as sa

from core import errors
from devstack.services.mariadb import MariaDB
from devstack.services.rabbitmq import RabbitMQ
from devstack.waiting import wait_until
from tests.mariadb_server import running_mariadb


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDB]:
    with running_mariadb(tmp_path_factory.mktemp("mariadb")) as server:
        yield server


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    node = RabbitMQ(tmp_path_factory.mktemp("rabbitmq"))
    node.create_vhost("east")
    node.start()
    yield node
    node.stop()


@pytest.mark.mariadb
def test_a_schema_is_made_once_and_has_a_user_of_its_own(server: MariaDB) -> None:
    url = server.create_schema("cellplane_east")
    other = server.create_schema("cellplaneXeast")

    assert server.create_schema("cellplane_east") == url
    assert _one_value(url, "SELECT @@time_zone") == "+00:00"
    with pytest.raises(pymysql.err.OperationalError, match="Access denied"):
        _connect(url.replace("/cellplane_east?", "/cellplaneXeast?"))
    _execute(other, "CREATE TABLE t (i INT)")


@pytest.mark.mariadb
def test_nobody_comes_in_without_a_password(server: MariaDB) -> None:
    for user in ("root", "mariadb.sys", "", "cellplane_admin"):
        with pytest.raises(pymysql.err.OperationalError):
            pymysql.connect(
                host="127.0.0.1", port=server.port, user=user, password="", ssl_disabled=True, connect_timeout=5
            )


@pytest.mark.mariadb
def test_a_server_may_be_a_copy_of_another_that_never_ran(tmp_path: pathlib.Path) -> None:
    first, second = MariaDB(tmp_path / "first"), MariaDB(tmp_path / "second")
    first.initialise()
    second.initialise(like=first)
    second.start()
    try:
        url = second.create_schema("cellplane_east")
        assert _one_value(url, "SELECT @@datadir") == f"{second.directory}/data/"
    finally:
        second.stop()
    second.initialise(like=first)  # it has its own by now
    assert second.is_initialised


@pytest.mark.mariadb
def test_a_frozen_server_is_silent_and_goes_on(server: MariaDB) -> None:
    server.freeze()
    with pytest.raises(errors.Unavailable, match="no answer from MariaDB"):
        server.wait_ready(0.5)

    server.thaw()

    server.wait_ready()


@pytest.mark.mariadb
def test_a_killed_server_starts_again_with_what_was_committed(server: MariaDB) -> None:
    url = server.create_schema("kept")
    _execute(url, "CREATE TABLE t (i INT)", "INSERT INTO t VALUES (42)")

    server.kill()
    server.start()

    assert _one_value(url, "SELECT i FROM t") == 42


@pytest.mark.rabbitmq
def test_a_virtual_host_can_be_made_before_and_after_the_start(node: RabbitMQ) -> None:
    for name in ("east", "made-later"):
        with kombu.Connection(node.create_vhost(name)) as connection:
            connection.ensure_connection(max_retries=1, timeout=10)
    assert "limits" in node.control("list_policies", "-p", "made-later")


@pytest.mark.rabbitmq
def test_a_virtual_host_is_closed_to_the_users_of_others(node: RabbitMQ) -> None:
    east, west = node.create_vhost("east"), node.create_vhost("west")

    with kombu.Connection(east.replace("/east", "/west"), heartbeat=0) as connection:
        with pytest.raises(connection.connection_errors + connection.channel_errors + (OSError,)):
            connection.connect()
    assert east != west


@pytest.mark.rabbitmq
def test_a_killed_node_keeps_its_durable_messages(node: RabbitMQ) -> None:
    url = node.create_vhost("east")
    queue = kombu.Queue("kept", durable=True, queue_arguments={"x-queue-type": "quorum"})
    with kombu.Connection(url, transport_options={"confirm_publish": True}) as connection:
        with kombu.Producer(connection) as producer:
            producer.publish("hello", routing_key="kept", declare=[queue], delivery_mode=2)

    _wait_until_noted(node, queue="kept")
    node.kill()
    node.start()

    with kombu.Connection(url) as connection:
        with connection.channel() as channel:
            message = queue.bind(channel).get()
            assert message is not None
            assert message.decode() == "hello"


def _wait_until_noted(node: RabbitMQ, *, queue: str) -> None:
    """RabbitMQ 3.10 writes the directory of quorum queues half a second late; one that is not in it when the node is
    killed never gets a leader again."""
    directories = list(node.directory.glob("mnesia/*/quorum/*/names.dets"))
    wait_until(
        lambda: any(queue.encode() in directory.read_bytes() for directory in directories),
        what=f"note of queue {queue}",
        deadline_s=10.0,
    )


def _execute(url: str, *statements: str) -> None:
    with _connect(url) as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        connection.commit()


def _one_value(url: str, statement: str) -> object:
    with _connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        row = cursor.fetchone()
        assert row is not None
        return row[0]


def _connect(url: str) -> pymysql.Connection:
    address = sa.make_url(url)
    return pymysql.connect(
        host=address.host,
        port=address.port or 0,
        user=address.username,
        password=str(address.password),
        database=address.database,
        ssl_disabled=True,
        connect_timeout=5,
    )

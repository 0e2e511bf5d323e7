"""URLs of databases and brokers: what a program could not connect to is refused where it is typed, and never says a
password."""

import inspect
import pathlib
from collections.abc import Callable
from typing import Any

import pymysql
import pytest

import compute.main
import conductor.cell.main
import conductor.superconductor.main
import console.main
import core.broker_url
import core.config
import core.errors
from database import database_url
from database.engine import Database
from messaging.broker import Broker

GOOD_DATABASES = [
    "mysql://u@db/x",
    "mysql+pymysql://u:hush@db.example:3306/x?charset=utf8mb4",
    "mariadb://u:h%40sh@10.0.0.1/x-y_1",
    "mysql://u:h%40sh@[fd00::1]:3306/x",
    "mysql://u:hush@localhost/x?unix_socket=/run/db.sock",
    "sqlite:////srv/with space/x.sqlite",
]
BAD_DATABASES = [
    "",
    "nonsense",
    "hush@db/x",
    " mysql://u:hush@db/x",
    "mysql://u:hush@db/x\n",
    "postgresql://u:hush@db/x",
    "mysql+aiomysql://u:hush@db/x",
    "mysql://u:hush@db",
    "mysql://u:hush@/x",
    "mysql://u:hush@-db/x",
    "mysql://u:hush@d..b/x",
    "mysql://u:hush@d b/x",
    "mysql://u:hush@db,db2/x",
    "mysql://u:hush@" + "d" * 64 + "/x",
    "mysql://u:hush@db:0/x",
    "mysql://u:hush@db:65536/x",
    "mysql://u:hush@db:-1/x",
    "mysql://u:hush@db:port/x",
    "mysql://u:hush@db/x/y",
    "mysql://u:hush@db/" + "x" * 65,
    "mysql://u:hush@db/x?nosuch=1",
    "mysql://u:hush@db/x?host=elsewhere",
    "mysql://u:hush@db/x?password=hush",
    "mysql://u:hush@db/x?connect_timeout=abc",
    "mysql://u:hush@db/x?connect_timeout=5",
    "mysql://u:hush@db/x?local_infile=1",
    "mysql://u:hush@db/x?read_default_file=/etc/hush",
    "mysql://u:hush@db/x?ssl_ca=/etc/hush.pem",
    "mysql://u:hush@db/x?charset=latin1",
    "mysql://u:hush@db/x?charset=utf8mb4&charset=utf8mb4",
    "mysql://u:hush@db/x?unix_socket=run/db.sock",
    "sqlite:///here.sqlite",
    "sqlite://host/x.sqlite",
    "sqlite:////x.sqlite?timeout=hush",
    "sqlite:////x.sqlite?mode=ro&uri=true",
]
GOOD_BROKERS = [
    "amqp://u:hush@broker/vhost",
    "amqp://broker",
    "amqps://u:h%40sh@broker.example:5671/%2Fcell",
    "amqp://u:hush@[fd00::1]:5672/v",
    "amqp://u:hush@one/v;amqp://u:hush@two/v",
    "inproc://east",
    "inproc://u:hush@East.1",
]
BAD_BROKERS = [
    "",
    "nonsense",
    "kafka://u:hush@broker",
    "none://",
    "amqp://u:hush@",
    "amqp://u:hush@/v",
    "amqp://u:hush@bro ker/v",
    "amqp://u:hush@broker:port/v",
    "amqp://u:hush@broker:0/v",
    "amqp://u:hush@broker:99999/v",
    "amqp://u:hush@[fd00::zz]/v",
    "amqp://u:hush@[fd00::1/v",
    "amqp://u:hush@one/v;",
    "amqp://u:hush@one/v; amqp://u:hush@two/v",
    "amqp://u:hush@one/v,amqp://u:hush@two/v",
    "amqp://u:hu?sh@broker/v",
    "amqp://u:hu#sh@broker/v",
    "amqp://u:hu/sh@broker/v",
    "amqp://u:hush@broker/v?heartbeat=hush",
    "amqp://u:hush@broker/v?nosuch=1",
    "amqps://u:hush@broker/v?ssl_ca_certs=/hush",
    "amqp://u:hush@broker/" + "v" * 256,
    "inproc://",
    "inproc://u:hush@",
    "inproc://a/b",
    "inproc://a:5",
]


@pytest.mark.parametrize("url", GOOD_DATABASES)
def test_the_driver_takes_what_the_parser_takes(url: str) -> None:
    database = Database(url)

    if not database.is_sqlite:
        _, arguments = database.engine.dialect.create_connect_args(database.url)
        inspect.signature(pymysql.connections.Connection.__init__).bind(None, **arguments)
        assert not {"connect_timeout", "read_timeout", "write_timeout", "ssl_disabled"} & set(arguments)
        assert arguments["host"] == database.url.host


@pytest.mark.parametrize("url", BAD_DATABASES)
@pytest.mark.parametrize("read", [database_url.parse, Database])
def test_a_url_that_no_database_has_is_refused(url: str, read: Callable[[str], Any]) -> None:
    with pytest.raises(core.errors.Invalid) as refused:
        read(url)

    assert "hush" not in refused.value.message and "\n" not in refused.value.message


@pytest.mark.parametrize("url", GOOD_BROKERS)
def test_a_url_of_a_broker_is_written_as_it_was_read(url: str) -> None:
    Broker(url).close()
    for one in core.broker_url.parse(url):
        again = core.broker_url.parse(one.of("compute.a/b", "p@ss:w/rd"))
        assert [(one.scheme, one.host, one.port, one.vhost)] == [
            (each.scheme, each.host, each.port, each.vhost) for each in again
        ]
        assert (again[0].user, again[0].password) == ("compute.a/b", "p@ss:w/rd")
        assert "hush" not in one.shown


@pytest.mark.parametrize("url", BAD_BROKERS)
@pytest.mark.parametrize("read", [core.broker_url.parse, Broker])
def test_a_url_that_no_broker_has_is_refused(url: str, read: Callable[[str], Any]) -> None:
    with pytest.raises(core.errors.Invalid) as refused:
        read(url)

    assert "hush" not in refused.value.message


@pytest.mark.parametrize(
    ("program", "groups", "sections"),
    [
        (
            conductor.cell.main.CellConductor,
            conductor.cell.main.options(),
            {"database": "mysql://u:hush@db/x?nosuch=1"},
        ),
        (
            conductor.cell.main.CellConductor,
            conductor.cell.main.options(),
            {"database": "sqlite:////x", "DEFAULT": "amqp://u:hush@b?x=1"},
        ),
        (
            conductor.superconductor.main.SuperConductor,
            conductor.superconductor.main.options(),
            {"api_database": "mysql://u:hush@db:0/x"},
        ),
        (compute.main.Agent, compute.main.options(), {"DEFAULT": "amqp://u:hush@/v"}),
        (console.main.ConsoleProxy, console.main.options(), {"database": "mysql://u:hush@db/x?connect_timeout=abc"}),
    ],
)
def test_a_program_names_the_setting_whose_url_it_cannot_use(
    program: Callable[[Any], Any],
    groups: list[core.config.OptionGroup],
    sections: dict[str, str],
    tmp_path: pathlib.Path,
) -> None:
    name, bad = list(sections.items())[-1]
    settings = {"DEFAULT": "inproc://urls"} | sections
    lines = [
        f"[{section}]\n{'transport_url' if section == 'DEFAULT' else 'connection'} = {url}\n"
        for section, url in settings.items()
    ]
    file = tmp_path / "program.conf"
    file.write_text("".join(lines))
    conf = core.config.load("program", ["--config-file", str(file)], groups)

    with pytest.raises(core.errors.Invalid) as refused:
        program(conf)

    assert f"[{name}] {'transport_url' if name == 'DEFAULT' else 'connection'}" in refused.value.message
    assert "hush" not in refused.value.message and bad not in refused.value.message

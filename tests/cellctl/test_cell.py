"""`cellctl cell`."""

import pytest

from api_db.cells import CELL0_UUID
from tests.cellctl.terminal import Ended, Terminal

HUSH = "mysql+pymysql://cellplane:h%40sh@db.example/north"
HUSH_BROKER = "amqp://cellplane:h@sh@one.example/north;amqp://cellplane:h@sh@two.example/north"


def create(cloud: Terminal, name: str = "north", **more: str | bool) -> Ended:
    """Runs `cell create`; `more` are options, True for one without a value, "" leaves a default out."""
    options: dict[str, str | bool] = {
        "database_connection": cloud.database("north"),
        "transport_url": "inproc://north",
        **more,
    }
    words = [
        word
        for key, value in options.items()
        if value
        for word in (f"--{key.replace('_', '-')}", *([value] if isinstance(value, str) else []))
    ]
    return cloud.runs("cell", "create", name, *words)


def names(cloud: Terminal) -> list[str]:
    return [cell["name"] for cell in cloud.gets("cell", "list")]


# ---- create ----------------------------------------------------------------------------------------------------------


def test_a_created_cell_is_listed(cloud: Terminal) -> None:
    ended = create(cloud, format="json")

    assert ended.code == 0
    assert ended.json["name"] == "north"
    assert ended.json["disabled"] is False
    assert names(cloud) == ["cell0", "east", "north", "west"]


def test_a_cell_may_begin_disabled_and_have_a_uuid_of_its_own(cloud: Terminal) -> None:
    uuid = "5f7ca4dc-2a1f-4d6e-9a4a-3b5f9f7c2a10"

    ended = create(cloud, uuid=uuid.upper(), disabled=True, format="json")

    assert (ended.json["uuid"], ended.json["disabled"]) == (uuid, True)


def test_cell0_has_its_own_uuid_and_no_broker(cloud: Terminal) -> None:
    cell0 = cloud.gets("cell", "show", "cell0")

    assert (cell0["uuid"], cell0["transport_url"]) == (CELL0_UUID, "none://")


def test_the_name_cell0_means_cell0(terminal: Terminal) -> None:
    terminal.does("db", "sync", "--api")

    terminal.does("cell", "create", "cell0", "--database-connection", terminal.database("cell0"))

    assert terminal.gets("cell", "list")[0]["uuid"] == CELL0_UUID


def test_passwords_are_masked_unless_asked_for(cloud: Terminal) -> None:
    created = create(cloud, database_connection=HUSH, transport_url=HUSH_BROKER, format="json")

    for ended in (
        created,
        cloud.does("cell", "list"),
        cloud.does("cell", "show", "north"),
        cloud.does("cell", "update", "north", "--name", "n"),
    ):
        assert "sh@" not in ended.out
        assert "h%40sh" not in ended.out
    assert created.json["database_connection"] == "mysql+pymysql://cellplane:***@db.example/north"
    assert (
        created.json["transport_url"] == "amqp://cellplane:***@one.example/north;amqp://cellplane:***@two.example/north"
    )
    assert cloud.gets("cell", "show", "n", "--show-secrets")["database_connection"] == HUSH
    assert HUSH in cloud.does("cell", "list", "--show-secrets").out


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("database_connection", "nonsense"),
        ("database_connection", "postgresql://u:hush@db/name"),
        ("database_connection", "mysql+pymysql://u:hush@db"),
        ("database_connection", "mysql+pymysql:///name"),
        ("database_connection", "mysql+pymysql://u:hush@db:port/name"),
        ("database_connection", "mysql+pymysql://u:hush@db:0/name"),
        ("database_connection", "mysql+pymysql://u:hush@db:99999/name"),
        ("database_connection", "sqlite:///here.sqlite"),
        ("database_connection", "sqlite://"),
        ("transport_url", "nonsense"),
        ("transport_url", "amqp://u:hush@broker:99999/vhost"),
        ("transport_url", "kafka://u:hush@broker"),
        ("transport_url", "amqp://u:hush@"),
        ("transport_url", "amqp://u:hush@broker:port/vhost"),
        ("transport_url", "amqp://u:hush@one/vhost;"),
        ("transport_url", "none://"),
        ("database_connection", "mysql://u:hush@db/x?nosuch=1"),
        ("database_connection", "mysql://u:hush@db/x?host=elsewhere"),
        ("database_connection", "mysql://u:hush@db/x?connect_timeout=hush"),
        ("database_connection", "mysql://u:hush@db/x?ssl_ca=/hush"),
        ("database_connection", "mysql://u:hush@d..b/x"),
        ("database_connection", "sqlite:////x.sqlite?timeout=hush"),
        ("transport_url", "amqp://u:hush@broker/v?nosuch=hush"),
        ("transport_url", "amqp://u:hush@bro ker/v"),
        ("transport_url", "amqp://u:hush@one/v,amqp://u:hush@two/v"),
        ("transport_url", "inproc://"),
        ("uuid", "nonsense"),
        ("uuid", CELL0_UUID),
    ],
)
def test_a_bad_value_is_refused_and_its_option_named(cloud: Terminal, option: str, value: str) -> None:
    ended = create(cloud, **{option: value})

    assert ended.code == 2
    assert f"--{option.replace('_', '-')} " in ended.err
    assert "hush" not in ended.err
    assert len(ended.err.splitlines()) == 1
    assert "north" not in names(cloud)
    if option == "uuid":
        return
    again = cloud.runs("cell", "update", "east", f"--{option.replace('_', '-')}", value)
    assert (again.code, again.err.partition(option[-3:])[2]) == (2, ended.err.partition(option[-3:])[2])


BAD_NAMES = [
    "", " north", "no\nrth", "n" * 65, "5f7ca4dc-2a1f-4d6e-9a4a-3b5f9f7c2a10", "5F7CA4DC2A1F4D6E9A4A3B5F9F7C2A10",
    "api", "a:b", "a,b", "a/b", "a b", "..", ".a", "_a", "a*", "a#", "a%", "a@b", "a'b", "z\u00fcrich", "\u200bnorth",
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_name_is_refused(cloud: Terminal, name: str) -> None:
    """A name is a part of what commands call letters, of settings, of labels of metrics, of names of files."""
    ended, renamed = create(cloud, name), cloud.runs("cell", "update", "east", f"--name={name}")

    assert (ended.code, "NAME" in ended.err) == (2, True)
    assert (renamed.code, "--name" in renamed.err) == (2, True)
    assert names(cloud) == ["cell0", "east", "west"]


def test_a_mapping_that_nobody_can_use_is_one_cell_that_is_away(cloud: Terminal) -> None:
    """An older release took such, and every command ended with its error."""
    cloud.everything_up()
    cloud.unusable("east")

    status, versions, listed = (
        cloud.runs("status", "-f", "json"),
        cloud.runs("db", "version", "-f", "json"),
        cloud.does("cell", "list"),
    )
    synced, hosts = cloud.runs("db", "sync"), cloud.runs("host", "discover")
    mended = cloud.does(
        "cell", "update", "east", "--database-connection", cloud.database("east"), "--transport-url", "inproc://east"
    )

    assert [(cell["name"], cell["database"]["state"]) for cell in status.json["cells"]] == [
        ("cell0", "up"),
        ("east", "down"),
        ("west", "up"),
    ]
    assert [(row["database"], row["state"]) for row in versions.json] == [
        ("api", "newest"),
        ("cell0", "newest"),
        ("east", "away"),
        ("west", "newest"),
    ]
    assert (synced.code, hosts.code) == (5, 5)
    assert "west: at" in synced.out and "east: " in synced.err
    assert "hush" not in "".join(ended.out + ended.err for ended in (status, versions, listed, synced, hosts, mended))
    assert cloud.does("status").code == 0


def test_a_cell_needs_a_broker_and_cell0_has_none(cloud: Terminal) -> None:
    without = create(cloud, transport_url="")
    cell0 = create(cloud, "cell0")
    unnamed = cloud.runs(
        "cell", "create", "--database-connection", cloud.database("x"), "--transport-url", "inproc://x"
    )

    assert [(ended.code, "--transport-url" in ended.err) for ended in (without, cell0)] == [(2, True), (2, True)]
    assert (unnamed.code, "NAME" in unnamed.err) == (2, True)


@pytest.mark.parametrize(
    ("taken", "option", "owner"),
    [
        ({"name": "east"}, "NAME", "east"),
        ({"database_connection": "east"}, "--database-connection", "cell east"),
        ({"database_connection": "api"}, "--database-connection", "the API level"),
        ({"transport_url": "inproc://west"}, "--transport-url", "cell west"),
        ({"transport_url": "inproc://api"}, "--transport-url", "the API level"),
    ],
)
def test_what_belongs_to_another_is_refused(cloud: Terminal, taken: dict[str, str], option: str, owner: str) -> None:
    if "database_connection" in taken:
        taken = {"database_connection": cloud.database(taken["database_connection"])}

    ended = create(cloud, **{"name": "north", **taken})

    assert ended.code == 3
    assert option in ended.err and owner in ended.err
    assert names(cloud) == ["cell0", "east", "west"]


@pytest.mark.parametrize(
    ("option", "url", "same"),
    [
        (
            "database_connection",
            "mysql+pymysql://a:x@db.example/north",
            "mysql://b:y@DB.example:3306/north?charset=utf8mb4",
        ),
        (
            "database_connection",
            "mysql+pymysql://a:x@localhost/north?unix_socket=/run/north.sock",
            "mysql://b@127.0.0.1/north?unix_socket=/run/north.sock",
        ),
        (
            "transport_url",
            "amqp://a:x@broker.example/north",
            "amqp://b:y@other.example/north;amqp://b:y@broker.example:5672/north",
        ),
        ("transport_url", "amqp://a:x@broker.example", "amqp://b:y@broker.example/%2F"),
    ],
)
def test_one_database_or_broker_under_two_urls_is_found_out(cloud: Terminal, option: str, url: str, same: str) -> None:
    assert create(cloud, **{option: url}).code == 0
    other = {"database_connection": cloud.database("south"), "transport_url": "inproc://south", option: same}

    ended = create(cloud, "south", **other)

    assert ended.code == 3
    assert "already used by cell north" in ended.err


def test_if_absent_is_content_with_the_same_cell(cloud: Terminal) -> None:
    cloud.does("cell", "disable", "east")

    ended = create(
        cloud, "east", database_connection=cloud.database("east"), transport_url="inproc://east", if_absent=True
    )
    cell0 = cloud.does("cell", "create", "--cell0", "--database-connection", cloud.database("cell0"), "--if-absent")

    assert ended.code == cell0.code == 0
    assert "was there already" in ended.err
    assert names(cloud) == ["cell0", "east", "west"]


@pytest.mark.parametrize("option", ["database_connection", "transport_url", "uuid"])
def test_if_absent_refuses_another_cell_of_that_name(cloud: Terminal, option: str) -> None:
    wanted = {"database_connection": cloud.database("east"), "transport_url": "inproc://east"}
    other = {"database_connection": HUSH, "transport_url": HUSH_BROKER, "uuid": "5f7ca4dc-2a1f-4d6e-9a4a-3b5f9f7c2a10"}

    ended = create(cloud, "east", **{**wanted, option: other[option]}, if_absent=True)

    assert ended.code == 3
    assert f"--{option.replace('_', '-')}" in ended.err
    assert "sh@" not in ended.err


# ---- show, update, enable, disable -----------------------------------------------------------------------------------


def test_show_counts_what_is_mapped(cloud: Terminal) -> None:
    cloud.host("east-1", "east")
    cloud.does("host", "discover")
    cloud.server("east")
    cloud.server("east", deleted=True)
    cloud.order("east")

    east = cloud.gets("cell", "show", cloud.uuid_of("east"))

    assert {key: east[key] for key in ("name", "hosts", "servers", "deleted_servers", "orders")} == {
        "name": "east", "hosts": 1, "servers": 1, "deleted_servers": 1, "orders": 1
    }  # fmt: skip


def test_update_renames_and_re_addresses(cloud: Terminal) -> None:
    cloud.does(
        "cell",
        "update",
        "east",
        "--name",
        "orient",
        "--database-connection",
        cloud.database("orient"),
        "--transport-url",
        "inproc://orient",
    )
    cloud.does("cell", "update", "cell0", "--database-connection", cloud.database("grave"))

    by_name = {cell["name"]: cell for cell in cloud.gets("cell", "list")}

    assert by_name["orient"]["database_connection"] == cloud.database("orient")
    assert by_name["orient"]["transport_url"] == "inproc://orient"
    assert by_name["cell0"]["database_connection"] == cloud.database("grave")
    assert "east" not in by_name


def test_update_to_what_it_has_already_is_fine(cloud: Terminal) -> None:
    cloud.does(
        "cell",
        "update",
        "east",
        "--name",
        "east",
        "--database-connection",
        cloud.database("east"),
        "--transport-url",
        "inproc://east",
    )


@pytest.mark.parametrize(
    ("cell", "words", "code", "named"),
    [
        ("east", [], 2, "--name"),
        ("east", ["--database-connection", "nonsense"], 2, "--database-connection"),
        ("east", ["--transport-url", "nonsense"], 2, "--transport-url"),
        ("east", ["--name", ""], 2, "--name"),
        ("east", ["--name", "west"], 3, "west"),
        ("east", ["--name", "cell0"], 3, "--name"),
        ("east", ["--transport-url", "inproc://west"], 3, "--transport-url"),
        ("cell0", ["--name", "grave"], 1, "--name"),
        ("cell0", ["--transport-url", "inproc://grave"], 1, "--transport-url"),
        ("north", ["--name", "south"], 4, "north"),
    ],
)
def test_updates_that_are_refused(cloud: Terminal, cell: str, words: list[str], code: int, named: str) -> None:
    before = cloud.gets("cell", "list")

    ended = cloud.runs("cell", "update", cell, *words)

    assert ended.code == code
    assert named in ended.err
    assert cloud.gets("cell", "list") == before


def test_update_to_the_database_of_another_cell_is_refused(cloud: Terminal) -> None:
    ended = cloud.runs("cell", "update", "east", "--database-connection", cloud.database("west"))

    assert ended.code == 3
    assert "already used by cell west" in ended.err


def test_disable_and_enable_can_be_repeated(cloud: Terminal) -> None:
    for command, disabled in (("disable", True), ("disable", True), ("enable", False), ("enable", False)):
        cloud.does("cell", command, "east")
        assert cloud.gets("cell", "show", "east")["disabled"] is disabled
    assert cloud.runs("cell", "disable", "north").code == 4


def test_cell0_cannot_be_disabled(cloud: Terminal) -> None:
    ended = cloud.runs("cell", "disable", "cell0")

    assert ended.code == 1
    assert "cell0 cannot be disabled" in ended.err


# ---- delete ----------------------------------------------------------------------------------------------------------


def test_an_empty_cell_is_deleted_once(cloud: Terminal) -> None:
    assert "is unmapped" in cloud.does("cell", "delete", "east").out
    assert names(cloud) == ["cell0", "west"]

    again = cloud.runs("cell", "delete", "east")

    assert again.code == 4
    assert names(cloud) == ["cell0", "west"]


def test_a_dry_run_changes_nothing(cloud: Terminal) -> None:
    assert "would be unmapped" in cloud.does("cell", "delete", "east", "--dry-run").out
    assert names(cloud) == ["cell0", "east", "west"]


def test_cell0_cannot_be_deleted(cloud: Terminal) -> None:
    for words in ([], ["--force"], ["--dry-run"]):
        ended = cloud.runs("cell", "delete", "cell0", *words)
        assert (ended.code, "cell0 cannot be deleted" in ended.err) == (1, True)


def test_a_cell_with_servers_or_orders_is_never_deleted(cloud: Terminal) -> None:
    cloud.server("east")
    cloud.order("west")

    for words in ([], ["--force"], ["--dry-run"], ["--force", "--dry-run"]):
        east, west = cloud.runs("cell", "delete", "east", *words), cloud.runs("cell", "delete", "west", *words)
        assert (east.code, "1 servers" in east.err) == (1, True)
        assert (west.code, "1 orders" in west.err) == (1, True)
    assert names(cloud) == ["cell0", "east", "west"]


def test_a_cell_with_hosts_or_deleted_servers_is_deleted_by_force(cloud: Terminal) -> None:
    cloud.host("east-1", "east")
    cloud.does("host", "discover")
    cloud.mapping("east", deleted=True)

    refused = cloud.runs("cell", "delete", "east")
    would = cloud.does("cell", "delete", "east", "--force", "--dry-run")
    cloud.does("cell", "delete", "east", "--force")

    assert refused.code == 1
    assert (
        "1 hosts are mapped" in refused.err
        and "mappings of 1 deleted servers" in refused.err
        and "--force" in refused.err
    )
    assert "would be unmapped with 1 hosts and the mappings of 1 deleted servers" in would.out
    assert names(cloud) == ["cell0", "west"]
    assert cloud.gets("host", "list") == []


def test_a_cell_that_is_away_is_deleted_all_the_same(cloud: Terminal) -> None:
    cloud.gone("east")

    cloud.does("cell", "delete", "east")

    assert names(cloud) == ["cell0", "west"]


def test_nor_is_one_with_servers_that_can_be_restored(cloud: Terminal) -> None:
    cloud.soft_deleted("east")

    for words in ([], ["--force"]):
        ended = cloud.runs("cell", "delete", "east", *words)
        assert (ended.code, "1 servers" in ended.err) == (1, True)
    assert cloud.gets("cell", "show", "east")["deleted_servers"] == 0

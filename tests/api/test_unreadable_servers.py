"""A row that cannot be read is one server that is shown as its mapping knows it: it spoils no list, and no request
fails for it."""

import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

import cell_db.tables
import tests.api.small_cloud
from api.resources.servers import listing
from database.types import Json
from tests.api.http.harness import ADMIN, ALICE
from tests.api.small_cloud import SmallCloud, small_cloud

pytestmark = pytest.mark.slow

MISSING = "X-Cellplane-Missing-Cells"
VERSIONS = ("2.1", "2.68", "2.69", "2.96")
DOCUMENTS = ("[1", "null", '{"a": 1}', "[" * 2000)
TEXTS = ("garbage", "5", "1e400", b"\xff")
# What the rest of the protocol is held together by; a row without them is another row.
KEPT = {"id", "uuid", "deleted", "attempt"}
COLUMNS = [column.name for column in cell_db.tables.instances.columns if column.name not in KEPT]
PATHS = ("", "/metadata", "/metadata/a", "/tags", "/ips", "/os-instance-actions", "/diagnostics", "/os-server-password")
QUERIES = (
    "",
    "?sort_key=created_at&sort_dir=asc",
    "?limit=1&sort_key=locked",
    "?name=e",
    "?all_tenants=1&sort_key=launched_at",
    "?sort_key=instance_type_id",
)


@pytest.fixture
def cloud(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallCloud]:
    monkeypatch.setattr(tests.api.small_cloud, "RESOURCES", (*tests.api.small_cloud.RESOURCES, listing))
    with small_cloud(tmp_path, "[cells]\ndeadline_s = 20\n") as small:
        yield small


def corrupt(cloud: SmallCloud, uuid: str, column: str, value: str | bytes) -> None:
    """As it is in a cell that went wrong: nothing converts the value."""
    with cloud.databases["east"].transaction() as connection:
        connection.exec_driver_sql(f"UPDATE instances SET {column} = ? WHERE uuid = ?", (value, uuid))


def ids(reply: Any) -> list[str]:
    assert reply.status == 200, reply.body
    return [server["id"] for server in reply.json["servers"]]


@pytest.mark.parametrize(
    ("column", "value"),
    [("metadata", "[1"), ("flavor", "null"), ("tags", '{"a": 1}'), ("state", "nonsense"), ("fault", "[1]")],
)
def test_one_row_is_shown_as_its_mapping_knows_it_and_the_others_are_whole(
    cloud: SmallCloud, column: str, value: str
) -> None:
    first, bad, last = (cloud.running(name=name) for name in ("first", "bad", "last"))
    corrupt(cloud, bad, column, value)

    for query, user in (
        ("", ALICE),
        ("?all_tenants=1", ADMIN),
        ("?sort_key=uuid", ALICE),
        ("?sort_key=display_name", ALICE),
    ):
        reply = cloud.ask.get(f"/v2.1/servers/detail{query}", version="2.96", user=user)
        shown = {server["id"]: server["status"] for server in reply.json["servers"]}
        assert shown == {first: "ACTIVE", bad: "UNKNOWN", last: "ACTIVE"}
        assert reply.headers[MISSING] == "east"
    assert ids(cloud.ask.get("/v2.1/servers/detail", version="2.96", user=ALICE)) == [last, bad, first]
    assert ids(cloud.ask.get("/v2.1/servers/detail", version="2.68", user=ALICE)) == [last, first]
    assert ids(cloud.ask.get("/v2.1/servers", version="2.96", user=ALICE)) == [last, bad, first]


def test_who_asks_for_it_alone_is_told_what_is_known_or_that_it_cannot_be_read(cloud: SmallCloud) -> None:
    uuid = cloud.running(name="bad")
    corrupt(cloud, uuid, "metadata", "[1")

    assert cloud.show(uuid, version="2.96")["status"] == "UNKNOWN"
    assert cloud.ask.get(f"/v2.1/servers/{uuid}", version="2.68", user=ALICE).status == 409
    assert cloud.act(uuid, "os-stop").status == 409
    assert cloud.ask.get(f"/v2.1/servers/{uuid}/metadata", version="2.96", user=ALICE).status == 409
    assert cloud.ask.put(f"/v2.1/servers/{uuid}/tags", {"tags": ["a"]}, version="2.96", user=ALICE).status == 409
    metrics = cloud.cloud.metrics.get_sample_value("cellplane_unreadable_servers_total", {"cell": "east"})
    assert metrics is not None and metrics >= 5


def test_it_can_be_deleted(cloud: SmallCloud) -> None:
    uuid = cloud.running(name="bad")
    corrupt(cloud, uuid, "flavor", "null")

    assert cloud.ask.ask("DELETE", f"/v2.1/servers/{uuid}", None, version="2.96", user=ALICE).status == 204
    assert ids(cloud.ask.get("/v2.1/servers/detail", version="2.96", user=ALICE)) == []


def test_what_it_was_built_from_is_read_only_by_who_needs_it(cloud: SmallCloud) -> None:
    uuid = cloud.running(name="bad")
    corrupt(cloud, uuid, "spec", "[1")

    assert cloud.show(uuid)["status"] == "ACTIVE"
    assert cloud.act(uuid, "createImage", {"name": "copy"}).status == 409


@pytest.mark.parametrize("column", COLUMNS)
def test_whatever_a_column_holds_no_route_fails(cloud: SmallCloud, column: str) -> None:
    bad, other = cloud.running(name="bad"), cloud.running(name="other")
    is_document = isinstance(cell_db.tables.instances.c[column].type, Json)

    for value in DOCUMENTS if is_document else TEXTS:
        try:
            corrupt(cloud, bad, column, value)
        except sa.exc.IntegrityError:
            continue
        for number, path in enumerate(PATHS):
            reply = cloud.ask.get(f"/v2.1/servers/{bad}{path}", version=VERSIONS[number % len(VERSIONS)], user=ALICE)
            assert reply.status < 500, (value, path, reply.body)
        for number, query in enumerate(QUERIES):
            for kind in ("", "/detail"):
                version, user = VERSIONS[number % len(VERSIONS)], ADMIN if "all_tenants" in query else ALICE
                reply = cloud.ask.get(f"/v2.1/servers{kind}{query}", version=version, user=user)
                assert reply.status < 500, (value, query, kind, reply.body)
        if not {column} & {"project_id", "created_at", "state"}:
            assert other in ids(cloud.ask.get("/v2.1/servers/detail", version="2.96", user=ALICE)), value

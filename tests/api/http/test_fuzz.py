"""No input yields a 500: every route at drawn microversions, with bodies and queries drawn from its own schema's
names."""

import pathlib
import random
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

import api.main
import api.resources.table
import api_db.cells
import cell_db.tables
from api.http.routes import ActionRoute, Route
from api.http.schema import Body
from api.http.versions import MAX, MIN, Microversion
from api_db.tables import metadata
from database.engine import Database
from tests.api.http.harness import ADMIN, ALICE, Asker, serving_everything, settings

pytestmark = pytest.mark.slow

ROWS = [row for resource in api.resources.table.RESOURCES for row in resource.ROUTES]
TRIES_PER_ROW = 40

VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2**31, 2**63, 2**70, 1.5, 1e308, "", " ", "a", "1", "-1", "0", "true", "none", "auto",
    "x" * 300, "é", "\0", "\ud7ff", "😀", "%", "_", "'", '"', "../..", "a\nb", "2024-01-01T00:00:00Z", "99999-13-45",
    "00000000-0000-0000-0000-000000000000", "6f70656e-7374-6163-6b20-342065766572", "active", "error", "HARD", "a,b",
    "192.0.2.1", "2001:db8::1", "dGV4dA==", [], {}, [None], [[]], [{}], {"a": "b"},
]  # fmt: skip
SEGMENTS = [
    "1",
    "a",
    "%00",
    "%FF",
    "%2F",
    "-1",
    "99999999999999999999",
    "x" * 300,
    "00000000-0000-0000-0000-000000000000",
    "%F0%9F%98%80",
    "detail",
]
PARAMETERS = [
    "",
    "a",
    "-1",
    "0",
    "1",
    "99999999999999999999",
    "%00",
    "%FF",
    "true",
    "None",
    "%F0%9F%98%80",
    "2024-01-01",
    "(",
    "[a",
    "desc",
    "name",
    "ACTIVE",
]


@pytest.fixture(scope="module")
def asker() -> Iterator[Asker]:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        conf = settings(path)
        api_database = Database(conf.api_database.connection)
        metadata.create_all(api_database.engine)
        for name, uuid in (("cell0", api_db.cells.CELL0_UUID), ("west", None)):
            url = f"sqlite:///{path}/{name}.sqlite"
            cell = Database(url)
            cell_db.tables.metadata.create_all(cell.engine)
            cell.close()
            with api_database.transaction() as connection:
                api_db.cells.create(connection, name=name, database_connection=url, transport_url="none://", uuid=uuid)
        api_database.close()
        with serving_everything(conf) as asker:
            plant(asker)
            yield asker


def plant(asker: Asker) -> None:
    """Something of each kind that drawn paths can meet."""
    asker.post("/v2.1/flavors", {"flavor": {"name": "a", "id": "1", "ram": 1, "vcpus": 1, "disk": 0}})
    asker.post("/v2.1/flavors/1/os-extra_specs", {"extra_specs": {"a": "b"}})
    asker.post("/v2.1/os-aggregates", {"aggregate": {"name": "a", "availability_zone": "zone"}})
    for user in (ADMIN, ALICE):
        asker.post("/v2.1/os-keypairs", {"keypair": {"name": "a"}}, user=user)


def named(row: Route | ActionRoute) -> str:
    what = row.action if isinstance(row, ActionRoute) else row.method
    return f"{what} {row.path} {row.since}-{row.until or ''}"


def drawn_value(schema: Any, chance: random.Random, depth: int = 0) -> Any:
    """A value that often fits the schema and often does not."""
    if chance.random() < 0.2 or not isinstance(schema, dict) or depth > 5:
        return chance.choice(VALUES)
    if "anyOf" in schema:
        return drawn_value(chance.choice(schema["anyOf"]), chance, depth + 1)
    if "enum" in schema:
        return chance.choice(schema["enum"])
    kind = schema.get("type")
    if kind == "object":
        names = [
            name for name in schema.get("properties", {}) if name in schema.get("required", ()) or chance.random() < 0.4
        ]
        drawn = {name: drawn_value(schema["properties"][name], chance, depth + 1) for name in names}
        for inner in schema.get("patternProperties", {}).values():
            drawn[chance.choice(["a", "hw:cpu_policy", "é", ""])] = drawn_value(inner, chance, depth + 1)
        if chance.random() < 0.05:
            drawn["unknown"] = 1
        return drawn
    if kind == "array":
        return [drawn_value(schema.get("items", {}), chance, depth + 1) for _ in range(chance.randrange(3))]
    if kind == "integer" or (isinstance(kind, list) and "integer" in kind):
        return chance.choice([0, 1, 2, "1", "64", 2**31 - 1, 2**31])
    if schema.get("format") == "uuid":
        return "6f70656e-7374-6163-6b20-342065766572"
    return chance.choice([value for value in VALUES if isinstance(value, str)])


def drawn_body(row: Route | ActionRoute, version: Microversion, chance: random.Random) -> Any:
    body: Body | None = row.body
    if body is None:
        return {row.action: chance.choice(VALUES)} if isinstance(row, ActionRoute) else chance.choice([{}, {"a": 1}])
    return drawn_value(body.type.at(version).schema, chance)


def drawn_path(row: Route | ActionRoute, chance: random.Random) -> str:
    segments = [chance.choice(SEGMENTS) if part.startswith("{") else part for part in row.path.split("/")]
    path = (row.under if isinstance(row, Route) else "/v2.1") + "/".join(segments)
    if isinstance(row, ActionRoute) or chance.random() < 0.3:
        return path
    names = [param.name for param in row.query.params] or ["a"]
    query = "&".join(f"{chance.choice(names)}={chance.choice(PARAMETERS)}" for _ in range(chance.randrange(1, 4)))
    return f"{path}?{query}"


@pytest.mark.parametrize("row", ROWS, ids=named)
def test_no_input_yields_a_500(asker: Asker, row: Route | ActionRoute) -> None:
    chance = random.Random(named(row))
    first = max(Microversion.parse(row.since), MIN).minor
    last = (MAX if row.until is None else min(Microversion.parse(row.until), MAX)).minor
    method = "POST" if isinstance(row, ActionRoute) else row.method
    for _ in range(TRIES_PER_ROW):
        version = Microversion(2, chance.randint(first, last))
        path, user = drawn_path(row, chance), chance.choice([ADMIN, ADMIN, ALICE])
        body = drawn_body(row, version, chance) if method in ("POST", "PUT") else None
        try:
            reply = asker.ask(method, path, body, version=str(version), user=user)
        except TypeError:  # a drawn integer that JSON, as orjson writes it, can't hold
            continue
        assert reply.status not in (500, 501) or row.status == 501, (method, path, version, body, reply.body)

"""What users say is kept as they said it, or refused: nothing is cut, and an address has one form."""

import ipaddress
from typing import Any

import pytest
import sqlalchemy as sa

import api_db.tables
import cell_db.tables
from api.http.schema import Body, Schema
from api.http.versions import MAX, Microversion
from api.resources import flavors
from api.resources.hosts import aggregates, services
from api.resources.keypairs import keypairs
from api.resources.servers import bodies, listing, server_groups
from tests.api.http.harness import ALICE
from tests.api.small_cloud import IMAGE, SmallCloud

LONG_FORMS = {
    "2001:0db8:0000:0000:0000:0000:0000:0001": "2001:db8::1",
    "2001:DB8::1": "2001:db8::1",
    "2001:db8:0:0:0:0:0:1": "2001:db8::1",
    # 41 characters, and the column has 39.
    "0000:0000:0000:0000:0000:ffff:192.168.1.1": str(ipaddress.ip_address("::ffff:192.168.1.1")),
}
# Of any length: a zone is no part of an address.
NO_ADDRESSES = ("fe80:0000:0000:0000:0000:0000:0000:0001%a", "fe80::1%eth0", "fe80::1%" + "x" * 300)


@pytest.mark.parametrize("given", LONG_FORMS)
def test_an_address_is_kept_in_one_form_however_it_is_given(cloud: SmallCloud, given: str) -> None:
    created = cloud.running(accessIPv6=given)
    updated, ordered, rebuilt = cloud.running(), cloud.created(), cloud.running()
    for uuid in (updated, ordered):
        assert (
            cloud.ask.put(f"/v2.1/servers/{uuid}", {"server": {"accessIPv6": given}}, user=ALICE, version="2.90").status
            == 200
        )
    assert cloud.act(rebuilt, "rebuild", {"imageRef": IMAGE, "accessIPv6": given}).status == 202

    assert {cloud.show(uuid)["accessIPv6"] for uuid in (created, updated, ordered, rebuilt)} == {LONG_FORMS[given]}
    [by_address] = [each for each in listing.FILTERS if each.name == "access_ip_v6"]
    assert by_address.convert(given) == LONG_FORMS[given]


@pytest.mark.parametrize("given", NO_ADDRESSES, ids=len)
def test_what_is_no_address_is_refused_everywhere(cloud: SmallCloud, given: str) -> None:
    uuid = cloud.running()

    assert cloud.create(accessIPv6=given).status == 400
    assert (
        cloud.ask.put(f"/v2.1/servers/{uuid}", {"server": {"accessIPv6": given}}, user=ALICE, version="2.90").status
        == 400
    )
    assert cloud.act(uuid, "rebuild", {"imageRef": IMAGE, "accessIPv6": given}).status == 400


def test_a_name_has_room_for_its_number(cloud: SmallCloud) -> None:
    assert cloud.create(name="x" * 255).status == 202
    refused = cloud.create(name="x" * 254, min_count=2)
    assert (refused.status, "name" in refused.fault) == (400, True)
    assert cloud.create(name="x" * 253, min_count=2).status == 202


# ---- every field has room in its column ------------------------------------------------------------------------------

INSTANCES, FLAVORS = cell_db.tables.instances.c, api_db.tables.flavors.c
# Not imageRef and flavorRef: those are looked up, and what is found is kept.
SERVER = {
    "name": INSTANCES.display_name,
    "description": INSTANCES.display_description,
    "hostname": INSTANCES.hostname,
    "key_name": INSTANCES.key_name,
    "availability_zone": INSTANCES.availability_zone,
    "accessIPv4": INSTANCES.access_ip_v4,
    "accessIPv6": INSTANCES.access_ip_v6,
    "user_data": INSTANCES.user_data,
    "tags": cell_db.tables.instance_tags.c.tag,
    "metadata": cell_db.tables.instance_metadata.c.value,
}
KEPT: list[tuple[str, Body, dict[str, sa.Column[Any]]]] = [
    ("create", bodies.CREATE, SERVER),
    ("rebuild", bodies.REBUILD, SERVER),
    ("update", bodies.UPDATE, SERVER),
    (
        "flavor",
        flavors.CREATE,
        {
            "name": FLAVORS.name, "id": FLAVORS.flavor_id, "ram": FLAVORS.memory_mib, "vcpus": FLAVORS.vcpus,
            "disk": FLAVORS.root_gib, "OS-FLV-EXT-DATA:ephemeral": FLAVORS.ephemeral_gib, "swap": FLAVORS.swap_mib,
            "description": FLAVORS.description,
        },
    ),
    (
        "aggregate",
        aggregates.CREATE_BODY,
        {"name": api_db.tables.aggregates.c.name, "availability_zone": api_db.tables.aggregate_metadata.c.value},
    ),
    ("key pair", keypairs.CREATE_BODY,
        {"name": api_db.tables.key_pairs.c.name, "public_key": api_db.tables.key_pairs.c.public_key,
                                        "user_id": api_db.tables.key_pairs.c.user_id}),
    ("server group", server_groups.CREATE_BODY, {"name": api_db.tables.server_groups.c.name}),
    ("service", services.UPDATE_BODY, {"disabled_reason": cell_db.tables.services.c.disabled_reason}),
]  # fmt: skip
# The longest text of each form that has one spelling inside.
FORMS = {"uuid": 36, "ipv4": 15, "ipv6": 39}


@pytest.mark.parametrize("version", ["2.1", "2.36", "2.56", "2.90", str(MAX)])
@pytest.mark.parametrize(("name", "body", "columns"), KEPT, ids=[name for name, _, _ in KEPT])
def test_every_field_has_room_in_its_column(
    name: str, body: Body, columns: dict[str, sa.Column[Any]], version: str
) -> None:
    """Texts and numbers as large as requests may hold them; SQLite does not look, and MariaDB's refusal comes late."""
    schema = body.type.at(Microversion.parse(version)).schema
    fields = schema["properties"][body.name]["properties"] if body.name else schema["properties"]

    for field, column in columns.items():
        if field in fields:
            assert fits(fields[field], column), (field, fields[field], column)


def fits(schema: Schema, column: sa.Column[Any]) -> bool:
    if isinstance(column.type, sa.Integer):
        return int(schema["maximum"]) <= 2**31 - 1
    length = getattr(column.type, "length", None)
    return length is None or longest(schema) <= length


def longest(schema: Schema) -> int:
    """Characters of the longest text that the schema lets through."""
    if "anyOf" in schema:
        return max(longest(each) for each in schema["anyOf"])
    if "items" in schema:
        return longest(schema["items"])
    if "patternProperties" in schema:
        return max(longest(each) for each in schema["patternProperties"].values())
    kinds = {schema["type"]} if isinstance(schema.get("type"), str) else set(schema.get("type", ()))
    if kinds & {"integer", "number"}:
        return 20
    if not kinds & {"string"}:
        return 0
    return FORMS[schema["format"]] if schema.get("format") in FORMS else int(schema["maxLength"])

"""GET /servers and /servers/detail: who may ask for what, and what the answer holds."""

import dataclasses
import pathlib
import uuid as uuids
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

import api_db.journal
import api_db.listing
import cell_db.tables
import tests.api.small_cloud
from api.resources.servers import listing
from tests.api.http.harness import ADMIN, ALICE, Reply
from tests.api.small_cloud import CARL, SmallCloud, small_cloud

pytestmark = pytest.mark.slow

MISSING = "X-Cellplane-Missing-Cells"


@pytest.fixture
def cloud(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallCloud]:
    monkeypatch.setattr(tests.api.small_cloud, "RESOURCES", (*tests.api.small_cloud.RESOURCES, listing))
    with small_cloud(tmp_path) as small:
        yield small


@pytest.fixture
def failing_cloud(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallCloud]:
    monkeypatch.setattr(tests.api.small_cloud, "RESOURCES", (*tests.api.small_cloud.RESOURCES, listing))
    with small_cloud(tmp_path, "[api]\nlist_records_by_skipping_down_cells = false\n") as small:
        yield small


@pytest.fixture
def patient_cloud(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SmallCloud]:
    """A cell is not taken for silent because the machine is busy."""
    monkeypatch.setattr(tests.api.small_cloud, "RESOURCES", (*tests.api.small_cloud.RESOURCES, listing))
    with small_cloud(tmp_path) as small:
        yield small


def ask(cloud: SmallCloud, query: str = "", *, detail: bool = False, version: str = "2.96", user: Any = ALICE) -> Reply:
    path = "/v2.1/servers/detail" if detail else "/v2.1/servers"
    return cloud.ask.get(f"{path}?{query}" if query else path, version=version, user=user)


def names(cloud: SmallCloud, query: str = "", **more: Any) -> list[str]:
    reply = ask(cloud, query, **more)
    assert reply.status == 200, reply.body
    return [server.get("name", "?" + server["id"]) for server in reply.json["servers"]]


def change(cloud: SmallCloud, cell: str, uuid: str, **values: Any) -> None:
    with cloud.databases[cell].transaction() as connection:
        rows = cell_db.tables.instances
        connection.execute(rows.update().where(rows.c.uuid == uuid).values(**values))


# ---- what a list is --------------------------------------------------------------------------------------------------


def test_building_buried_and_running_servers_stand_in_one_list_newest_first(cloud: SmallCloud) -> None:
    cloud.running("west", "west-1", name="first")
    cloud.bury(cloud.created(name="second"))
    cloud.running("east", "east-1", name="third")
    cloud.created(name="fourth")

    assert names(cloud) == ["fourth", "third", "second", "first"]
    assert names(cloud, "sort_key=display_name&sort_dir=asc") == ["first", "fourth", "second", "third"]
    statuses = [server["status"] for server in ask(cloud, detail=True).json["servers"]]
    assert statuses == ["BUILD", "ACTIVE", "ERROR", "ACTIVE"]


def test_a_brief_list_holds_ids_names_and_links(cloud: SmallCloud) -> None:
    uuid = cloud.running(name="web")

    (server,) = ask(cloud).json["servers"]

    assert server.keys() == {"id", "name", "links"}
    assert server["id"] == uuid
    assert server["links"][0]["href"].endswith(f"/v2.1/servers/{uuid}")


def test_the_detailed_list_shows_what_a_show_shows(cloud: SmallCloud) -> None:
    uuid = cloud.running(name="web")

    (server,) = ask(cloud, detail=True, user=ALICE, version="2.70").json["servers"]

    assert server == cloud.show(uuid, version="2.70")


def test_admins_see_the_state_of_hosts_in_the_detailed_list(cloud: SmallCloud) -> None:
    cloud.running(name="web")
    cloud.created(name="building")

    assert [
        server["host_status"] for server in ask(cloud, "all_tenants=1", detail=True, user=ADMIN).json["servers"]
    ] == ["", "UNKNOWN"]
    assert "host_status" not in ask(cloud, "all_tenants=1", detail=True, user=ADMIN, version="2.15").json["servers"][0]


def test_everybody_sees_their_own_project(cloud: SmallCloud) -> None:
    cloud.created(name="alices")
    cloud.created(name="carls", user=CARL)

    assert names(cloud) == ["alices"]
    assert names(cloud, user=CARL) == ["carls"]
    assert names(cloud, user=ADMIN) == []
    assert names(cloud, "all_tenants=True", user=ADMIN) == ["carls", "alices"]
    assert names(cloud, "all_tenants", user=ADMIN) == ["carls", "alices"]
    assert names(cloud, f"all_tenants=1&project_id={CARL.project_id}", user=ADMIN) == ["carls"]
    assert names(cloud, f"all_tenants=1&tenant_id={CARL.project_id}", user=ADMIN) == ["carls"]
    # Without all_tenants it is a filter like any other, and like others it is none for members.
    assert names(cloud, f"project_id={CARL.project_id}", user=ADMIN) == []
    assert names(cloud, f"project_id={CARL.project_id}") == ["alices"]


def test_the_servers_of_all_projects_are_for_admins(cloud: SmallCloud) -> None:
    assert ask(cloud, "all_tenants=1").status == 403
    assert ask(cloud, "all_tenants=0").status == 200
    assert ask(cloud, "all_tenants=perhaps", user=ADMIN).status == 400


# ---- pages -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["", "&sort_key=display_name&sort_dir=asc", "&sort_key=power_state"])
def test_pages_link_to_the_next_and_neither_skip_nor_repeat(cloud: SmallCloud, order: str) -> None:
    made = [
        cloud.running("east", "east-1", name="e1"),
        cloud.running("west", "west-1", name="w1"),
        cloud.created(name="j1"),
    ]
    made += [cloud.running("west", "west-1", name="w2"), cloud.created(name="j2")]

    path, seen = f"/v2.1/servers/detail?limit=2{order}", list[str]()
    while path:
        reply = cloud.ask.get(path, version="2.96", user=ALICE)
        assert reply.status == 200, reply.body
        seen += [server["id"] for server in reply.json["servers"]]
        links = reply.json.get("servers_links", [])
        path = "/v2.1" + links[0]["href"].split("/v2.1")[1] if links else ""

    assert sorted(seen) == sorted(made)
    assert len(seen) == len(set(seen))


def test_limits(cloud: SmallCloud) -> None:
    for name in ("a", "b"):
        cloud.created(name=name)

    assert names(cloud, "limit=0") == []
    assert names(cloud, "limit=1") == ["b"]
    assert "servers_links" not in ask(cloud, "limit=3").json
    assert ask(cloud, "limit=-1").status == 400
    assert ask(cloud, "limit=one").status == 400


def test_a_marker_must_be_a_server_that_the_caller_may_see(cloud: SmallCloud) -> None:
    of_carl = cloud.created(name="carls", user=CARL)

    for marker in (of_carl, "nobody", "0ed0b7b0-9c25-4a0b-a2a2-0f0f0f0f0f0f"):
        assert ask(cloud, f"marker={marker}").fault == f"badRequest: marker [{marker}] not found"
        assert ask(cloud, f"marker={marker}&sort_key=display_name").status == 400


def test_a_marker_of_another_project_is_asked_no_more_about_than_one_of_none(cloud: SmallCloud) -> None:
    """How long a refusal takes told one from the other."""
    cloud.running(name="own")
    markers = (cloud.running(name="carls", user=CARL), str(uuids.uuid4()))
    asked: list[list[str]] = []
    engine = cloud.cloud.api_db._database.engine

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        asked[-1].append(statement)

    sa.event.listen(engine, "before_cursor_execute", note)
    for marker in markers:
        asked.append([])
        assert ask(cloud, f"marker={marker}").status == 400
    sa.event.remove(engine, "before_cursor_execute", note)

    assert asked[0] and asked[0] == asked[1]


def test_a_deleted_marker_still_marks_its_place(cloud: SmallCloud) -> None:
    for name in ("c", "b", "a"):
        uuid = cloud.running(name=name)
        if name == "b":
            middle = uuid
    assert cloud.ask.delete(f"/v2.1/servers/{middle}", user=ALICE).status == 204

    assert names(cloud, f"marker={middle}") == ["c"]
    assert names(cloud, f"marker={middle}&sort_key=display_name&sort_dir=asc") == ["c"]


@pytest.mark.parametrize("name", sorted(listing.SORT_KEYS))
def test_a_marker_deleted_before_any_cell_had_it_marks_its_place_or_is_refused(cloud: SmallCloud, name: str) -> None:
    """Nothing but its mapping is left: it has a place in the orders that mappings know; in others nobody can tell, so
    it is not found."""
    older, marker = cloud.running(name="older"), cloud.created(name="gone")
    assert cloud.ask.delete(f"/v2.1/servers/{marker}", user=ALICE).status == 204
    with cloud.api.transaction() as connection:
        (entry,) = api_db.journal.lease(connection, seconds=60, most=1, uuids_wanted=[marker])
        assert entry.token is not None
        assert api_db.journal.finish(connection, uuid=marker, token=entry.token)

    reply = ask(
        cloud, f"sort_key={name}&sort_dir=desc&marker={marker}", user=ALICE if name not in ("host", "node") else ADMIN
    )

    key = listing.SORT_KEYS[name]
    if name in ("host", "node"):
        assert reply.status == 400
    elif key is None or key in api_db.listing.SORT_KEYS:
        is_by_time = key in (None, "created_at")
        assert [server["id"] for server in reply.json["servers"]] == ([older] if is_by_time or older < marker else [])
    else:
        assert reply.fault == f"badRequest: marker [{marker}] not found"


# ---- filters ---------------------------------------------------------------------------------------------------------


def test_names_are_filtered_by_regular_expression_wherever_the_server_is(cloud: SmallCloud) -> None:
    cloud.running(name="web-1")
    cloud.created(name="web-22")
    cloud.bury(cloud.created(name="db"))

    assert names(cloud, "name=web") == ["web-22", "web-1"]
    assert names(cloud, "name=^web-[0-9]$") == ["web-1"]
    assert names(cloud, "name=web|db") == ["db", "web-22", "web-1"]
    assert names(cloud, "name=WEB") == []


def test_an_invalid_regular_expression_is_refused(cloud: SmallCloud) -> None:
    assert "name" in ask(cloud, "name=(").fault
    assert "ip" in ask(cloud, "ip=[").fault


def test_a_catastrophic_regular_expression_is_cut_off(patient_cloud: SmallCloud) -> None:
    patient_cloud.running(name="a" * 60 + "!")

    assert "takes too long" in ask(patient_cloud, "name=(a|a)%2B%24").fault
    assert names(patient_cloud, "name=a") == ["a" * 60 + "!"]


def test_a_catastrophic_regular_expression_is_cut_off_in_the_journal(cloud: SmallCloud) -> None:
    cloud.created(name="a" * 60 + "!")

    assert "takes too long" in ask(cloud, "name=(a|a)%2B%24").fault


def test_status(cloud: SmallCloud) -> None:
    stopped = cloud.running(name="stopped")
    change(cloud, "east", stopped, vm_state="stopped")
    cloud.running(name="active")
    cloud.created(name="building")

    assert names(cloud, "status=SHUTOFF") == ["stopped"]
    assert names(cloud, "status=active&status=build") == ["building", "active"]
    assert names(cloud, "status=nonsense", version="2.37") == []
    assert ask(cloud, "status=nonsense", version="2.38").status == 400
    assert ask(cloud, "status=deleted").status == 403


def test_deleted_servers_are_for_admins(cloud: SmallCloud) -> None:
    uuid = cloud.running(name="gone")
    cloud.running(name="here")
    cloud.ask.delete(f"/v2.1/servers/{uuid}", user=ALICE)

    assert names(cloud) == ["here"]
    assert names(cloud, "deleted=True") == ["here"]
    assert names(cloud, "all_tenants=1&deleted=False", user=ADMIN) == ["here"]
    assert names(cloud, "all_tenants=1&deleted=True", user=ADMIN) == ["gone"]


def test_where_a_delete_is_final_nothing_is_soft_deleted(cloud: SmallCloud) -> None:
    uuid = cloud.running(name="gone")
    cloud.running(name="here")
    cloud.ask.delete(f"/v2.1/servers/{uuid}", user=ALICE)

    for value in ("True", "False"):
        assert names(cloud, f"soft_deleted={value}") == ["here"]
        assert names(cloud, f"all_tenants=1&soft_deleted={value}", user=ADMIN) == ["here"]
        assert names(cloud, f"all_tenants=1&deleted=True&soft_deleted={value}", user=ADMIN) == ["gone"]


SOFT_LISTS = [
    (ALICE, "", ["here"]),
    (ALICE, "sort_key=display_name", ["here"]),
    (ALICE, "status=SOFT_DELETED", ["soft"]),
    (ALICE, "status=SOFT_DELETED&status=ACTIVE", ["here", "soft"]),
    (ALICE, "vm_state=soft-delete", ["soft"]),
    (ALICE, "changes-since=2020-01-01T00:00:00Z", ["gone", "here", "soft"]),
    (ALICE, "deleted=True&soft_deleted=True", ["here"]),
    (ADMIN, "all_tenants=1", ["here"]),
    (ADMIN, "all_tenants=1&soft_deleted=True", ["here", "soft"]),
    (ADMIN, "all_tenants=1&soft_deleted=False", ["here"]),
    (ADMIN, "all_tenants=1&deleted=True", ["gone", "soft"]),
    (ADMIN, "all_tenants=1&deleted=True&soft_deleted=True", ["gone", "soft"]),
    (ADMIN, "all_tenants=1&deleted=True&soft_deleted=False", ["gone"]),
    (ADMIN, "all_tenants=1&deleted=False&soft_deleted=True", ["here", "soft"]),
    (ADMIN, "all_tenants=1&status=SOFT_DELETED&host=east-1", ["soft"]),
]


@pytest.mark.parametrize("told", [True, False], ids=["its host has said so", "its host has not said so yet"])
def test_who_sees_soft_deleted_servers_and_how(cloud: SmallCloud, told: bool) -> None:
    gone, soft = cloud.running(name="gone"), cloud.running(name="soft")
    cloud.running(name="here")
    cloud.cloud.conf.set_override("reclaim_instance_interval", 3600)
    cloud.act(gone, "forceDelete")
    cloud.ask.delete(f"/v2.1/servers/{soft}", user=ALICE)
    if told:
        cloud.settle(soft)

    for user, query, expected in SOFT_LISTS:
        by_state = "SOFT_DELETED" in query or "vm_state" in query
        if told or not by_state:
            assert sorted(names(cloud, query, user=user)) == expected, query
            assert sorted(names(cloud, query, user=user, detail=True)) == expected, query


@pytest.mark.parametrize("told", [True, False], ids=["its host has said so", "its host has not said so yet"])
@pytest.mark.parametrize("order", ["", "sort_key=display_name"], ids=["by the mappings", "by merging"])
def test_a_restored_server_is_listed_at_once(cloud: SmallCloud, order: str, told: bool) -> None:
    soft = cloud.running(name="soft")
    cloud.running(name="here")
    cloud.cloud.conf.set_override("reclaim_instance_interval", 3600)
    cloud.ask.delete(f"/v2.1/servers/{soft}", user=ALICE)
    cloud.settle(soft)
    assert names(cloud, order) == ["here"]

    cloud.act(soft, "restore")
    if told:
        cloud.settle(soft)

    assert sorted(names(cloud, order)) == ["here", "soft"]
    assert names(cloud, "all_tenants=1&deleted=True", user=ADMIN) == []


@pytest.mark.parametrize("order", ["", "sort_key=display_name"], ids=["by the mappings", "by merging"])
def test_lists_follow_the_mapping_though_a_cell_has_not_heard(cloud: SmallCloud, order: str) -> None:
    """Its database is back, and nobody has told it yet."""
    soft, there = cloud.running(name="soft"), cloud.running(name="there")
    cloud.running(name="here", cell="west", host="west-1")
    cloud.cloud.conf.set_override("reclaim_instance_interval", 3600)
    cloud.ask.delete(f"/v2.1/servers/{there}", user=ALICE)
    cloud.settle(there)
    cloud.go_silent("east")
    assert cloud.ask.delete(f"/v2.1/servers/{soft}", user=ALICE).status == 204
    assert cloud.act(there, "restore").status == 202
    if not order:
        assert names(cloud, order) == ["here", f"?{there}"]
    cloud.cloud.cells.by_name("east")._bulkhead.breaker.succeeded()

    assert sorted(names(cloud, order)) == ["here", "there"]
    assert sorted(names(cloud, order, detail=True)) == ["here", "there"]
    assert names(cloud, "all_tenants=1&deleted=True", user=ADMIN) == []


def test_changes_include_deleted_servers(cloud: SmallCloud) -> None:
    uuid = cloud.running(name="gone")
    cloud.running(name="here")
    cloud.created(name="building")
    cloud.ask.delete(f"/v2.1/servers/{uuid}", user=ALICE)

    assert sorted(names(cloud, "changes-since=2020-01-01T00:00:00Z")) == ["building", "gone", "here"]
    assert names(cloud, "changes-since=2200-01-01T00:00:00Z") == []
    assert names(cloud, "changes-before=2020-01-01T00:00:00Z") == []
    assert ask(cloud, "changes-since=yesterday").status == 400
    assert ask(cloud, "changes-since=2026-01-02T00:00:00Z&changes-before=2026-01-01T00:00:00Z").status == 400


def test_tags_lock_flavor_image_and_key(cloud: SmallCloud) -> None:
    cloud.place(cloud.created(name="red", tags=["red", "blue"]))
    cloud.place(cloud.created(name="plain", key_name="laptop"))
    cloud.created(name="building", tags=["red"])

    assert names(cloud, "tags=red,blue") == ["red"]
    assert names(cloud, "tags-any=red,green") == ["building", "red"]
    assert names(cloud, "not-tags=red,blue") == ["building", "plain"]
    assert names(cloud, "not-tags-any=red,green") == ["plain"]
    assert names(cloud, "locked=true") == []
    assert names(cloud, "locked=false&name=red") == ["red"]
    assert ask(cloud, "locked=perhaps").status == 400
    assert names(cloud, "flavor=small&name=red") == ["red"]
    assert names(cloud, "flavor=none") == []
    assert names(cloud, "key_name=laptop") == ["plain"]


def test_without_networks_no_server_has_an_address(cloud: SmallCloud) -> None:
    cloud.created()

    assert names(cloud, "ip=10.0.0") == []
    assert names(cloud, "ip6=fe80") == []
    assert names(cloud, "ip6=fe80", version="2.4") == ["web"]


def test_filters_for_admins_are_ignored_for_others(cloud: SmallCloud) -> None:
    cloud.running("east", "east-1", name="east")
    cloud.running("west", "west-1", name="west")

    for query in ("host=east-1", "node=east-1", "availability_zone=east"):
        assert names(cloud, query, version="2.82") == ["west", "east"]
        assert names(cloud, query + "&all_tenants=1", user=ADMIN) == ["east"]
    assert names(cloud, "availability_zone=east", version="2.83") == ["east"]
    assert names(cloud, "power_state=1", version="2.83") == ["west", "east"]
    assert ask(cloud, "power_state=on", version="2.83").status == 400


def test_a_uuid_finds_its_server(cloud: SmallCloud) -> None:
    uuid = cloud.running(name="one")
    cloud.running(name="other")

    assert names(cloud, f"all_tenants=1&uuid={uuid}", user=ADMIN) == ["one"]


def test_unknown_parameters_are_ignored_and_later_refused(cloud: SmallCloud) -> None:
    assert ask(cloud, "nonsense=1&changes-before=never&tags=a", version="2.25").status == 200
    assert ask(cloud, "nonsense=1", version="2.74").status == 200
    assert ask(cloud, "nonsense=1", version="2.75").status == 400
    for name in ("metadata", "_secret", "block_device_mapping", "services", "info_cache"):
        assert ask(cloud, f"{name}=1", version="2.1").status == 400


# ---- orders ----------------------------------------------------------------------------------------------------------


def test_sort_keys(cloud: SmallCloud) -> None:
    assert ask(cloud, "sort_key=nonsense", version="2.1").status == 400
    assert ask(cloud, "sort_key=memory_mb", version="2.74").status == 200
    assert ask(cloud, "sort_key=memory_mb", version="2.75").status == 400
    assert ask(cloud, "sort_key=locked", version="2.72").status == 400
    assert ask(cloud, "sort_key=locked", version="2.73").status == 200
    assert ask(cloud, "sort_key=host").status == 403
    assert ask(cloud, "sort_key=host", user=ADMIN).status == 200
    assert ask(cloud, "sort_dir=sideways").status == 400
    assert ask(cloud, "sort_key=uuid&sort_dir=asc&sort_dir=asc").status == 400


@pytest.mark.parametrize("name", sorted(listing.SORT_KEYS))
def test_every_sort_key_sorts(cloud: SmallCloud, name: str) -> None:
    made = {cloud.running(name="a"), cloud.running("west", "west-1", name="b"), cloud.created(name="c")}

    for direction in ("asc", "desc"):
        reply = ask(
            cloud,
            f"sort_key={name}&sort_dir={direction}&limit=2",
            user=ALICE if name not in ("host", "node") else ADMIN,
        )
        assert reply.status == 200, reply.body
        seen = [server["id"] for server in reply.json["servers"]]
        if name not in ("host", "node"):
            rest = ask(cloud, f"sort_key={name}&sort_dir={direction}&marker={seen[-1]}")
            assert {*seen, *(server["id"] for server in rest.json["servers"])} == made


def test_a_direction_without_a_key_is_the_default_orders(cloud: SmallCloud) -> None:
    for name in ("a", "b"):
        cloud.created(name=name)

    assert names(cloud, "sort_dir=asc") == ["a", "b"]
    assert names(cloud, "sort_key=display_name") == ["b", "a"]


# ---- cells that are away ---------------------------------------------------------------------------------------------


def test_servers_of_a_silent_cell_keep_their_place_and_are_unknown(cloud: SmallCloud) -> None:
    first = cloud.running("west", "west-1", name="first")
    cloud.running("east", "east-1", name="second")
    third = cloud.running("west", "west-1", name="third")
    cloud.created(name="fourth")
    cloud.go_silent("west")

    reply = ask(cloud, detail=True)

    assert [server["status"] for server in reply.json["servers"]] == ["BUILD", "UNKNOWN", "ACTIVE", "UNKNOWN"]
    assert [server["id"] for server in reply.json["servers"] if server["status"] == "UNKNOWN"] == [third, first]
    assert reply.json["servers"][1].keys() == {"id", "status", "tenant_id", "created", "links"}
    assert reply.headers[MISSING] == "west"
    assert ask(cloud).json["servers"][1].keys() == {"id", "status", "links"}
    assert names(cloud, "limit=2&sort_dir=asc") == ["?" + first, "second"]
    assert names(cloud, f"limit=2&marker={third}") == ["second", "?" + first]


def test_what_the_mappings_cannot_tell_is_left_out_and_the_cell_is_named(cloud: SmallCloud) -> None:
    cloud.running("west", "west-1", name="first")
    cloud.running("east", "east-1", name="second")
    cloud.go_silent("west")

    for query in ("status=ACTIVE", "sort_key=display_name", "name=."):
        reply = ask(cloud, query)
        assert [server["name"] for server in reply.json["servers"]] == ["second"]
        assert reply.headers[MISSING] == "west"
    # Orders and filters that they can tell, though they have no index for them.
    assert [len(server) for server in ask(cloud, "sort_key=user_id&sort_dir=asc", detail=True).json["servers"]].count(
        5
    ) == 1
    assert names(cloud, "sort_key=uuid").count("second") == 1
    assert len(names(cloud, "sort_key=uuid")) == 2


def test_before_2_69_the_servers_of_a_silent_cell_are_skipped_and_pages_are_full(cloud: SmallCloud) -> None:
    cloud.running("east", "east-1", name="one")
    cloud.running("west", "west-1", name="hidden")
    cloud.running("east", "east-1", name="two")
    cloud.go_silent("west")

    reply = ask(cloud, "limit=2", version="2.68")

    assert [server["name"] for server in reply.json["servers"]] == ["two", "one"]
    assert reply.headers[MISSING] == "west"


def test_before_2_69_the_list_fails_at_once_if_so_configured(failing_cloud: SmallCloud) -> None:
    failing_cloud.running("west", "west-1", name="hidden")
    failing_cloud.go_silent("west")

    assert ask(failing_cloud, version="2.68").status == 503
    assert ask(failing_cloud, "sort_key=display_name", version="2.68").status == 503
    assert ask(failing_cloud, version="2.69").status == 200


def test_a_list_that_does_not_need_the_silent_cell_does_not_notice(cloud: SmallCloud) -> None:
    cloud.running("east", "east-1", name="one")
    cloud.go_silent("west")

    reply = ask(cloud)

    assert MISSING not in reply.headers
    assert MISSING not in ask(cloud, "sort_key=display_name").headers
    assert [server["name"] for server in reply.json["servers"]] == ["one"]


def test_a_marker_in_a_silent_cell_marks_its_place_if_its_mapping_can_tell(cloud: SmallCloud) -> None:
    cloud.running("east", "east-1", name="one")
    marker = cloud.running("west", "west-1", name="hidden")
    cloud.go_silent("west")

    assert names(cloud, f"marker={marker}") == ["one"]
    assert names(cloud, f"marker={marker}&status=ACTIVE") == ["one"]
    assert ask(cloud, f"marker={marker}&sort_key=display_name").status == 503


@pytest.mark.parametrize("query", ["", "name=s", "sort_key=display_name&limit=4"])
def test_a_page_that_would_be_too_large_ends_earlier_and_its_links_give_each_server_once(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    limits = dataclasses.replace(tests.api.small_cloud._LIMITS, max_page_bytes=5000)
    monkeypatch.setattr(tests.api.small_cloud, "RESOURCES", (*tests.api.small_cloud.RESOURCES, listing))
    monkeypatch.setattr(tests.api.small_cloud, "_LIMITS", limits)
    with small_cloud(tmp_path) as cloud:
        made = {cloud.running(name=f"s{number}", metadata={"k": "v" * 250}) for number in range(4)}
        made |= {cloud.created(name=f"s{number}") for number in range(4, 6)}
        made.add(cloud.running("west", "west-1", name="s6"))
        cloud.go_silent("west")
        ids: list[str] = []
        path = f"/v2.1/servers/detail?{query}"
        pages = 0
        while path:
            reply = cloud.ask.get(path, version="2.96", user=ALICE)
            assert reply.status == 200 and len(reply.body) < 7000
            ids += [server["id"] for server in reply.json["servers"]]
            link = reply.json.get("servers_links")
            path = link[0]["href"].partition("/v2.1")[1] + link[0]["href"].partition("/v2.1")[2] if link else ""
            pages += 1
    shown = made if not query else made - {each for each in made if each not in ids}
    assert sorted(ids) == sorted(shown) and len(ids) >= 6
    assert pages >= 2

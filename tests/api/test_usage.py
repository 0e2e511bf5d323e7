"""What projects used in a window of time: `/os-simple-tenant-usage`."""

import datetime
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

import api_db.tables
from cell_db.tables import instances
from tests.api.http.harness import ADMIN, ALICE, BOB, Reply
from tests.api.small_cloud import SmallCloud

DAY = datetime.datetime(2026, 3, 1)
HOUR = datetime.timedelta(hours=1)
WINDOW = "start=2026-03-01T00:00:00&end=2026-03-02T00:00:00"
MINE = ALICE.project_id


def server(
    cloud: SmallCloud, *, launched: float | None, ended: float | None = None, cell: str = "east", project: str = MINE,
    state: str = "active", name: str = "web",
) -> str:  # fmt: skip
    """A server that ran from and to these hours of the day; `launched` None: it never ran."""
    uuid = cloud.running(cell, f"{cell}-1", name=name)
    at = None if launched is None else DAY + launched * HOUR
    until = None if ended is None else DAY + ended * HOUR
    values = {
        "project_id": project, "launched_at": at, "terminated_at": until, "deleted": until is not None,
        "vm_state": state, "vcpus": 2, "memory_mib": 512, "root_gib": 3, "ephemeral_gib": 1,
    }  # fmt: skip
    with cloud.databases[cell].transaction() as connection:
        connection.execute(sa.update(instances).where(instances.c.uuid == uuid).values(**values))
    with cloud.api.transaction() as connection:
        mappings = api_db.tables.instance_mappings
        connection.execute(sa.update(mappings).where(mappings.c.uuid == uuid).values(project_id=project))
    return uuid


def ask(cloud: SmallCloud, path: str = "", query: str = WINDOW, *, version: str = "2.96", user: Any = ADMIN) -> Reply:
    return cloud.ask.get(f"/v2.1/os-simple-tenant-usage{path}?{query}", version=version, user=user)


def used(cloud: SmallCloud, project: str = MINE, query: str = WINDOW, **more: Any) -> dict[str, Any]:
    reply = ask(cloud, f"/{project}", query, **more)
    assert reply.status == 200, reply.body
    usage: dict[str, Any] = reply.json["tenant_usage"]
    return usage


def test_a_server_counts_for_the_hours_that_it_ran_in_the_window(cloud: SmallCloud) -> None:
    whole = server(cloud, launched=-48)
    began = server(cloud, launched=20, cell="west")
    ended = server(cloud, launched=-1, ended=6)
    outlived = server(cloud, launched=23, ended=30, state="stopped")
    server(cloud, launched=None, state="error")
    server(cloud, launched=-48, ended=-1)
    server(cloud, launched=25)

    usage = used(cloud)

    hours = {each["instance_id"]: each["hours"] for each in usage["server_usages"]}
    assert hours == {whole: 24.0, began: 4.0, ended: 6.0, outlived: 1.0}
    assert usage["total_hours"] == 35.0
    assert (usage["total_vcpus_usage"], usage["total_memory_mb_usage"], usage["total_local_gb_usage"]) == (
        70.0, 35 * 512.0, 140.0,
    )  # fmt: skip
    assert (usage["tenant_id"], usage["start"], usage["stop"]) == (
        MINE, "2026-03-01T00:00:00.000000", "2026-03-02T00:00:00.000000",
    )  # fmt: skip


def test_each_server_says_how_large_it_is_and_from_when_to_when_it_ran(cloud: SmallCloud) -> None:
    uuid = server(cloud, launched=1, ended=3, name="db", state="deleted")

    (shown,) = used(cloud)["server_usages"]

    assert shown == {
        "instance_id": uuid, "name": "db", "tenant_id": MINE, "flavor": "m1.small", "vcpus": 2, "memory_mb": 512,
        "local_gb": 4, "hours": 2.0, "uptime": 7200, "started_at": "2026-03-01T01:00:00.000000",
        "ended_at": "2026-03-01T03:00:00.000000", "state": "terminated",
    }  # fmt: skip
    living = server(cloud, launched=2, state="stopped")
    shown = next(each for each in used(cloud)["server_usages"] if each["instance_id"] == living)
    assert (shown["state"], shown["ended_at"]) == ("stopped", None)


def test_an_administrator_sees_all_projects_and_their_servers_if_asked(cloud: SmallCloud) -> None:
    server(cloud, launched=0)
    server(cloud, launched=12, project="zeta", cell="west")

    brief, detailed = ask(cloud).json["tenant_usages"], ask(cloud, query=f"{WINDOW}&detailed=1").json["tenant_usages"]

    assert [(each["tenant_id"], each["total_hours"]) for each in brief] == [(MINE, 24.0), ("zeta", 12.0)]
    assert all("server_usages" not in each for each in brief)
    assert [len(each["server_usages"]) for each in detailed] == [1, 1]


def test_a_project_sees_its_own_and_no_others(cloud: SmallCloud) -> None:
    server(cloud, launched=0)

    assert used(cloud, user=ALICE)["total_hours"] == 24.0
    assert ask(cloud, f"/{MINE}", user=BOB).status == 403
    assert ask(cloud, user=ALICE).status == 403


def test_a_project_that_used_nothing_has_an_empty_usage(cloud: SmallCloud) -> None:
    assert used(cloud, project="nobody") == {}
    assert ask(cloud).json == {"tenant_usages": []}


@pytest.mark.parametrize("path", ["", f"/{MINE}"])
def test_pages_end_where_the_next_begins_over_all_cells(cloud: SmallCloud, path: str) -> None:
    made = [server(cloud, launched=0, cell=cell, ended=ended) for cell in ("east", "west") for ended in (None, 5, None)]
    if not path:
        made += [server(cloud, launched=0, project="alpha"), server(cloud, launched=0, project="zeta", cell="west")]

    assert list(_walk(cloud, path, limit=2)) == _in_order(cloud, path, made)


def _in_order(cloud: SmallCloud, path: str, made: list[str]) -> list[str]:
    whole = ask(cloud, path, f"{WINDOW}&detailed=1" if not path else WINDOW).json
    listed = [
        (usage["tenant_id"], each["instance_id"]) for usage in _projects(whole) for each in usage["server_usages"]
    ]
    assert listed == sorted(listed) and {uuid for _, uuid in listed} == set(made)
    return [uuid for _, uuid in listed]


def _projects(page: dict[str, Any]) -> list[dict[str, Any]]:
    return list(page["tenant_usages"]) if "tenant_usages" in page else [page["tenant_usage"]]


def _walk(cloud: SmallCloud, path: str, *, limit: int) -> Iterator[str]:
    query = f"{WINDOW}&limit={limit}" + ("" if path else "&detailed=1")
    while True:
        page = ask(cloud, path, query).json
        for usage in _projects(page):
            yield from (each["instance_id"] for each in usage.get("server_usages", ()))
        links = page.get("tenant_usages_links") or page.get("tenant_usage_links")
        if not links:
            return
        query = links[0]["href"].partition("?")[2]


def test_pages_came_with_2_40(cloud: SmallCloud) -> None:
    for _ in range(2):
        server(cloud, launched=0)

    old = ask(cloud, f"/{MINE}", f"{WINDOW}&limit=1", version="2.39").json
    new = ask(cloud, f"/{MINE}", f"{WINDOW}&limit=1", version="2.40").json

    assert (len(old["tenant_usage"]["server_usages"]), set(old)) == (2, {"tenant_usage"})
    assert (len(new["tenant_usage"]["server_usages"]), set(new)) == (1, {"tenant_usage", "tenant_usage_links"})


def test_a_bill_is_not_short_for_a_cell_that_does_not_answer(cloud: SmallCloud) -> None:
    server(cloud, launched=0)
    cloud.go_silent("west")

    for path in ("", f"/{MINE}"):
        reply = ask(cloud, path)
        assert (reply.status, "west" in reply.body.decode()) == (503, True)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("start=2026-03-02T00:00:00&end=2026-03-01T00:00:00", "start"),
        ("start=2026-03-01T00:00:00&end=2026-03-01T00:00:00", "start"),
        ("start=yesterday", "Datetime"),
        ("end=2026-13-01T00:00:00", "Datetime"),
        (f"{WINDOW}&limit=-1", "limit"),
        (f"{WINDOW}&marker=5d3f9a3e-6f9f-4d8e-9c1b-3c2c5f0c9d11", "marker"),
        (f"{WINDOW}&colour=red", "colour"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(cloud: SmallCloud, query: str, field: str) -> None:
    for path in ("", f"/{MINE}"):
        reply = ask(cloud, path, query)
        assert (reply.status, field in reply.body.decode()) == (400, True), reply.body


def test_another_projects_server_is_no_marker(cloud: SmallCloud) -> None:
    foreign = server(cloud, launched=0, project="zeta")

    assert ask(cloud, f"/{MINE}", f"{WINDOW}&marker={foreign}", user=ALICE).status == 400


def test_without_a_window_it_is_this_moment(cloud: SmallCloud) -> None:
    server(cloud, launched=0)

    assert 0.0 <= used(cloud, query="")["total_hours"] < 1.0


@pytest.mark.parametrize("start", ["2026-03-01T00:00:00", "2026-03-01T00:00:00.000", "2026-03-01 00:00:00.000000"])
def test_times_come_in_three_forms(cloud: SmallCloud, start: str) -> None:
    server(cloud, launched=0)

    assert used(cloud, query=f"start={start.replace(' ', '%20')}&end=2026-03-02T00:00:00")["total_hours"] == 24.0

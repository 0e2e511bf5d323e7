"""A server that its user deletes can be restored for a while, where the settings say so."""

import pathlib
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa

import api_db.cells
import api_db.instances
import api_db.journal
import api_db.listing
import api_db.quota
import api_db.soft_deletes
import api_db.tables
import cell_db.instances
import cell_db.soft_deletes
import cell_db.tables
import core.errors
from api.http.caller import Identity
from api_db.instances import DELETED, LIVING, SOFT_DELETED
from api_db.journal import Entry, Kind
from core.context import Context
from lifecycle import states
from lifecycle.actions import ACTIONS, CREATE, GET_SPICE_CONSOLE, Action
from objects.fault import Fault
from tests.api.http.harness import ADMIN, ALICE, Reply
from tests.api.small_cloud import CARL, SmallCloud, small_cloud
from tests.api.test_admission import ask as ask_for
from tests.api.test_admission import label

pytestmark = pytest.mark.slow

INTERVAL = "[DEFAULT]\nreclaim_instance_interval = 3600\n"
ALICE_ASKS = Context(ALICE.user_id, ALICE.project_id, request_id="req-of-alice")


@pytest.fixture
def soft(tmp_path: pathlib.Path) -> Iterator[SmallCloud]:
    """A cloud in which deleted servers can be restored for an hour."""
    with small_cloud(tmp_path, INTERVAL) as small:
        yield small


def delete(cloud: SmallCloud, uuid: str, *, user: Identity = ALICE) -> Reply:
    return cloud.ask.delete(f"/v2.1/servers/{uuid}", user=user)


def soft_deleted(cloud: SmallCloud, **more: Any) -> str:
    """A server that ran, and was soft-deleted; its host has said so."""
    uuid = cloud.running(**more)
    assert delete(cloud, uuid).status == 204
    cloud.settle(uuid)
    return uuid


def mapping(cloud: SmallCloud, uuid: str) -> api_db.instances.Mapping:
    with cloud.api.reading() as connection:
        return api_db.instances.get(connection, uuid)


def row(cloud: SmallCloud, uuid: str, cell: str = "east") -> sa.Row[Any]:
    rows = cell_db.tables.instances
    with cloud.databases[cell].reading() as connection:
        return connection.execute(sa.select(rows).where(rows.c.uuid == uuid)).one()


def usage(cloud: SmallCloud) -> int:
    with cloud.api.reading() as connection:
        return api_db.quota.usage(connection, str(ALICE.project_id))["instances"]


def come_back(cloud: SmallCloud, cell: str = "east") -> None:
    cloud.cloud.cells.by_name(cell)._bulkhead.breaker.succeeded()


def work(cloud: SmallCloud, uuid: str) -> Entry:
    """What the super-conductor does with the server's row in the journal."""
    with cloud.api.transaction() as connection:
        past = sa.update(api_db.tables.build_requests).values(lease_until=sa.text("'2000-01-01 00:00:00'"))
        connection.execute(past)
        (entry,) = api_db.journal.lease(connection, seconds=60, most=1, uuids_wanted=[uuid])
    change = {
        Kind.SOFT_DELETE: cell_db.soft_deletes.soft_delete,
        Kind.RESTORE: cell_db.soft_deletes.restore,
    }[entry.kind]
    assert entry.mark is not None and entry.asked_by is not None
    with cloud.databases["east"].transaction() as connection:
        change(connection, uuid, mark=entry.mark, by=entry.asked_by)
    with cloud.api.transaction() as connection:
        assert api_db.journal.drop(connection, [entry.lease]) == {uuid}
    return entry


# ---- delete and restore ----------------------------------------------------------------------------------------------


def test_a_deleted_server_is_powered_off_and_comes_back_when_it_is_restored(soft: SmallCloud) -> None:
    uuid = soft.running()

    assert delete(soft, uuid).status == 204
    assert soft.operation(uuid).operation == "soft-delete"
    assert soft.show(uuid)["OS-EXT-STS:task_state"] == "soft-deleting"
    soft.settle(uuid)
    shown = soft.show(uuid)
    assert (shown["status"], shown["OS-EXT-STS:vm_state"], shown["OS-EXT-STS:power_state"]) == (
        "SOFT_DELETED",
        "soft-delete",
        4,
    )
    assert soft.entry(uuid) is None and usage(soft) == 0

    assert soft.act(uuid, "restore").status == 202
    assert soft.operation(uuid).operation == "restore" and usage(soft) == 1
    assert soft.show(uuid)["OS-EXT-STS:task_state"] == "restoring"
    soft.settle(uuid)
    shown = soft.show(uuid)
    assert (shown["status"], shown["OS-EXT-STS:task_state"], shown["OS-EXT-STS:power_state"]) == ("ACTIVE", None, 1)


def test_its_history_has_the_names_that_clients_know(soft: SmallCloud) -> None:
    uuid = soft_deleted(soft)
    assert soft.act(uuid, "restore").status == 202
    soft.settle(uuid)

    path = f"/v2.1/servers/{uuid}/os-instance-actions"
    listed = soft.ask.get(path, user=ALICE, version="2.96").json["instanceActions"]
    events = [
        soft.ask.get(f"{path}/{each['request_id']}", user=ALICE, version="2.96").json["instanceAction"]["events"]
        for each in listed[:2]
    ]

    assert [(each["action"], each["message"]) for each in listed] == [
        ("restore", None),
        ("delete", None),
        ("create", None),
    ]
    assert [event["event"] for each in events for event in each] == [
        "compute_restore_instance",
        "compute_soft_delete_instance",
    ]


def test_a_second_delete_changes_nothing(soft: SmallCloud) -> None:
    uuid = soft_deleted(soft)
    before = mapping(soft, uuid), row(soft, uuid)

    assert delete(soft, uuid).status == 204

    assert (mapping(soft, uuid), row(soft, uuid)) == before and soft.entry(uuid) is None


def test_so_it_is_where_the_setting_was_taken_back(soft: SmallCloud) -> None:
    uuid = soft_deleted(soft)
    soft.cloud.conf.set_override("reclaim_instance_interval", 0)

    assert delete(soft, uuid).status == 204
    assert mapping(soft, uuid).is_soft_deleted
    assert soft.act(uuid, "restore").status == 202


@pytest.mark.parametrize("when", ["waiting", "building", "buried", "failed"])
def test_a_server_that_never_ran_is_deleted_for_good(soft: SmallCloud, when: str) -> None:
    uuid = soft.created()
    if when == "building":
        soft.place(uuid)
    if when == "buried":
        soft.bury(uuid)
    if when == "failed":
        soft.place(uuid, "east", None, Fault(message="no host"))

    assert delete(soft, uuid).status == 204

    assert delete(soft, uuid).status == 404
    assert soft.ask.get(f"/v2.1/servers/{uuid}", user=ALICE).status == 404
    assert mapping(soft, uuid).is_deleted
    if when != "waiting":
        assert row(soft, uuid, "cell0" if when == "buried" else "east").state in (
            states.BUILD_DELETING,
            states.BUILD_DELETED,
        )


def test_a_server_that_runs_is_not_deleted_for_good_because_its_order_is_still_in_the_journal(soft: SmallCloud) -> None:
    """The super-conductor drops it within a second, or after its lease if it was killed."""
    journal = api_db.tables.build_requests
    uuid = soft.created()
    with soft.api.reading() as connection:
        order = connection.execute(sa.select(journal).where(journal.c.uuid == uuid)).one()._asdict()
    soft.place(uuid)
    with soft.api.transaction() as connection:
        order |= {"phase": "assigned", "target": api_db.cells.find(connection, "east").uuid, "token": "of-the-killed"}
        connection.execute(sa.insert(journal).values(**order))
    soft.run(uuid)

    assert delete(soft, uuid).status == 204
    assert mapping(soft, uuid).is_soft_deleted and soft.entry(uuid) is None
    soft.settle(uuid)
    with soft.api.transaction() as connection:
        assert api_db.journal.drop(connection, [(uuid, "of-the-killed")]) == set()
    assert soft.act(uuid, "restore").status == 202


def test_an_order_that_its_cell_does_not_have_yet_is_deleted_for_good(soft: SmallCloud) -> None:
    uuid = soft.created()
    soft.assign(uuid, "east", "east-1")

    assert delete(soft, uuid).status == 204

    entry = soft.entry(uuid)
    assert mapping(soft, uuid).is_deleted and entry is not None and entry.kind is Kind.DELETE


@pytest.mark.parametrize("interval", [0, 3600])
@pytest.mark.parametrize("when", ["waiting", "building", "active", "soft-deleted", "buried"])
def test_a_force_delete_is_final_whatever_the_server_is(soft: SmallCloud, when: str, interval: int) -> None:
    uuid = soft_deleted(soft) if when == "soft-deleted" else soft.running() if when == "active" else soft.created()
    if when == "building":
        soft.place(uuid)
    if when == "buried":
        soft.bury(uuid)
    soft.cloud.conf.set_override("reclaim_instance_interval", interval)

    assert soft.act(uuid, "forceDelete").status == 202

    assert soft.act(uuid, "forceDelete").status == 404
    assert soft.act(uuid, "restore").status == 404
    assert soft.ask.get(f"/v2.1/servers/{uuid}", user=ALICE).status == 404


def test_a_delete_takes_the_place_of_what_is_under_way(soft: SmallCloud) -> None:
    uuid = soft.running()
    assert soft.act(uuid, "pause").status == 202

    assert delete(soft, uuid).status == 204
    soft.settle(uuid)
    assert soft.show(uuid)["status"] == "SOFT_DELETED"

    assert soft.act(uuid, "restore").status == 202
    assert delete(soft, uuid).status == 204
    soft.settle(uuid)
    assert soft.show(uuid)["status"] == "SOFT_DELETED" and due(soft, -1.0) == [(uuid, 3)]
    assert row(soft, uuid).mark == 3


# ---- who may, and when -----------------------------------------------------------------------------------------------

ADMITTED = {
    "PUT /servers/{id}", "DELETE /servers/{id}", "DELETE /servers/{id} SOFT", "POST forceDelete", "POST restore",
    "POST lock", "POST unlock",
}  # fmt: skip


# No driver here has consoles of SPICE: they are refused whatever the server's state.
@pytest.mark.parametrize("action", [one for one in ACTIONS if one not in (CREATE, GET_SPICE_CONSOLE)], ids=label)
def test_of_a_soft_deleted_server_nothing_is_done_but_what_the_page_says(soft: SmallCloud, action: Action) -> None:
    uuid = soft_deleted(soft)

    reply = ask_for(soft, action, uuid)

    if label(action) in ADMITTED:
        assert reply.status < 300, reply.body
    else:
        said = f"Cannot '{action.name}' instance {uuid} while it is in vm_state soft-delete"
        assert reply.fault == f"conflictingRequest: {said}"


@pytest.mark.parametrize("key", ["restore", "forceDelete"])
def test_a_lock_keeps_its_owner_from_it(soft: SmallCloud, key: str) -> None:
    uuid = soft_deleted(soft)
    assert soft.act(uuid, "lock").status == 202

    assert "is locked" in soft.act(uuid, key).fault
    assert delete(soft, uuid).status == 409
    assert soft.act(uuid, "unlock").status == 202
    assert soft.act(uuid, key).status == 202


def test_others_neither_see_nor_restore_it(soft: SmallCloud) -> None:
    uuid = soft_deleted(soft)

    assert soft.ask.get(f"/v2.1/servers/{uuid}", user=CARL).status == 404
    assert soft.act(uuid, "restore", user=CARL).status == 404
    assert soft.act(uuid, "forceDelete", user=CARL).status == 404
    assert soft.act(uuid, "restore", user=ADMIN).status == 202


@pytest.mark.parametrize("under_way", ["soft-delete", "restore"])
def test_no_operator_ends_what_is_decided(soft: SmallCloud, under_way: str) -> None:
    """The row would say otherwise than the mapping, for ever."""
    uuid = soft.running()
    delete(soft, uuid)
    if under_way == "restore":
        soft.settle(uuid)
        soft.act(uuid, "restore")

    reply = soft.act(uuid, "os-resetState", {"state": "active"}, user=ADMIN)

    assert reply.status == 409 and soft.operation(uuid).operation == under_way


def test_what_lives_is_not_restored(soft: SmallCloud) -> None:
    uuid = soft.running()
    assert "vm_state active" in soft.act(uuid, "restore").fault
    assert "scheduling" in soft.act(soft.created(), "restore").fault
    delete(soft, uuid)
    assert "vm_state active" in soft.act(uuid, "restore").fault
    soft.settle(uuid)
    assert soft.act(uuid, "restore").status == 202
    assert "task_state restoring" in soft.act(uuid, "restore").fault


def test_a_restore_needs_room(soft: SmallCloud) -> None:
    uuid = soft_deleted(soft)
    assert soft.create(min_count=10).status == 202

    reply = soft.act(uuid, "restore")

    assert reply.status == 403 and "Quota exceeded for instances: Requested 1, but already used 10 of 10" in reply.fault
    assert mapping(soft, uuid).is_soft_deleted and soft.entry(uuid) is None


# ---- failures of hosts and cells -------------------------------------------------------------------------------------


def test_it_is_soft_deleted_whatever_its_host_says(soft: SmallCloud) -> None:
    uuid = soft.running()
    delete(soft, uuid)

    soft.settle(uuid, fault="no guest", unharmed=True)

    shown = soft.show(uuid)
    assert (shown["status"], shown["OS-EXT-STS:task_state"]) == ("SOFT_DELETED", None)
    assert row(soft, uuid).operation_id is None
    assert row(soft, uuid).fault["message"] == "delete failed: no guest"


def test_a_guest_that_cannot_be_started_leaves_its_server_stopped(soft: SmallCloud) -> None:
    uuid = soft_deleted(soft)
    soft.act(uuid, "restore")

    soft.settle(uuid, fault="no disk", unharmed=True)

    assert soft.show(uuid)["status"] == "SHUTOFF" and "no disk" in row(soft, uuid).fault["message"]


def test_a_silent_cell_is_told_when_it_is_back(soft: SmallCloud) -> None:
    uuid = soft.running()
    soft.go_silent("east")
    assert delete(soft, uuid).status == 204
    assert mapping(soft, uuid).is_soft_deleted and usage(soft) == 0
    assert soft.show(uuid)["status"] == "UNKNOWN"
    come_back(soft)

    assert work(soft, uuid).mark == 1
    soft.settle(uuid)
    assert soft.show(uuid)["status"] == "SOFT_DELETED"

    soft.go_silent("east")
    assert soft.act(uuid, "restore").status == 202
    assert mapping(soft, uuid).deleted == LIVING and usage(soft) == 1
    come_back(soft)
    assert work(soft, uuid).mark == 2
    soft.settle(uuid)
    assert soft.show(uuid)["status"] == "ACTIVE"


def test_a_cell_that_slept_through_both_leaves_its_guest_alone(soft: SmallCloud) -> None:
    uuid = soft.running()
    assert soft.act(uuid, "os-stop").status == 202
    soft.settle(uuid)
    soft.go_silent("east")
    assert delete(soft, uuid).status == 204
    assert soft.act(uuid, "restore").status == 202
    come_back(soft)

    work(soft, uuid)

    after = row(soft, uuid)
    assert (after.vm_state, after.task_state, after.operation_id, after.mark) == ("stopped", None, None, 2)


def test_a_locked_server_in_a_silent_cell_is_not_restored(soft: SmallCloud) -> None:
    uuid = soft_deleted(soft)
    assert soft.act(uuid, "lock").status == 202
    soft.go_silent("east")

    assert soft.act(uuid, "restore").status == 409
    assert soft.act(uuid, "restore", user=ADMIN).status == 202


def test_a_soft_delete_that_comes_late_finds_the_restore(soft: SmallCloud) -> None:
    uuid = soft_deleted(soft)
    soft.act(uuid, "restore")
    soft.settle(uuid)

    with soft.databases["east"].transaction() as connection:
        assert cell_db.soft_deletes.soft_delete(connection, uuid, mark=1, by=ALICE_ASKS)

    assert soft.show(uuid)["status"] == "ACTIVE" and row(soft, uuid).operation_id is None


def test_a_restore_that_comes_late_finds_the_tombstone(soft: SmallCloud) -> None:
    uuid = soft_deleted(soft)
    soft.act(uuid, "forceDelete")

    with soft.databases["east"].transaction() as connection:
        cell_db.soft_deletes.restore(connection, uuid, mark=9, by=ALICE_ASKS)

    assert row(soft, uuid).state == states.BUILD_DELETING and row(soft, uuid).operation_id is None


def test_a_row_of_a_newer_release_spoils_no_other(soft: SmallCloud) -> None:
    newer, own = soft.running(), soft.running()
    soft.go_silent("east")
    delete(soft, newer)
    delete(soft, own)
    journal = api_db.tables.build_requests
    with soft.api.transaction() as connection:
        connection.execute(sa.update(journal).values(lease_until=sa.text("'2000-01-01 00:00:00'")))
        connection.execute(sa.update(journal).where(journal.c.uuid == newer).values(kind="teleport"))

    with soft.api.transaction() as connection:
        leased = api_db.journal.lease(connection, seconds=60, most=10)
        waiting = {each.uuid: each for each in api_db.listing.journal(connection, project_id=None)}

    assert [entry.uuid for entry in leased] == [own]
    assert waiting[own].is_hidden and not waiting[newer].is_hidden


# ---- the mapping decides ---------------------------------------------------------------------------------------------


def reclaim(cloud: SmallCloud, uuid: str, mark: int) -> bool:
    try:
        with cloud.api.transaction() as connection:
            api_db.journal.request_delete(connection, uuid=uuid, lease_s=0.0, was=(SOFT_DELETED,), mark=mark)
    except core.errors.NotFound:
        return False
    return True


def due(cloud: SmallCloud, after_s: float) -> list[tuple[str, int]]:
    with cloud.api.reading() as connection:
        return api_db.soft_deletes.due(connection, after_s=after_s, most=100)


def test_only_what_was_deleted_for_so_long_is_due(soft: SmallCloud) -> None:
    uuid, _ = soft_deleted(soft), soft.running()

    assert due(soft, -1.0) == [(uuid, 1)] and due(soft, 3600.0) == []
    soft.act(uuid, "restore")
    assert due(soft, -1.0) == []


def test_who_commits_first_decides_between_a_restore_and_a_reclaim(soft: SmallCloud) -> None:
    uuid = soft_deleted(soft)
    assert soft.act(uuid, "restore").status == 202
    assert not reclaim(soft, uuid, 1)

    other = soft_deleted(soft)
    assert reclaim(soft, other, 1)
    assert soft.act(other, "restore").status == 404
    assert mapping(soft, other).deleted == DELETED


def test_a_reclaim_does_not_mistake_a_new_soft_delete_for_the_old_one(soft: SmallCloud) -> None:
    uuid = soft_deleted(soft)
    ((_, mark),) = due(soft, -1.0)
    soft.act(uuid, "restore")
    soft.settle(uuid)
    delete(soft, uuid)

    assert not reclaim(soft, uuid, mark)
    assert mapping(soft, uuid).is_soft_deleted


def test_nothing_is_made_final_that_was_restored_or_belongs_to_another_worker(soft: SmallCloud) -> None:
    uuid = soft.running()
    soft.go_silent("east")
    delete(soft, uuid)
    old = soft.entry(uuid)
    assert old is not None
    soft.act(uuid, "restore")
    soft.go_silent("east")
    delete(soft, uuid)

    with soft.api.transaction() as connection:
        assert not api_db.soft_deletes.make_final(connection, old)
        assert api_db.instances.get(connection, uuid).is_soft_deleted
        now = api_db.journal.find(connection, uuid)
        assert now is not None and now.mark == 3
        assert api_db.soft_deletes.make_final(connection, now)
        final = api_db.journal.find(connection, uuid)
        assert final is not None and final.kind is Kind.DELETE


# ---- what it costs ---------------------------------------------------------------------------------------------------


def statements(cloud: SmallCloud, uuid: str) -> list[str]:
    asked: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if "instance_mappings" in statement or "build_requests" in statement:
            asked.append(statement)

    engine = cloud.cloud.api_db._database.engine
    sa.event.listen(engine, "before_cursor_execute", note)
    assert delete(cloud, uuid, user=ADMIN).status == 204
    sa.event.remove(engine, "before_cursor_execute", note)
    return asked


def test_a_delete_costs_what_it_did_where_there_is_no_soft_delete(cloud: SmallCloud) -> None:
    """Found; marked, journal row changed or else inserted from the mapping, read; finished."""
    assert len(statements(cloud, cloud.running())) == 7


def test_a_soft_delete_is_one_statement_more(soft: SmallCloud) -> None:
    assert len(statements(soft, soft.running())) == 8

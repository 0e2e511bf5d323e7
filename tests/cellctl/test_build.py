"""`cellctl build`: how far each build is, and what an operator may do about it."""

import pytest
import sqlalchemy as sa

from lifecycle import states
from tests.cellctl.terminal import Terminal
from tests.cellctl.under_way import Listening, UnderWay

pytestmark = pytest.mark.slow


def test_builds_are_listed_wherever_they_are(cloud: Terminal, under_way: UnderWay) -> None:
    accepted, assigned, building = under_way.accepted(), under_way.assigned(), under_way.building()
    going = under_way.building()
    under_way.going(going)
    leased = under_way.accepted()
    under_way.leased(leased)

    rows = {row["server"]: row for row in cloud.gets("build", "list")}

    assert {uuid: (row["phase"], row["cell"]) for uuid, row in rows.items()} == {
        accepted: ("new", None),
        leased: ("new", None),
        assigned: ("assigned", "east"),
        building: ("BUILD", "east"),
        going: ("DELETING", "east"),
    }
    assert rows[accepted]["waiting_for"] == "nobody"
    assert rows[leased]["waiting_for"].startswith("a super-conductor (")
    assert rows[leased]["lease_s"] > 0
    assert (rows[building]["host"], rows[building]["attempt"]) == ("east-1", 1)
    assert (
        rows[building]["progress"]
        == "attempt 1 is assigned to host east-1, which is unknown to its cell; alternates: east-2"
    )
    assert rows[going]["waiting_for"] == "host east-1"
    assert set(cloud.gets("build", "list", "--cell", "west")) == set()
    assert {row["server"] for row in cloud.gets("build", "list", "--cell", "east")} == {assigned, building, going}


def test_builds_of_other_cells_are_listed_while_one_is_away(cloud: Terminal, under_way: UnderWay) -> None:
    assigned, building = under_way.assigned("west"), under_way.building("east")
    cloud.gone("west")

    ended = cloud.runs("build", "list", "-f", "value", "-c", "server")

    assert (ended.code, set(ended.out.split())) == (5, {assigned, building})


def test_a_build_is_shown_with_all_that_is_known_of_it(cloud: Terminal, under_way: UnderWay) -> None:
    uuid = under_way.building()

    shown = cloud.gets("build", "show", uuid)

    assert shown["phase"] == "BUILD"
    assert shown["alternates"] == "east-2"
    assert shown["listed_by_host"] is False
    assert shown["claim"].startswith("unknown")
    assert "c2VjcmV0" not in str(shown)
    shown = cloud.gets("build", "show", under_way.assigned())
    assert (shown["journal_phase"], shown["journal_places"]) == ("assigned", "east-1, east-2")
    assert cloud.runs("build", "show", "no-such-server").code == 4


def test_a_cell_that_is_away_is_told_in_the_story(cloud: Terminal, under_way: UnderWay) -> None:
    uuid = under_way.building()
    cloud.gone("east")

    assert "does not answer" in cloud.gets("build", "show", uuid)["progress"]
    assert cloud.runs("build", "resume", uuid).code == 5
    assert cloud.runs("build", "abandon", uuid).code == 5


# ---- resume ----------------------------------------------------------------------------------------------------------


def test_resume_ends_the_lease_of_an_order(cloud: Terminal, under_way: UnderWay, listening: Listening) -> None:
    uuid = under_way.accepted()
    under_way.leased(uuid)

    before = under_way.order(uuid).lease_until
    cloud.does("build", "resume", uuid, "--dry-run")
    assert under_way.order(uuid).lease_until == before
    cloud.does("build", "resume", uuid)

    assert under_way.order(uuid).lease_until < before
    assert listening.taken("api") == [("place", {"uuids": [uuid]})]
    cloud.does("build", "resume", uuid)


def test_resume_ends_the_lease_of_a_build_and_has_hosts_asked_again(
    cloud: Terminal, under_way: UnderWay, listening: Listening
) -> None:
    building, going = under_way.building(), under_way.building()
    under_way.going(going)
    under_way.holds_lease(building)
    before = under_way.instance(building).lease_until

    cloud.does("build", "resume", building, going)

    assert under_way.instance(building).lease_until < before
    assert under_way.cleanup(going).sent_at is None
    assert listening.taken("east") == [("start", {"uuids": [building]}), ("clean", {"uuids": [going]})]


def test_nothing_is_resumed_where_nothing_is_under_way(cloud: Terminal) -> None:
    uuid = cloud.server("east", host="east-1")

    ended = cloud.runs("build", "resume", uuid, "no-such-server")

    assert ended.code == 1
    assert "nothing is under way: built on host east-1" in ended.out
    assert "could not be found" in ended.out


def test_resume_goes_without_a_broker(cloud: Terminal, under_way: UnderWay) -> None:
    uuid = under_way.building()
    cloud.frozen_broker("east")

    assert cloud.gets("build", "resume", uuid)[0]["result"] == "resumed, the next sweep takes it"


# ---- abandon ---------------------------------------------------------------------------------------------------------


def test_an_abandoned_order_goes_to_cell0_and_its_holder_cannot_assign_it(
    cloud: Terminal, under_way: UnderWay, listening: Listening
) -> None:
    uuid = under_way.accepted()
    token = under_way.leased(uuid)

    cloud.does("build", "abandon", uuid, "--dry-run")
    assert under_way.order(uuid).phase == "new"
    cloud.does("build", "abandon", uuid, "--reason", "the rack burns")

    order = under_way.order(uuid)
    assert (order.phase, order.target) == ("assigned", cloud.uuid_of("cell0"))
    assert "the rack burns" in order.fault["message"]
    assert order.token != token
    assert listening.taken("api") == [("place", {"uuids": [uuid]})]
    assert cloud.gets("build", "abandon", uuid)[0]["result"] == "is on its way to cell0 already"


def test_an_abandoned_build_is_in_error_and_its_host_has_to_clean_up(
    cloud: Terminal, under_way: UnderWay, listening: Listening
) -> None:
    uuid = under_way.building()

    assert "would end in ERROR" in cloud.gets("build", "abandon", uuid, "--dry-run")[0]["result"]
    assert under_way.instance(uuid).state == states.BUILD
    cloud.does("build", "abandon", uuid)

    row = under_way.instance(uuid)
    assert (row.state, row.vm_state, row.host) == (states.BUILD_ERROR, states.ERROR, None)
    assert "its operator gave it up" in row.fault["message"]
    assert (under_way.cleanup(uuid).host, under_way.cleanup(uuid).attempt) == ("east-1", 1)
    assert listening.taken("east") == [("clean", {"uuids": [uuid]})]
    assert cloud.gets("build", "abandon", uuid)[0]["result"] == "is in ERROR already"
    assert cloud.gets("build", "show", uuid)["progress"].endswith("host east-1 has to clean up")


def test_a_build_of_a_cell_that_is_away_has_its_fault_noted(cloud: Terminal, under_way: UnderWay) -> None:
    uuid = under_way.assigned()
    cloud.gone("east")

    cloud.does("build", "abandon", uuid)

    assert "gave it up" in under_way.order(uuid).fault["message"]
    assert under_way.order(uuid).phase == "assigned"
    assert "already" in cloud.gets("build", "abandon", uuid)[0]["result"]


def test_only_builds_are_abandoned(cloud: Terminal, under_way: UnderWay) -> None:
    running, going = cloud.server("east", host="east-1"), under_way.building()
    under_way.going(going)
    under_way.deleted(going)

    ended = cloud.runs("build", "abandon", running, going)

    assert ended.code == 1
    assert "it is not being built" in ended.out
    assert "it is being deleted" in ended.out
    assert under_way.instance(running).state == states.BUILD_ACTIVE


@pytest.mark.parametrize(("kind", "said"), [("soft-delete", "soft-deleted"), ("restore", "restored")])
def test_what_a_cell_has_not_heard_of_is_listed_and_is_no_build(cloud: Terminal, kind: str, said: str) -> None:
    uuid = cloud.soft_deleted("east")
    cloud.order("east", uuid=uuid, kind=kind)

    (listed,) = cloud.gets("build", "list")
    shown = cloud.gets("build", "show", uuid)
    ended = cloud.runs("build", "abandon", uuid)

    assert (listed["server"], listed["progress"]) == (uuid, f"{said}; cell east has not been told yet")
    assert shown["progress"].endswith(f"{said}; cell east has not been told yet") and shown["deleted"] is False
    assert (ended.code, "it is not being built" in ended.err + ended.out) == (1, True), ended
    cloud.gone("east")
    away = cloud.runs("build", "abandon", uuid)
    assert (away.code, "it is not being built" in away.err + away.out) == (1, True), away


@pytest.mark.parametrize(
    ("damage", "deleting", "said", "left"),
    [
        ({"instance": "{"}, False, "ended", None),
        ({"instance": "[]"}, False, "ended", None),
        ({"alternates": "5"}, False, "mended", "assigned"),
        ({"fault": "5"}, False, "mended", "assigned"),
        ({"phase": "assigned"}, False, "mended", "assigned"),
        ({"delete_context": "5"}, True, "mended", "new"),
        ({"instance": "{"}, True, "mended", "new"),
        ({"kind": "unknown"}, False, "removed", None),
    ],
)
def test_a_row_that_nobody_can_read_is_to_be_looked_at_and_abandon_ends_it(
    cloud: Terminal, under_way: UnderWay, damage: dict[str, str], deleting: bool, said: str, left: str | None
) -> None:
    cloud.everything_up()
    uuid = under_way.accepted()
    column, value = next(iter(damage.items()))
    with cloud.opened("api").transaction() as connection:
        row = sa.text(f"UPDATE build_requests SET {column} = :value, deleting = :deleting WHERE uuid = :uuid")
        connection.execute(row, {"value": value, "deleting": deleting, "uuid": uuid})

    remark = "API level: 1 builds or deletes cannot be read (cellctl build abandon)"
    assert cloud.gets("status")["remarks"] == [remark]
    assert [row["server"] for row in cloud.gets("build", "list")] == [uuid]
    assert cloud.gets("build", "show", uuid)["server"] == uuid
    (row,) = cloud.gets("build", "abandon", uuid)
    assert said in row["result"]

    assert cloud.gets("status")["remarks"] == []
    assert [row["phase"] for row in cloud.gets("build", "list")] == ([] if left is None else [left])

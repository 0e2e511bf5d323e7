"""Operations: once per id, in order, the outcome remembered; and the console."""

import threading

import pytest

import core.errors
from devstack.waiting import wait_until
from lifecycle import states
from lifecycle.actions import POWER_OPERATIONS
from messaging.verbs import cell
from tests.compute.conftest import DEADLINE_S, Bench, new_uuid


@pytest.fixture
def server(bench: Bench) -> str:
    bench.start()
    server = new_uuid()
    bench.cell.build((server, 1))
    bench.cell.hear(cell.ACTIVE)
    records = bench.agents[0].host.records
    wait_until(lambda: records.intent(server) is None, what="cleared intent", deadline_s=DEADLINE_S)
    return server


BEFORE = {"start": ["stop"], "unpause": ["pause"], "resume": ["suspend"]}


@pytest.mark.parametrize("action", POWER_OPERATIONS)
def test_an_operation_leaves_the_guest_as_the_lifecycle_table_says(bench: Bench, server: str, action: str) -> None:
    for step in BEFORE.get(action, []):
        bench.cell.act(server, 1, step, step)
        bench.cell.hear(cell.ACTED, lambda row, step=step: row.operation_id == step)

    bench.cell.act(server, 1, "op-1", action)

    outcome = bench.cell.hear(cell.ACTED, lambda row: row.operation_id == "op-1")
    assert outcome == cell.Outcome(server, "op-1", power_state=POWER_OPERATIONS[action].power)


@pytest.mark.parametrize("before", [None, "stop", "pause", "suspend", "rescue"])
def test_a_soft_delete_powers_off_whatever_the_guest_does_and_a_restore_starts_it(
    bench: Bench, server: str, before: str | None
) -> None:
    if before is not None:
        bench.cell.act(server, 1, before, before)
        bench.cell.hear(cell.ACTED, lambda row: row.operation_id == before)

    bench.cell.act(server, 1, "off", "soft-delete", vm_state="rescued" if before == "rescue" else states.ACTIVE)
    off = bench.cell.hear(cell.ACTED, lambda row: row.operation_id == "off")
    bench.cell.act(server, 1, "on", "restore", vm_state=states.SOFT_DELETED)
    on = bench.cell.hear(cell.ACTED, lambda row: row.operation_id == "on")

    assert off == cell.Outcome(server, "off", power_state=states.SHUTDOWN)
    assert on == cell.Outcome(server, "on", power_state=states.RUNNING)


def test_a_rescued_server_is_restored_from_its_own_disks(bench: Bench, server: str) -> None:
    bench.cell.act(server, 1, "rescue", "rescue")
    bench.cell.hear(cell.ACTED, lambda row: row.operation_id == "rescue")

    bench.cell.act(server, 1, "off", "soft-delete", vm_state=states.RESCUED)
    bench.cell.hear(cell.ACTED, lambda row: row.operation_id == "off")

    assert not bench.agents[0].hypervisor.files.get(server).rescued


def test_an_operation_is_done_once_and_its_outcome_said_again(bench: Bench, server: str) -> None:
    bench.cell.act(server, 1, "op-1", "reboot-hard")
    outcome = bench.cell.hear(cell.ACTED)
    bench.cell.forget()

    bench.cell.act(server, 1, "op-1", "reboot-hard")

    assert bench.cell.hear(cell.ACTED) == outcome
    assert bench.cell.console(server).count("GUEST-READY") == 2


def test_operations_of_a_server_are_done_in_their_order(bench: Bench, server: str) -> None:
    bench.faults(act_s=0.2)

    for number, action in enumerate(("stop", "start", "pause", "unpause", "suspend")):
        bench.cell.act(server, 1, f"op-{number}", action)
        wait_until(
            lambda number=number: _is_accepted(bench, server, f"op-{number}"), what="acceptance", deadline_s=DEADLINE_S
        )

    bench.cell.hear(cell.ACTED, lambda row: row.operation_id == "op-4")
    outcomes = bench.cell.heard(cell.ACTED)
    assert [row.operation_id for row in outcomes] == [f"op-{number}" for number in range(5)]
    assert [row.fault for row in outcomes] == [None] * 5


def test_an_operation_that_fails_says_why_and_how_the_guest_is(bench: Bench, server: str) -> None:
    bench.faults(act_error="the guest does not listen")

    bench.cell.act(server, 1, "op-1", "stop")

    assert bench.cell.hear(cell.ACTED) == cell.Outcome(
        server, "op-1", power_state=states.RUNNING, fault="the guest does not listen"
    )


@pytest.mark.parametrize(("attempt", "fault"), [(1, None), (2, "of attempt 1, not 2")])
def test_an_operation_is_for_one_attempt(bench: Bench, server: str, attempt: int, fault: str | None) -> None:
    bench.cell.act(server, attempt, "op-1", "stop")

    said = bench.cell.hear(cell.ACTED).fault
    assert said is None if fault is None else fault in said


def test_no_operation_without_a_guest(bench: Bench, server: str) -> None:
    bench.cell.act(new_uuid(), 1, "op-1", "stop")

    assert "no guest" in bench.cell.hear(cell.ACTED).fault


def test_no_operation_that_nobody_knows(bench: Bench, server: str) -> None:
    bench.cell.act(server, 1, "op-1", "levitate")

    assert "levitate" in bench.cell.hear(cell.ACTED).fault


def test_an_operation_on_a_server_under_build_waits_for_nothing(bench: Bench, server: str) -> None:
    bench.faults(hang=True)
    bench.cell.build((building := new_uuid(), 1))
    wait_until(lambda: bench.intents() == [building], what="intent", deadline_s=DEADLINE_S)

    bench.cell.act(building, 1, "op-1", "stop")
    assert "being built" in bench.cell.hear(cell.ACTED).fault
    bench.faults()
    bench.cell.hear(cell.ACTIVE, lambda row: row.uuid == building)
    bench.cell.forget()

    bench.cell.act(building, 1, "op-1", "stop")
    assert "being built" in bench.cell.hear(cell.ACTED).fault
    assert bench.agents[0].hypervisor.guests.get(building).power_state == states.RUNNING


def test_an_operation_may_follow_the_report_of_the_build_at_once(bench: Bench) -> None:
    """The report's confirmation is slower than what it causes: the intent is still open when the operation comes."""
    agent = bench.start()
    clear, held = agent.host.records.clear_intent, threading.Event()
    agent.host.records.clear_intent = lambda *arguments: held.wait(DEADLINE_S) and clear(*arguments)
    server = new_uuid()
    bench.cell.build((server, 1))
    bench.cell.hear(cell.ACTIVE)

    bench.cell.act(server, 1, "op-1", "stop")
    wait_until(
        lambda: agent.hypervisor.guests.get(server).power_state == states.SHUTDOWN, what="stop", deadline_s=DEADLINE_S
    )
    held.set()

    assert bench.cell.hear(cell.ACTED).fault is None


def test_a_destroy_ends_an_operation_under_way(bench: Bench, server: str) -> None:
    bench.faults(act_s=120.0)
    bench.cell.act(server, 1, "op-1", "stop")
    wait_until(lambda: bench.agents[0].host.servers.is_busy(server), what="operation", deadline_s=DEADLINE_S)

    bench.cell.destroy((server, 1))

    bench.cell.hear(cell.GONE)
    assert bench.guests() == {}


def test_a_destroyed_server_is_answered_at_once(bench: Bench, server: str) -> None:
    bench.cell.destroy((server, 1))
    bench.cell.hear(cell.GONE)

    bench.cell.act(server, 1, "op-1", "start")

    assert "given up" in bench.cell.hear(cell.ACTED).fault


def test_an_operation_that_an_agent_left_is_done_by_the_next(bench: Bench, server: str) -> None:
    bench.faults(act_s=120.0)
    bench.cell.act(server, 1, "op-1", "stop")
    wait_until(lambda: bench.agents[0].host.servers.is_busy(server), what="operation", deadline_s=DEADLINE_S)

    bench.agents[0].stop(1.0)
    assert bench.cell.heard(cell.ACTED) == []
    bench.faults()
    bench.start()

    assert bench.cell.hear(cell.ACTED) == cell.Outcome(server, "op-1", power_state=states.SHUTDOWN)


@pytest.mark.parametrize(("lines", "count"), [(None, 12), (3, 3), (1, 1), (0, 1), (12, 12), (500, 12)])
def test_the_console_shows_the_last_lines_as_clients_count_them(
    bench: Bench, server: str, lines: int | None, count: int
) -> None:
    """Tempest, as Nova, takes what follows the last line break for a line."""
    output = bench.cell.console(server, lines)

    assert len(output.split("\n")) == count
    assert output.endswith("vm login: \n") or lines in (0, 1)


def test_the_console_of_no_guest_is_not_found(bench: Bench, server: str) -> None:
    with pytest.raises(core.errors.NotFound):
        bench.cell.console(new_uuid())


def _is_accepted(bench: Bench, server: str, operation_id: str) -> bool:
    known = bench.agents[0].host.records.operations(server)
    return known is not None and (
        any(waiting.act.operation_id == operation_id for waiting in known.waiting)
        or known.outcome(operation_id) is not None
        or known.last is not None
    )

"""What the agent keeps on disk."""

import pathlib

import pytest

import core.errors
from compute.records import Intent, Records, Waiting
from messaging.verbs.cell import Outcome
from messaging.verbs.compute import Act, BuildAttempt
from tests.compute.conftest import new_uuid, spec_of

A, B = new_uuid(), new_uuid()


@pytest.fixture
def records(tmp_path: pathlib.Path) -> Records:
    records = Records(tmp_path)
    records.open()
    return records


def again(records: Records) -> Records:
    """As the next agent reads it."""
    records.close()
    fresh = Records(records.directory)
    fresh.open()
    return fresh


def intent(uuid: str, attempt: int) -> Intent:
    return Intent(BuildAttempt(attempt, spec_of(uuid)), "req-1")


def waiting(uuid: str, attempt: int, operation_id: str) -> Waiting:
    return Waiting(Act(uuid, attempt, operation_id, "stop"), "req-1")


def test_intents_outlive_the_agent_and_are_private(records: Records) -> None:
    assert records.accept([intent(A, 1), intent(B, 2)]) == [intent(A, 1), intent(B, 2)]

    assert sorted(again(records).intents(), key=lambda one: one.attempt) == [intent(A, 1), intent(B, 2)]
    assert (records.directory / "intents" / f"{A}.json").stat().st_mode & 0o077 == 0


def test_an_intent_is_accepted_once_and_only_a_newer_one_replaces_it(records: Records) -> None:
    records.accept([intent(A, 2)])

    assert records.accept([intent(A, 2)]) == []
    assert records.accept([intent(A, 1)]) == []
    assert records.accept([intent(A, 3)]) == [intent(A, 3)]
    assert again(records).intents() == [intent(A, 3)]


def test_a_fence_ends_intents_up_to_its_attempt_and_lets_no_such_in(records: Records) -> None:
    records.accept([intent(A, 1), intent(B, 3)])

    records.give_up({A: 1, B: 2})

    assert records.intents() == [intent(B, 3)]
    assert records.accept([intent(A, 1)]) == []
    assert records.accept([intent(A, 2)]) == [intent(A, 2)]
    assert (again(records).fence(A), records.fence(B)) == (1, 2)


def test_fences_only_rise(records: Records) -> None:
    records.give_up({A: 5})
    records.give_up({A: 3})

    assert again(records).fence(A) == 5
    assert [path.name for path in (records.directory / "fences").iterdir()] == [f"{A}.5"]


def test_an_intent_that_a_fence_forbids_is_not_taken_up(records: Records) -> None:
    records.accept([intent(A, 1)])
    (records.directory / "fences" / f"{A}.1").touch()  # As if killed between the fence and the end of the intent.

    assert again(records).intents() == []


def test_only_the_reported_attempt_is_cleared(records: Records) -> None:
    records.accept([intent(A, 2)])

    records.clear_intent(A, 1)
    assert records.intents() == [intent(A, 2)]
    records.clear_intent(A, 2)

    assert again(records).intents() == []


def test_an_operation_is_remembered_from_its_order_to_its_report(records: Records) -> None:
    assert records.accept_operation(waiting(A, 1, "op-1"))
    assert records.accept_operation(waiting(A, 1, "op-2"))
    assert not records.accept_operation(waiting(A, 1, "op-1"))
    outcome = Outcome(A, "op-1", power_state=4)

    records.operation_ended(A, 1, outcome)
    records = again(records)
    entry = records.operations(A)
    assert entry is not None
    assert (entry.waiting, entry.last, entry.unreported) == ((waiting(A, 1, "op-2"),), outcome, (outcome,))

    records.operation_reported(A, "op-1")
    entry = again(records).operations(A)
    assert entry is not None
    assert (entry.last, entry.unreported) == (outcome, ())
    assert entry.outcome("op-1") == outcome


def test_operations_of_an_older_attempt_are_forgotten(records: Records) -> None:
    records.accept_operation(waiting(A, 1, "op-1"))

    records.accept_operation(waiting(A, 2, "op-2"))
    assert records.operations(A).waiting == (waiting(A, 2, "op-2"),)
    records.forget_operations(A, 1)
    assert records.operations(A) is not None
    records.forget_operations(A, 2)

    assert again(records).operations(A) is None


def test_operations_of_guests_that_are_here_are_not_purged(records: Records) -> None:
    records.accept_operation(waiting(A, 1, "op-1"))
    records.accept_operation(waiting(B, 1, "op-1"))

    assert records.purge(older_than_s=-10.0, guests={A}) == 1
    assert [entry.uuid for entry in again(records).all_operations()] == [A]


def test_one_agent_at_a_time(records: Records) -> None:
    with pytest.raises(core.errors.Conflict):
        Records(records.directory).open()


def test_a_file_that_cannot_be_read_is_put_aside(records: Records) -> None:
    (records.directory / "intents" / f"{A}.json").write_text("{")

    assert again(records).intents() == []
    assert (records.directory / "intents" / f"{A}.unreadable").exists()


def test_a_disk_that_fails_is_unavailable(records: Records) -> None:
    (records.directory / "intents").rmdir()

    with pytest.raises(core.errors.Unavailable):
        records.accept([intent(A, 1)])
    assert records.intents() == []

"""Every power operation from every state."""

import uuid

import pytest

import core.errors
from compute.deadline import Deadline
from devstack.waiting import wait_until
from lifecycle import states
from lifecycle.actions import OPERATIONS, POWER_OPERATIONS
from objects.build import Guest
from tests.hypervisor.conftest import Bed
from tests.hypervisor.contract.steps import HARD, PAUSE, RESUME, SOFT, START, STOP, SUSPEND, UNPAUSE, spawn

WAY_TO = {"running": [], "off": [STOP], "paused": [PAUSE], "suspended": [SUSPEND]}
# From each state: what each operation makes of the guest; None: it is refused.
TABLE = {
    "running": {START: 1, STOP: 4, SOFT: 1, HARD: 1, PAUSE: 3, UNPAUSE: 1, SUSPEND: 4, RESUME: 1},
    "off": {START: 1, STOP: 4, SOFT: None, HARD: 1, PAUSE: None, UNPAUSE: None, SUSPEND: None, RESUME: None},
    "paused": {START: 1, STOP: 4, SOFT: None, HARD: 1, PAUSE: 3, UNPAUSE: 1, SUSPEND: 4, RESUME: None},
    "suspended": {START: 1, STOP: 4, SOFT: None, HARD: 1, PAUSE: None, UNPAUSE: None, SUSPEND: 4, RESUME: 1},
}
NAMES = {
    "start": START,
    "stop": STOP,
    "reboot-soft": SOFT,
    "reboot-hard": HARD,
    "pause": PAUSE,
    "unpause": UNPAUSE,
    "suspend": SUSPEND,
    "resume": RESUME,
}
# What has a file of its own: it is about a guest's disks or its inside, not its power.
TOLD_APART = {"rebuild", "rescue", "unrescue", "create-image", "create-backup", "change-password", "trigger-crash-dump"}
# A stop and a start under other names: tests/compute/test_acts.py.
UNDER_OTHER_NAMES = {"soft-delete", "restore"}
NOTICE_DEADLINE_S = 10.0


def test_every_operation_of_the_lifecycle_table_is_covered() -> None:
    assert set(NAMES) == set(POWER_OPERATIONS)
    assert set(OPERATIONS) - set(POWER_OPERATIONS) == TOLD_APART | UNDER_OTHER_NAMES


@pytest.mark.parametrize("state", TABLE)
def test_operations(bed: Bed, deadline: Deadline, state: str) -> None:
    """All operations from one state, on one guest: real ones take long to make."""
    spec = bed.spec()
    sizes = sizes_of(spawn(bed, spec))

    for name, act in NAMES.items():
        START(bed.hypervisor, spec.uuid, deadline)
        for step in WAY_TO[state]:
            step(bed.hypervisor, spec.uuid, deadline)
        before = bed.hypervisor.guests.get(spec.uuid)
        expected = TABLE[state][act]
        if expected is None:
            with pytest.raises(core.errors.WrongState):
                act(bed.hypervisor, spec.uuid, deadline)
            assert bed.hypervisor.guests.get(spec.uuid) == before, f"{name} was refused and changed it"
        else:
            assert act(bed.hypervisor, spec.uuid, deadline).power_state == expected, name
            guests = [(guest.power_state, sizes_of(guest)) for guest in bed.hypervisor.guests.all()]
            assert guests == [(expected, sizes)], name


def sizes_of(guest: Guest) -> tuple[int, int, int]:
    """What the host reports as used, whatever the guest does."""
    return guest.vcpus, guest.memory_mib, guest.disk_gib


def test_an_operation_may_be_repeated(bed: Bed, deadline: Deadline) -> None:
    spec = bed.spec()
    spawn(bed, spec)

    for name in (name for name in NAMES if name != "reboot-soft"):
        START(bed.hypervisor, spec.uuid, deadline)
        for step in {"unpause": [PAUSE], "resume": [SUSPEND], "start": [STOP]}.get(name, []):
            step(bed.hypervisor, spec.uuid, deadline)

        first = NAMES[name](bed.hypervisor, spec.uuid, deadline)

        assert NAMES[name](bed.hypervisor, spec.uuid, deadline) == first, name


@pytest.mark.parametrize("name", NAMES)
def test_no_operation_without_a_guest(bed: Bed, deadline: Deadline, name: str) -> None:
    with pytest.raises(core.errors.NotFound):
        NAMES[name](bed.hypervisor, str(uuid.uuid4()), deadline)


def test_a_guest_that_ended_by_itself_is_listed_so_and_can_be_started(bed: Bed, deadline: Deadline) -> None:
    spec = bed.spec()
    spawn(bed, spec)

    bed.crash(spec.uuid)

    off = (states.SHUTDOWN, states.CRASHED)
    wait_until(
        lambda: [guest.power_state in off for guest in bed.hypervisor.guests.all()] == [True],
        what="notice of the guest's end",
        deadline_s=NOTICE_DEADLINE_S,
    )
    assert bed.hypervisor.power.start(spec.uuid, deadline=deadline).power_state == states.RUNNING

"""Guests come, are listed and go."""

import threading
import uuid

import pytest

import core.errors
from compute.deadline import Deadline
from devstack.waiting import wait_until
from lifecycle import states
from tests.hypervisor.conftest import Bed
from tests.hypervisor.contract.steps import STOP, spawn


def test_a_spawned_guest_runs_and_is_listed_with_its_attempt_and_size(bed: Bed) -> None:
    spec = bed.spec()

    guest = spawn(bed, spec, attempt=3)

    assert (guest.uuid, guest.attempt, guest.power_state) == (spec.uuid, 3, states.RUNNING)
    assert (guest.vcpus, guest.memory_mib) == (spec.flavor.vcpus, spec.flavor.memory_mib)
    assert guest.disk_gib == spec.flavor.root_gib + spec.flavor.ephemeral_gib + -(-spec.flavor.swap_mib // 1024)
    assert bed.hypervisor.guests.get(spec.uuid) == guest
    assert bed.hypervisor.guests.all() == [guest]


def test_guests_outlive_the_agent(bed: Bed) -> None:
    guest = spawn(bed, bed.spec())

    bed.restart()

    assert bed.hypervisor.guests.all() == [guest]


def test_spawning_twice_gives_the_same_guest(bed: Bed) -> None:
    spec = bed.spec()

    assert spawn(bed, spec) == spawn(bed, spec)
    assert len(bed.hypervisor.guests.all()) == 1


@pytest.mark.parametrize("attempt", [1, 3])
def test_a_guest_of_another_attempt_is_in_the_way(bed: Bed, attempt: int) -> None:
    spec = bed.spec()
    guest = spawn(bed, spec, attempt=2)

    with pytest.raises(core.errors.Conflict):
        spawn(bed, spec, attempt=attempt)

    assert bed.hypervisor.guests.all() == [guest]


def test_nothing_remains_of_a_destroyed_guest(bed: Bed, deadline: Deadline) -> None:
    spec = bed.spec()
    spawn(bed, spec)

    bed.hypervisor.guests.destroy(spec.uuid, 1, deadline=deadline)

    assert bed.hypervisor.guests.get(spec.uuid) is None
    assert bed.hypervisor.guests.all() == []
    assert bed.remains(spec.uuid) == []


def test_destroying_what_is_not_there_succeeds(bed: Bed, deadline: Deadline) -> None:
    bed.hypervisor.guests.destroy(str(uuid.uuid4()), 7, deadline=deadline)


def test_destroying_older_attempts_leaves_a_later_guest(bed: Bed, deadline: Deadline) -> None:
    spec = bed.spec()
    guest = spawn(bed, spec, attempt=2)

    bed.hypervisor.guests.destroy(spec.uuid, 1, deadline=deadline)

    assert bed.hypervisor.guests.get(spec.uuid) == guest


def test_a_failed_spawn_leaves_nothing_after_destroy(bed: Bed, deadline: Deadline) -> None:
    spec = bed.spec()
    bed.fail_spawns()

    with pytest.raises(core.errors.CellplaneError):
        spawn(bed, spec)
    bed.hypervisor.guests.destroy(spec.uuid, 1, deadline=deadline)

    assert bed.hypervisor.guests.all() == []
    assert bed.remains(spec.uuid) == []


def test_a_failed_spawn_can_be_repeated(bed: Bed) -> None:
    spec = bed.spec()
    bed.fail_spawns()
    with pytest.raises(core.errors.CellplaneError):
        spawn(bed, spec)
    bed.recover()

    assert spawn(bed, spec).power_state == states.RUNNING


def test_a_spawn_ends_soon_after_its_permit_was_taken_back(bed: Bed, deadline: Deadline) -> None:
    spec = bed.spec()
    bed.slow_down()
    raised: list[BaseException] = []

    def build() -> None:
        try:
            bed.hypervisor.guests.spawn(spec, 1, image=bed.image(spec), deadline=deadline)
        except core.errors.CellplaneError as error:
            raised.append(error)

    thread = threading.Thread(target=build)
    thread.start()
    wait_until(lambda: bool(bed.remains(spec.uuid)), what="beginning of the spawn", deadline_s=30.0)
    deadline.revoke("not wanted any more")
    thread.join(10.0)

    assert [type(error) for error in raised] == [core.errors.Conflict]


def test_a_spawn_keeps_its_deadline(bed: Bed) -> None:
    spec = bed.spec()
    bed.slow_down()

    with pytest.raises(core.errors.Unavailable):
        bed.hypervisor.guests.spawn(spec, 1, image=bed.image(spec), deadline=Deadline(attempt=1, deadline_s=0.2))


def test_only_a_guest_that_runs_has_diagnostics(bed: Bed, deadline: Deadline) -> None:
    spec = bed.spec()
    with pytest.raises(core.errors.NotFound):
        bed.hypervisor.guests.diagnostics(spec.uuid)
    guest = spawn(bed, spec)

    diagnostics = bed.hypervisor.guests.diagnostics(spec.uuid)
    assert (diagnostics.power_state, diagnostics.vcpus) == (guest.power_state, guest.vcpus)
    assert diagnostics.memory_maximum_mib == spec.flavor.memory_mib
    assert diagnostics.disks[0].name and len(diagnostics.cpu_times_ns) in (1, guest.vcpus)

    STOP(bed.hypervisor, spec.uuid, deadline)
    with pytest.raises(core.errors.WrongState):
        bed.hypervisor.guests.diagnostics(spec.uuid)

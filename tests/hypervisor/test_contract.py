"""What `compute.hypervisor.Hypervisor` promises, for every driver."""

import pathlib
import threading
import uuid
from collections.abc import Callable

import pytest

import core.errors
from compute.deadline import Deadline
from compute.devices import DiskToAttach, FileSource, NicToAttach
from compute.hypervisor import Hypervisor
from compute.libvirt.image_format import inspect
from devstack.waiting import wait_until
from lifecycle import states
from lifecycle.actions import OPERATIONS, POWER_OPERATIONS
from objects.build import BuildSpec, Guest
from tests.hypervisor.conftest import Bed

Act = Callable[[Hypervisor, str, Deadline], Guest]

START: Act = lambda hypervisor, server, deadline: hypervisor.start(server, deadline=deadline)  # noqa: E731
STOP: Act = lambda hypervisor, server, deadline: hypervisor.stop(server, deadline=deadline)  # noqa: E731
SOFT: Act = lambda hypervisor, server, deadline: hypervisor.reboot(server, hard=False, deadline=deadline)  # noqa: E731
HARD: Act = lambda hypervisor, server, deadline: hypervisor.reboot(server, hard=True, deadline=deadline)  # noqa: E731
PAUSE: Act = lambda hypervisor, server, deadline: hypervisor.pause(server, deadline=deadline)  # noqa: E731
UNPAUSE: Act = lambda hypervisor, server, deadline: hypervisor.unpause(server, deadline=deadline)  # noqa: E731
SUSPEND: Act = lambda hypervisor, server, deadline: hypervisor.suspend(server, deadline=deadline)  # noqa: E731
RESUME: Act = lambda hypervisor, server, deadline: hypervisor.resume(server, deadline=deadline)  # noqa: E731

WAY_TO = {"running": [], "off": [STOP], "paused": [PAUSE], "suspended": [SUSPEND]}
# From each state: what each operation makes of the guest; None: it is refused.
TABLE = {
    "running": {START: 1, STOP: 4, SOFT: 1, HARD: 1, PAUSE: 3, UNPAUSE: 1, SUSPEND: 4, RESUME: 1},
    "off": {START: 1, STOP: 4, SOFT: None, HARD: 1, PAUSE: None, UNPAUSE: None, SUSPEND: None, RESUME: None},
    "paused": {START: 1, STOP: 4, SOFT: None, HARD: 1, PAUSE: 3, UNPAUSE: 1, SUSPEND: 4, RESUME: None},
    "suspended": {START: 1, STOP: 4, SOFT: None, HARD: 1, PAUSE: None, UNPAUSE: None, SUSPEND: 4, RESUME: 1},
}
NAMES = {"start": START, "stop": STOP, "reboot-soft": SOFT, "reboot-hard": HARD, "pause": PAUSE, "unpause": UNPAUSE, "suspend": SUSPEND, "resume": RESUME}
# What has a test of its own below: it is about a guest's disks or its inside, not its power.
TOLD_APART = {"rebuild", "rescue", "unrescue", "create-image", "change-password", "trigger-crash-dump"}
NOTICE_DEADLINE_S = 10.0


def spawn(bed: Bed, spec: BuildSpec, attempt: int = 1) -> Guest:
    return bed.hypervisor.spawn(spec, attempt, image=bed.image(spec), deadline=Deadline(attempt=attempt, deadline_s=60.0))


def test_capacity_is_positive(bed: Bed) -> None:
    capacity = bed.hypervisor.capacity()

    assert capacity.vcpus > 0 and capacity.memory_mib > 0 and capacity.disk_gib > 0
    assert capacity.hypervisor_type


def test_a_spawned_guest_runs_and_is_listed_with_its_attempt_and_size(bed: Bed) -> None:
    spec = bed.spec()

    guest = spawn(bed, spec, attempt=3)

    assert (guest.uuid, guest.attempt, guest.power_state) == (spec.uuid, 3, states.RUNNING)
    assert (guest.vcpus, guest.memory_mib) == (spec.flavor.vcpus, spec.flavor.memory_mib)
    assert guest.disk_gib == spec.flavor.root_gib + spec.flavor.ephemeral_gib + -(-spec.flavor.swap_mib // 1024)
    assert bed.hypervisor.guest(spec.uuid) == guest
    assert bed.hypervisor.guests() == [guest]


def test_guests_outlive_the_agent(bed: Bed) -> None:
    guest = spawn(bed, bed.spec())

    bed.restart()

    assert bed.hypervisor.guests() == [guest]


def test_spawning_twice_gives_the_same_guest(bed: Bed) -> None:
    spec = bed.spec()

    assert spawn(bed, spec) == spawn(bed, spec)
    assert len(bed.hypervisor.guests()) == 1


@pytest.mark.parametrize("attempt", [1, 3])
def test_a_guest_of_another_attempt_is_in_the_way(bed: Bed, attempt: int) -> None:
    spec = bed.spec()
    guest = spawn(bed, spec, attempt=2)

    with pytest.raises(core.errors.Conflict):
        spawn(bed, spec, attempt=attempt)

    assert bed.hypervisor.guests() == [guest]


def test_nothing_remains_of_a_destroyed_guest(bed: Bed, deadline: Deadline) -> None:
    spec = bed.spec()
    spawn(bed, spec)

    bed.hypervisor.destroy(spec.uuid, 1, deadline=deadline)

    assert bed.hypervisor.guest(spec.uuid) is None
    assert bed.hypervisor.guests() == []
    assert bed.remains(spec.uuid) == []


def test_destroying_what_is_not_there_succeeds(bed: Bed, deadline: Deadline) -> None:
    bed.hypervisor.destroy(str(uuid.uuid4()), 7, deadline=deadline)


def test_destroying_older_attempts_leaves_a_later_guest(bed: Bed, deadline: Deadline) -> None:
    spec = bed.spec()
    guest = spawn(bed, spec, attempt=2)

    bed.hypervisor.destroy(spec.uuid, 1, deadline=deadline)

    assert bed.hypervisor.guest(spec.uuid) == guest


def test_a_failed_spawn_leaves_nothing_after_destroy(bed: Bed, deadline: Deadline) -> None:
    spec = bed.spec()
    bed.fail_spawns()

    with pytest.raises(core.errors.CellplaneError):
        spawn(bed, spec)
    bed.hypervisor.destroy(spec.uuid, 1, deadline=deadline)

    assert bed.hypervisor.guests() == []
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
            bed.hypervisor.spawn(spec, 1, image=bed.image(spec), deadline=deadline)
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
        bed.hypervisor.spawn(spec, 1, image=bed.image(spec), deadline=Deadline(attempt=1, deadline_s=0.2))


def test_every_operation_of_the_lifecycle_table_is_covered() -> None:
    assert set(NAMES) == set(POWER_OPERATIONS)
    assert set(OPERATIONS) - set(POWER_OPERATIONS) == TOLD_APART


@pytest.mark.parametrize("state", TABLE)
def test_operations(bed: Bed, deadline: Deadline, state: str) -> None:
    """All operations from one state, on one guest: real ones take long to make."""
    spec = bed.spec()
    sizes = sizes_of(spawn(bed, spec))

    for name, act in NAMES.items():
        START(bed.hypervisor, spec.uuid, deadline)
        for step in WAY_TO[state]:
            step(bed.hypervisor, spec.uuid, deadline)
        before = bed.hypervisor.guest(spec.uuid)
        expected = TABLE[state][act]
        if expected is None:
            with pytest.raises(core.errors.WrongState):
                act(bed.hypervisor, spec.uuid, deadline)
            assert bed.hypervisor.guest(spec.uuid) == before, f"{name} was refused and changed it"
        else:
            assert act(bed.hypervisor, spec.uuid, deadline).power_state == expected, name
            assert [(guest.power_state, sizes_of(guest)) for guest in bed.hypervisor.guests()] == [(expected, sizes)], name


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

    wait_until(
        lambda: [guest.power_state in (states.SHUTDOWN, states.CRASHED) for guest in bed.hypervisor.guests()] == [True],
        what="notice of the guest's end",
        deadline_s=NOTICE_DEADLINE_S,
    )
    assert bed.hypervisor.start(spec.uuid, deadline=deadline).power_state == states.RUNNING


def test_a_rebuilt_guest_keeps_its_attempt(bed: Bed, deadline: Deadline) -> None:
    spec = bed.spec()
    guest = spawn(bed, spec, attempt=2)

    for _ in range(2):
        assert bed.hypervisor.rebuild(spec, image=bed.image(spec), deadline=deadline) == guest

    assert bed.hypervisor.guests() == [guest]


def test_a_rescued_guest_runs_and_is_itself_again(bed: Bed, deadline: Deadline) -> None:
    spec = bed.spec()
    guest = spawn(bed, spec)
    STOP(bed.hypervisor, spec.uuid, deadline)

    for _ in range(2):
        assert bed.hypervisor.rescue(spec.uuid, image=bed.image(spec), disk_format="qcow2", deadline=deadline) == guest
    for _ in range(2):
        assert bed.hypervisor.unrescue(spec.uuid, deadline=deadline) == guest

    bed.hypervisor.rescue(spec.uuid, image=bed.image(spec), disk_format="qcow2", deadline=deadline)
    bed.hypervisor.destroy(spec.uuid, 1, deadline=deadline)
    assert bed.remains(spec.uuid) == []


def test_a_snapshot_is_an_image_and_leaves_the_guest_as_it_was(bed: Bed, deadline: Deadline, tmp_path: pathlib.Path) -> None:
    spec, target = bed.spec(), tmp_path / "snapshot"
    spawn(bed, spec)

    for step in ([], [PAUSE], [STOP]):
        for act in step:
            act(bed.hypervisor, spec.uuid, deadline)
        before = bed.hypervisor.guest(spec.uuid)
        for _ in range(2):
            bed.hypervisor.snapshot(spec.uuid, target=target, deadline=deadline)
        assert inspect(target, said="qcow2").virtual_bytes >= spec.flavor.root_gib * 1024**3
        assert bed.hypervisor.guest(spec.uuid) == before


def new_disk(path: pathlib.Path) -> DiskToAttach:
    with path.open("wb") as file:
        file.truncate(4 * 1024**2)
    return DiskToAttach(volume_id=str(uuid.uuid4()), source=FileSource(path=path))


def new_nic() -> NicToAttach:
    part = uuid.uuid4().hex[:6]
    return NicToAttach(mac=f"fa:16:3e:{part[:2]}:{part[2:4]}:{part[4:]}", kind="ethernet", tap=f"tap{part}")


def test_disks_and_cards_come_to_a_guest_and_go(bed: Bed, tmp_path: pathlib.Path) -> None:
    spec, hypervisor = bed.spec(), bed.hypervisor
    server, disk, other, nic = spec.uuid, new_disk(tmp_path / "volume"), new_disk(tmp_path / "other"), new_nic()
    guest = spawn(bed, spec)
    bed.wait_until_up(server)
    deadline = Deadline(attempt=1, deadline_s=180.0)

    for _ in range(2):
        name = hypervisor.attach_disk(server, disk, deadline=deadline)
        hypervisor.attach_nic(server, nic, deadline=deadline)
        assert bed.attached(server) == {disk.volume_id, nic.mac}
    assert hypervisor.attach_disk(server, other, deadline=deadline) != name
    assert [known.mac_address for known in hypervisor.diagnostics(server).nics] == [nic.mac]
    for _ in range(2):
        hypervisor.detach_disk(server, disk.volume_id, deadline=deadline)
        hypervisor.detach_nic(server, nic.mac, deadline=deadline)
        assert bed.attached(server) == {other.volume_id}

    PAUSE(hypervisor, server, deadline)
    with pytest.raises(core.errors.Conflict):
        hypervisor.detach_disk(server, other.volume_id, deadline=deadline)
    assert bed.attached(server) == {other.volume_id}, "it is not there any more, though it was said that it is"
    assert hypervisor.stop(server, deadline=deadline).power_state == states.SHUTDOWN

    hypervisor.attach_disk(server, disk, deadline=deadline)
    hypervisor.attach_nic(server, nic, deadline=deadline)
    hypervisor.detach_disk(server, other.volume_id, deadline=deadline)
    assert START(hypervisor, server, deadline) == guest
    assert bed.attached(server) == {disk.volume_id, nic.mac}
    assert hypervisor.rebuild(spec, image=bed.image(spec), deadline=deadline) == guest
    assert bed.attached(server) == {disk.volume_id, nic.mac}, "a rebuilt guest lost what was attached to it"


def test_the_devices_of_a_guest_that_is_saved_or_rescued_stay(bed: Bed, deadline: Deadline, tmp_path: pathlib.Path) -> None:
    spec, disk = bed.spec(), new_disk(tmp_path / "volume")
    spawn(bed, spec)
    SUSPEND(bed.hypervisor, spec.uuid, deadline)
    with pytest.raises(core.errors.WrongState):
        bed.hypervisor.attach_disk(spec.uuid, disk, deadline=deadline)
    bed.hypervisor.rescue(spec.uuid, image=bed.image(spec), disk_format="qcow2", deadline=deadline)
    for act in (
        lambda: bed.hypervisor.attach_disk(spec.uuid, disk, deadline=deadline),
        lambda: bed.hypervisor.detach_disk(spec.uuid, disk.volume_id, deadline=deadline),
        lambda: bed.hypervisor.attach_nic(spec.uuid, new_nic(), deadline=deadline),
        lambda: bed.hypervisor.detach_nic(spec.uuid, new_nic().mac, deadline=deadline),
    ):
        with pytest.raises(core.errors.WrongState):
            act()


def test_only_images_under_a_guests_disks_are_in_use(bed: Bed, deadline: Deadline) -> None:
    spec = bed.spec()
    image = bed.image(spec)
    spawn(bed, spec)

    assert bed.hypervisor.images_in_use() == ({image} if bed.hypervisor.wants_image_files else set())

    bed.hypervisor.destroy(spec.uuid, 1, deadline=deadline)
    assert bed.hypervisor.images_in_use() == set()


def test_what_only_a_running_guest_tells(bed: Bed, deadline: Deadline) -> None:
    spec = bed.spec()
    guest = spawn(bed, spec)

    found = bed.hypervisor.diagnostics(spec.uuid)
    assert (found.power_state, found.vcpus) == (guest.power_state, guest.vcpus)
    assert found.memory_maximum_mib == spec.flavor.memory_mib
    assert found.disks[0].name and len(found.cpu_times_ns) in (1, guest.vcpus)
    assert [address.kind for address in bed.hypervisor.console_addresses(spec.uuid)] == list(bed.console_kinds)
    bed.hypervisor.inject_nmi(spec.uuid, deadline=deadline)

    STOP(bed.hypervisor, spec.uuid, deadline)
    for ask in (bed.hypervisor.diagnostics, bed.hypervisor.console_addresses):
        with pytest.raises(core.errors.WrongState):
            ask(spec.uuid)
    with pytest.raises(core.errors.WrongState):
        bed.hypervisor.inject_nmi(spec.uuid, deadline=deadline)
    with pytest.raises(core.errors.WrongState):
        bed.hypervisor.set_password(spec.uuid, user="root", password="secret", deadline=deadline)


def test_without_a_guest_there_is_nothing_to_do_it_with(bed: Bed, deadline: Deadline, tmp_path: pathlib.Path) -> None:
    spec, hypervisor = bed.spec(), bed.hypervisor
    image = bed.image(spec)
    for act in (
        lambda: hypervisor.rebuild(spec, image=image, deadline=deadline),
        lambda: hypervisor.rescue(spec.uuid, image=image, disk_format="qcow2", deadline=deadline),
        lambda: hypervisor.unrescue(spec.uuid, deadline=deadline),
        lambda: hypervisor.snapshot(spec.uuid, target=tmp_path / "snapshot", deadline=deadline),
        lambda: hypervisor.inject_nmi(spec.uuid, deadline=deadline),
        lambda: hypervisor.set_password(spec.uuid, user="root", password="secret", deadline=deadline),
        lambda: hypervisor.attach_disk(spec.uuid, new_disk(tmp_path / "volume"), deadline=deadline),
        lambda: hypervisor.detach_disk(spec.uuid, "any", deadline=deadline),
        lambda: hypervisor.attach_nic(spec.uuid, new_nic(), deadline=deadline),
        lambda: hypervisor.detach_nic(spec.uuid, "any", deadline=deadline),
        lambda: hypervisor.console_addresses(spec.uuid),
        lambda: hypervisor.diagnostics(spec.uuid),
    ):
        with pytest.raises(core.errors.NotFound):
            act()


def test_the_console_shows_that_the_guest_is_ready_and_who_it_is(bed: Bed) -> None:
    spec = bed.spec()
    spawn(bed, spec)

    wait_until(lambda: f"uuid={spec.uuid}" in bed.hypervisor.console_log(spec.uuid), what="ready line", deadline_s=60.0)

    assert f"hostname={spec.hostname}" in bed.hypervisor.console_log(spec.uuid)


def test_the_console_of_no_guest_is_not_found(bed: Bed) -> None:
    with pytest.raises(core.errors.NotFound):
        bed.hypervisor.console_log(str(uuid.uuid4()))


def test_the_hypervisor_may_be_closed_twice(bed: Bed) -> None:
    bed.hypervisor.close()
    bed.hypervisor.close()

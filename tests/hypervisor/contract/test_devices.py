"""Disks and network cards come to a guest and go."""

import pathlib

import pytest

import core.errors
from compute.deadline import Deadline
from lifecycle import states
from tests.hypervisor.conftest import Bed
from tests.hypervisor.contract.steps import PAUSE, START, SUSPEND, new_disk, new_nic, spawn


def test_disks_and_cards_come_to_a_guest_and_go(bed: Bed, tmp_path: pathlib.Path) -> None:
    spec, hypervisor = bed.spec(), bed.hypervisor
    server, disk, other, nic = spec.uuid, new_disk(tmp_path / "volume"), new_disk(tmp_path / "other"), new_nic()
    guest = spawn(bed, spec)
    bed.wait_until_up(server)
    deadline = Deadline(attempt=1, deadline_s=180.0)

    for _ in range(2):
        name = hypervisor.devices.attach_disk(server, disk, deadline=deadline)
        hypervisor.devices.attach_nic(server, nic, deadline=deadline)
        assert bed.attached(server) == {disk.volume_id, nic.mac}
    assert hypervisor.devices.attach_disk(server, other, deadline=deadline) != name
    assert [known.mac_address for known in hypervisor.guests.diagnostics(server).nics] == [nic.mac]
    for _ in range(2):
        hypervisor.devices.detach_disk(server, disk.volume_id, deadline=deadline)
        hypervisor.devices.detach_nic(server, nic.mac, deadline=deadline)
        assert bed.attached(server) == {other.volume_id}

    PAUSE(hypervisor, server, deadline)
    with pytest.raises(core.errors.Conflict):
        hypervisor.devices.detach_disk(server, other.volume_id, deadline=deadline)
    assert bed.attached(server) == {other.volume_id}, "it is not there any more, though it was said that it is"
    assert hypervisor.power.stop(server, deadline=deadline).power_state == states.SHUTDOWN

    hypervisor.devices.attach_disk(server, disk, deadline=deadline)
    hypervisor.devices.attach_nic(server, nic, deadline=deadline)
    hypervisor.devices.detach_disk(server, other.volume_id, deadline=deadline)
    assert START(hypervisor, server, deadline) == guest
    assert bed.attached(server) == {disk.volume_id, nic.mac}
    assert hypervisor.disks.rebuild(spec, image=bed.image(spec), deadline=deadline) == guest
    assert bed.attached(server) == {disk.volume_id, nic.mac}, "a rebuilt guest lost what was attached to it"


def test_the_devices_of_a_guest_that_is_saved_or_rescued_stay(
    bed: Bed, deadline: Deadline, tmp_path: pathlib.Path
) -> None:
    spec, disk = bed.spec(), new_disk(tmp_path / "volume")
    spawn(bed, spec)
    SUSPEND(bed.hypervisor, spec.uuid, deadline)
    with pytest.raises(core.errors.WrongState):
        bed.hypervisor.devices.attach_disk(spec.uuid, disk, deadline=deadline)
    bed.hypervisor.disks.rescue(spec.uuid, image=bed.image(spec), disk_format="qcow2", deadline=deadline)
    for act in (
        lambda: bed.hypervisor.devices.attach_disk(spec.uuid, disk, deadline=deadline),
        lambda: bed.hypervisor.devices.detach_disk(spec.uuid, disk.volume_id, deadline=deadline),
        lambda: bed.hypervisor.devices.attach_nic(spec.uuid, new_nic(), deadline=deadline),
        lambda: bed.hypervisor.devices.detach_nic(spec.uuid, new_nic().mac, deadline=deadline),
    ):
        with pytest.raises(core.errors.WrongState):
            act()


def test_the_devices_of_no_guest_are_not_found(bed: Bed, deadline: Deadline, tmp_path: pathlib.Path) -> None:
    spec, devices = bed.spec(), bed.hypervisor.devices
    for act in (
        lambda: devices.attach_disk(spec.uuid, new_disk(tmp_path / "volume"), deadline=deadline),
        lambda: devices.detach_disk(spec.uuid, "any", deadline=deadline),
        lambda: devices.attach_nic(spec.uuid, new_nic(), deadline=deadline),
        lambda: devices.detach_nic(spec.uuid, "any", deadline=deadline),
    ):
        with pytest.raises(core.errors.NotFound):
            act()

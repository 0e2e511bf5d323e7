"""Guests are rebuilt and rescued, and keep the images that they need."""

import pytest

import core.errors
from compute.deadline import Deadline
from tests.hypervisor.conftest import Bed
from tests.hypervisor.contract.steps import STOP, spawn


def test_a_rebuilt_guest_keeps_its_attempt(bed: Bed, deadline: Deadline) -> None:
    spec = bed.spec()
    guest = spawn(bed, spec, attempt=2)

    for _ in range(2):
        assert bed.hypervisor.disks.rebuild(spec, image=bed.image(spec), deadline=deadline) == guest

    assert bed.hypervisor.guests.all() == [guest]


def test_a_rescued_guest_runs_and_is_itself_again(bed: Bed, deadline: Deadline) -> None:
    spec, disks = bed.spec(), bed.hypervisor.disks
    guest = spawn(bed, spec)
    STOP(bed.hypervisor, spec.uuid, deadline)

    for _ in range(2):
        assert disks.rescue(spec.uuid, image=bed.image(spec), disk_format="qcow2", deadline=deadline) == guest
    for _ in range(2):
        assert disks.unrescue(spec.uuid, deadline=deadline) == guest

    disks.rescue(spec.uuid, image=bed.image(spec), disk_format="qcow2", deadline=deadline)
    bed.hypervisor.guests.destroy(spec.uuid, 1, deadline=deadline)
    assert bed.remains(spec.uuid) == []


def test_only_images_under_a_guests_disks_are_in_use(bed: Bed, deadline: Deadline) -> None:
    spec = bed.spec()
    image = bed.image(spec)
    spawn(bed, spec)

    assert bed.hypervisor.disks.images_in_use() == ({image} if bed.hypervisor.wants_image_files else set())

    bed.hypervisor.guests.destroy(spec.uuid, 1, deadline=deadline)
    assert bed.hypervisor.disks.images_in_use() == set()


def test_the_disks_of_no_guest_are_not_found(bed: Bed, deadline: Deadline) -> None:
    spec, disks = bed.spec(), bed.hypervisor.disks
    image = bed.image(spec)
    for act in (
        lambda: disks.rebuild(spec, image=image, deadline=deadline),
        lambda: disks.rescue(spec.uuid, image=image, disk_format="qcow2", deadline=deadline),
        lambda: disks.unrescue(spec.uuid, deadline=deadline),
    ):
        with pytest.raises(core.errors.NotFound):
            act()

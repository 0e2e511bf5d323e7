"""Images of a guest's root disk."""

import pathlib

import pytest

import core.errors
from compute.deadline import Deadline
from compute.libvirt.image_format import inspect
from tests.hypervisor.conftest import Bed
from tests.hypervisor.contract.steps import PAUSE, STOP, spawn


def test_a_snapshot_is_an_image_and_leaves_the_guest_as_it_was(
    bed: Bed, deadline: Deadline, tmp_path: pathlib.Path
) -> None:
    spec, target = bed.spec(), tmp_path / "snapshot"
    spawn(bed, spec)

    for step in ([], [PAUSE], [STOP]):
        for act in step:
            act(bed.hypervisor, spec.uuid, deadline)
        before = bed.hypervisor.guests.get(spec.uuid)
        for _ in range(2):
            bed.hypervisor.snapshots.take(spec.uuid, target=target, deadline=deadline)
        assert inspect(target, said="qcow2").virtual_bytes >= spec.flavor.root_gib * 1024**3
        assert bed.hypervisor.guests.get(spec.uuid) == before


def test_no_guest_has_no_snapshot(bed: Bed, deadline: Deadline, tmp_path: pathlib.Path) -> None:
    with pytest.raises(core.errors.NotFound):
        bed.hypervisor.snapshots.take(bed.spec().uuid, target=tmp_path / "snapshot", deadline=deadline)

"""What is asked of the operating system in a guest."""

import pytest

import core.errors
from compute.deadline import Deadline
from tests.hypervisor.conftest import Bed
from tests.hypervisor.contract.steps import STOP, spawn


def test_an_interrupt_reaches_a_guest_that_runs(bed: Bed, deadline: Deadline) -> None:
    spec = bed.spec()
    spawn(bed, spec)

    bed.hypervisor.operating_system.inject_nmi(spec.uuid, deadline=deadline)

    STOP(bed.hypervisor, spec.uuid, deadline)
    with pytest.raises(core.errors.WrongState):
        bed.hypervisor.operating_system.inject_nmi(spec.uuid, deadline=deadline)
    with pytest.raises(core.errors.WrongState):
        bed.hypervisor.operating_system.set_password(spec.uuid, user="root", password="secret", deadline=deadline)


def test_the_operating_system_of_no_guest_is_not_found(bed: Bed, deadline: Deadline) -> None:
    spec, system = bed.spec(), bed.hypervisor.operating_system
    with pytest.raises(core.errors.NotFound):
        system.inject_nmi(spec.uuid, deadline=deadline)
    with pytest.raises(core.errors.NotFound):
        system.set_password(spec.uuid, user="root", password="secret", deadline=deadline)

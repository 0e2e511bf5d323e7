"""Where a guest is seen, and what it wrote."""

import uuid

import pytest

import core.errors
from compute.deadline import Deadline
from devstack.waiting import wait_until
from tests.hypervisor.conftest import Bed
from tests.hypervisor.contract.steps import STOP, spawn


def test_the_console_shows_that_the_guest_is_ready_and_who_it_is(bed: Bed) -> None:
    spec = bed.spec()
    spawn(bed, spec)

    consoles = bed.hypervisor.consoles
    wait_until(lambda: f"uuid={spec.uuid}" in consoles.log(spec.uuid), what="ready line", deadline_s=60.0)

    assert f"hostname={spec.hostname}" in consoles.log(spec.uuid)


def test_the_console_of_no_guest_is_not_found(bed: Bed) -> None:
    with pytest.raises(core.errors.NotFound):
        bed.hypervisor.consoles.log(str(uuid.uuid4()))
    with pytest.raises(core.errors.NotFound):
        bed.hypervisor.consoles.addresses(str(uuid.uuid4()))


def test_only_a_guest_that_runs_has_consoles(bed: Bed, deadline: Deadline) -> None:
    spec = bed.spec()
    spawn(bed, spec)

    assert [address.kind for address in bed.hypervisor.consoles.addresses(spec.uuid)] == list(bed.console_kinds)

    STOP(bed.hypervisor, spec.uuid, deadline)
    with pytest.raises(core.errors.WrongState):
        bed.hypervisor.consoles.addresses(spec.uuid)

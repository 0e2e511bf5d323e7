"""The hypervisor as a whole: its capacity, its connection."""

from tests.hypervisor.conftest import Bed


def test_capacity_is_positive(bed: Bed) -> None:
    capacity = bed.hypervisor.capacity()

    assert capacity.vcpus > 0 and capacity.memory_mib > 0 and capacity.disk_gib > 0
    assert capacity.hypervisor_type


def test_the_hypervisor_may_be_closed_twice(bed: Bed) -> None:
    bed.hypervisor.close()
    bed.hypervisor.close()

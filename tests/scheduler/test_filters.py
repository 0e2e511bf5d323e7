"""Every filter as a table: what is asked, what the host is, and why it will not do ("" if it will)."""

from typing import Any

import pytest

import core.errors
from scheduler import filters
from scheduler.hosts import AggregateState
from scheduler.request import Group, Hints
from tests.scheduler.hosts import host, request


def in_aggregate(**metadata: str) -> dict[str, Any]:
    return {"aggregates": (AggregateState("aggregate", "aggregate", metadata),)}


GOLD = in_aggregate(tier="gold, silver")
ROWS: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("ComputeFilter", {}, {}, ""),
    ("ComputeFilter", {}, {"up": False}, "down"),
    ("ComputeFilter", {}, {"forced_down": True}, "down"),
    ("ComputeFilter", {}, {"disabled": True}, "disabled"),
    ("ComputeFilter", {}, {"traits": frozenset({"COMPUTE_STATUS_DISABLED"})}, "disabled"),
    ("ComputeFilter", {}, {"cleanups_open": True}, "still being cleaned up"),
    ("TargetHostFilter", {}, {}, ""),
    ("TargetHostFilter", {"target_host": "host-1"}, {}, ""),
    ("TargetHostFilter", {"target_host": "host-2"}, {}, "not host-2"),
    ("TargetHostFilter", {"target_node": "host-1.example.org"}, {}, ""),
    ("TargetHostFilter", {"target_host": "host-1", "target_node": "other"}, {}, "not host-1 other"),
    ("TargetHostFilter", {"excluded_hosts": frozenset({"host-1"})}, {}, "already tried"),
    ("TargetHostFilter", {"excluded_hosts": frozenset({"host-2"})}, {}, ""),
    ("AvailabilityZoneFilter", {}, {}, ""),
    ("AvailabilityZoneFilter", {"availability_zone": "nova"}, {}, ""),
    ("AvailabilityZoneFilter", {"availability_zone": "mars"}, {}, "zone 'mars'"),
    ("AvailabilityZoneFilter", {"availability_zone": "mars"}, {"availability_zone": "mars"}, ""),
    ("CapacityFilter", {}, {}, ""),
    ("CapacityFilter", {"resources": {"VCPU": 1}}, {"used_vcpus": 63}, ""),
    ("CapacityFilter", {"resources": {"VCPU": 1}}, {"used_vcpus": 64}, "not enough vCPUs"),
    ("CapacityFilter", {"resources": {"VCPU": 17}}, {}, "not enough vCPUs"),
    ("CapacityFilter", {"resources": {"MEMORY_MB": 1024}}, {"used_memory_mib": 15360}, ""),
    ("CapacityFilter", {"resources": {"MEMORY_MB": 1025}}, {"used_memory_mib": 15360}, "not enough memory"),
    ("CapacityFilter", {"resources": {"MEMORY_MB": 16384}}, {"reserved_memory_mib": 512}, "not enough memory"),
    (
        "CapacityFilter",
        {"resources": {"MEMORY_MB": 16384}},
        {"reserved_memory_mib": 512, "ram_allocation_ratio": 1.5},
        "",
    ),
    ("CapacityFilter", {"resources": {"MEMORY_MB": 16385}}, {"ram_allocation_ratio": 1.5}, "not enough memory"),
    ("CapacityFilter", {"resources": {"DISK_GB": 201}}, {"disk_allocation_ratio": 2.0}, "not enough disk"),
    ("CapacityFilter", {"resources": {"VCPU": 1}}, {"used_disk_gib": 300}, ""),
    ("CapacityFilter", {"resources": {"CUSTOM_FPGA": 1}}, {}, "not enough CUSTOM_FPGA"),
    ("CapacityFilter", {"resources": {"CUSTOM_FPGA": 1}}, {"others_free": {"CUSTOM_FPGA": 1}}, ""),
    (
        "CapacityFilter",
        {"resources": {"CUSTOM_FPGA": 2}},
        {"others_free": {"CUSTOM_FPGA": 1}},
        "not enough CUSTOM_FPGA",
    ),
    ("TraitsFilter", {}, {}, ""),
    ("TraitsFilter", {"extra_specs": {"trait:HW_CPU_X86_AVX": "required"}}, {}, "lacks HW_CPU_X86_AVX"),
    (
        "TraitsFilter",
        {"extra_specs": {"trait:HW_CPU_X86_AVX": "required"}},
        {"traits": frozenset({"HW_CPU_X86_AVX"})},
        "",
    ),
    ("TraitsFilter", {"extra_specs": {"trait1:CUSTOM_A": "required"}}, {}, "lacks CUSTOM_A"),
    (
        "TraitsFilter",
        {"extra_specs": {"trait:CUSTOM_A": "forbidden"}},
        {"traits": frozenset({"CUSTOM_A"})},
        "has CUSTOM_A",
    ),
    ("TraitsFilter", {"extra_specs": {"trait:CUSTOM_A": "forbidden"}}, {}, ""),
    ("TraitsFilter", {"image_properties": {"trait:CUSTOM_A": "required"}}, {}, "lacks CUSTOM_A"),
    ("ImagePropertiesFilter", {}, {"architectures": frozenset({"x86_64"})}, ""),
    (
        "ImagePropertiesFilter",
        {"image_properties": {"hw_architecture": "x86_64"}},
        {"architectures": frozenset({"x86_64"})},
        "",
    ),
    (
        "ImagePropertiesFilter",
        {"image_properties": {"architecture": "arm64"}},
        {"architectures": frozenset({"aarch64"})},
        "",
    ),
    (
        "ImagePropertiesFilter",
        {"image_properties": {"hw_architecture": "s390x"}},
        {"architectures": frozenset({"x86_64"})},
        "image is for s390x",
    ),
    ("ImagePropertiesFilter", {"image_properties": {"hw_architecture": "s390x"}}, {}, ""),
    ("ImagePropertiesFilter", {"image_properties": {"img_hv_type": "kvm"}}, {"hypervisor_type": "QEMU"}, ""),
    (
        "ImagePropertiesFilter",
        {"image_properties": {"img_hv_type": "vmware"}},
        {"hypervisor_type": "QEMU"},
        "image is for vmware",
    ),
    ("AggregateInstanceExtraSpecsFilter", {}, GOLD, ""),
    ("AggregateInstanceExtraSpecsFilter", {"extra_specs": {"aggregate_instance_extra_specs:tier": "gold"}}, GOLD, ""),
    (
        "AggregateInstanceExtraSpecsFilter",
        {"extra_specs": {"aggregate_instance_extra_specs:tier": "<or> iron <or> silver"}},
        GOLD,
        "",
    ),
    (
        "AggregateInstanceExtraSpecsFilter",
        {"extra_specs": {"aggregate_instance_extra_specs:tier": "iron"}},
        GOLD,
        "no aggregate with tier iron",
    ),
    (
        "AggregateInstanceExtraSpecsFilter",
        {"extra_specs": {"aggregate_instance_extra_specs:tier": "gold"}},
        {},
        "no aggregate with tier gold",
    ),
    ("AggregateInstanceExtraSpecsFilter", {"extra_specs": {"hw:mem_page_size": "large"}}, GOLD, ""),
    ("AggregateMultiTenancyIsolation", {}, {}, ""),
    ("AggregateMultiTenancyIsolation", {}, GOLD, ""),
    ("AggregateMultiTenancyIsolation", {}, in_aggregate(filter_tenant_id="red, blue"), ""),
    ("AggregateMultiTenancyIsolation", {}, in_aggregate(filter_tenant_id="red", filter_tenant_id_2="blue"), ""),
    ("AggregateMultiTenancyIsolation", {}, in_aggregate(filter_tenant_id="red"), "for other projects"),
    ("AggregateTypeAffinityFilter", {"flavor_name": "m1.small"}, in_aggregate(instance_type="m1.tiny,m1.small"), ""),
    (
        "AggregateTypeAffinityFilter",
        {"flavor_name": "m1.huge"},
        in_aggregate(instance_type="m1.tiny"),
        "for other flavors",
    ),
    ("NumInstancesFilter", {}, {"servers": 49}, ""),
    ("NumInstancesFilter", {}, {"servers": 50}, "too many servers"),
    ("NumInstancesFilter", {}, {"servers": 50, **in_aggregate(max_instances_per_host="60")}, ""),
    ("NumInstancesFilter", {}, {"servers": 5, **in_aggregate(max_instances_per_host="5")}, "too many servers"),
    ("NumInstancesFilter", {}, {"servers": 5, **in_aggregate(max_instances_per_host="few")}, ""),
    ("IoOpsFilter", {}, {"io_ops": 7}, ""),
    ("IoOpsFilter", {}, {"io_ops": 8}, "too busy"),
    (
        "ComputeCapabilitiesFilter",
        {"extra_specs": {"capabilities:hypervisor_type": "s== QEMU"}},
        {"hypervisor_type": "QEMU"},
        "",
    ),
    ("ComputeCapabilitiesFilter", {"extra_specs": {"capabilities:vcpus_total": ">= 16"}}, {}, ""),
    (
        "ComputeCapabilitiesFilter",
        {"extra_specs": {"capabilities:vcpus_total": ">= 17"}},
        {},
        "capability vcpus_total is not >= 17",
    ),
    ("ComputeCapabilitiesFilter", {"extra_specs": {"capabilities:moon": "full"}}, {}, "capability moon is not full"),
    ("ServerGroupAntiAffinityFilter", {}, {}, ""),
    ("ServerGroupAntiAffinityFilter", {"group": Group("anti-affinity")}, {}, ""),
    (
        "ServerGroupAntiAffinityFilter",
        {"group": Group("anti-affinity", {"host-1": 1})},
        {},
        "holds members of the group",
    ),
    ("ServerGroupAntiAffinityFilter", {"group": Group("anti-affinity", {"host-1": 1}, most_per_host=2)}, {}, ""),
    ("ServerGroupAntiAffinityFilter", {"group": Group("affinity", {"host-1": 1})}, {}, ""),
    ("ServerGroupAffinityFilter", {"group": Group("affinity")}, {}, ""),
    ("ServerGroupAffinityFilter", {"group": Group("affinity", {"host-1": 3})}, {}, ""),
    ("ServerGroupAffinityFilter", {"group": Group("affinity", {"host-2": 3})}, {}, "holds no member of the group"),
    ("SameHostFilter", {"hints": Hints(same_hosts=frozenset({"host-1"}))}, {}, ""),
    ("SameHostFilter", {"hints": Hints(same_hosts=frozenset())}, {}, "hint same_host"),
    ("DifferentHostFilter", {"hints": Hints(different_hosts=frozenset({"host-1"}))}, {}, "hint different_host"),
    ("DifferentHostFilter", {"hints": Hints(different_hosts=frozenset({"host-2"}))}, {}, ""),
]


@pytest.mark.parametrize(("name", "asked", "is_so", "reason"), ROWS)
def test_a_filter_tells_why_not(name: str, asked: dict[str, Any], is_so: dict[str, Any], reason: str) -> None:
    check = filters.FILTERS[name].prepare(request(**asked))

    assert (check(host(**is_so)) if check else "") == reason


def test_every_filter_is_in_the_table() -> None:
    assert {name for name, *_ in ROWS} == set(filters.FILTERS)


@pytest.mark.parametrize("name", sorted(filters.FILTERS))
def test_a_filter_looks_at_no_host_that_it_need_not_look_at(name: str) -> None:
    check = filters.FILTERS[name].prepare(request())

    assert check is None or check(host()) == ""


def test_enabled_filters_come_in_the_order_named() -> None:
    chosen = filters.enabled(["TraitsFilter", "ComputeFilter"])

    assert [one.name for one in chosen] == ["TargetHostFilter", "CapacityFilter", "TraitsFilter", "ComputeFilter"]
    assert filters.enabled([]) == filters.DEFAULT


def test_an_unknown_filter_is_refused() -> None:
    with pytest.raises(core.errors.Invalid, match="MoonFilter"):
        filters.enabled(["ComputeFilter", "MoonFilter"])


@pytest.mark.parametrize(
    ("value", "wanted", "is_so"),
    [
        ("gold", "gold", True),
        ("gold", "gol", False),
        ("", "", True),
        ("4", "= 4", True),
        ("5", "= 4", True),
        ("3", "= 4", False),
        ("4", "== 4.0", True),
        ("5", "!= 4", True),
        ("5", "<= 4", False),
        ("gold", ">= 4", False),
        ("a b", "s== a b", True),
        ("b", "s!= a", True),
        ("b", "s> a", True),
        ("b", "s< a", False),
        ("b", "s<= b", True),
        ("b", "s>= b", True),
        ("avx2,sse", "<in> avx", True),
        ("avx2,sse", "<all-in> avx sse", True),
        ("avx2", "<all-in> avx sse", False),
        ("b", "<or> a <or> b", True),
        ("c", "<or> a <or> b", False),
    ],
)
def test_the_language_of_extra_specs(value: str, wanted: str, is_so: bool) -> None:
    assert filters.operators.matches(value, wanted) is is_so

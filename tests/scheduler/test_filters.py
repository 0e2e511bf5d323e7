"""Every filter as a table: what is asked, what the host is, and why it will not do ("" if it will)."""

from ipaddress import ip_network
from typing import Any

import pytest

import core.errors
from objects.host_query import parse
from scheduler import filters
from scheduler.aggregates import AggregateState
from scheduler.options import FilterOptions
from scheduler.request import Group, Hints
from tests.scheduler.hosts import EAST, WEST, host, request


def in_aggregate(**metadata: str) -> dict[str, Any]:
    return {"aggregates": (AggregateState("aggregate", "aggregate", metadata),)}


GOLD = in_aggregate(tier="gold, silver")
NEAR, PAGES, BOTH = "hint build_near_host_ip", "no such pages of memory", frozenset({4, 2048})
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
    ("TraitsFilter", {"extra_specs": {"trait1:CUSTOM_A": "required", "resources1:VGPU": "1"}}, {}, ""),
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
    ("ImagePropertiesFilter", {"image_properties": {"hw_vm_mode": "hvm"}}, {"hypervisor_type": "QEMU"}, ""),
    (
        "ImagePropertiesFilter",
        {"image_properties": {"hw_vm_mode": "xen"}},
        {"hypervisor_type": "QEMU"},
        "image is for guests of the kind xen",
    ),
    (
        "ImagePropertiesFilter",
        {"image_properties": {"img_hv_requested_version": ">=8.2, <9"}},
        {"hypervisor_type": "QEMU", "hypervisor_version": 8002000},
        "",
    ),
    (
        "ImagePropertiesFilter",
        {"image_properties": {"img_hv_requested_version": ">=8.2.1"}},
        {"hypervisor_type": "QEMU", "hypervisor_version": 8002000},
        "hypervisor has another version",
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
    ("NumInstancesFilter", {}, {"servers": 50, **in_aggregate(max_instances_per_host="60")}, "too many servers"),
    ("AggregateNumInstancesFilter", {}, {"servers": 49}, ""),
    ("AggregateNumInstancesFilter", {}, {"servers": 50}, "too many servers"),
    ("AggregateNumInstancesFilter", {}, {"servers": 50, **in_aggregate(max_instances_per_host="60")}, ""),
    ("AggregateNumInstancesFilter", {}, {"servers": 5, **in_aggregate(max_instances_per_host="5")}, "too many servers"),
    ("AggregateNumInstancesFilter", {}, {"servers": 5, **in_aggregate(max_instances_per_host="few")}, ""),
    ("AggregateNumInstancesFilter", {}, {"servers": 5, **in_aggregate(max_instances_per_host="nan")}, ""),
    ("AggregateIoOpsFilter", {}, {"io_ops": 8}, "too busy"),
    ("AggregateIoOpsFilter", {}, {"io_ops": 8, **in_aggregate(max_io_ops_per_host="9")}, ""),
    ("AggregateIoOpsFilter", {}, {"io_ops": 1, **in_aggregate(max_io_ops_per_host="1")}, "too busy"),
    ("AllHostsFilter", {}, {"up": False}, ""),
    ("MetricsFilter", {}, {}, ""),
    ("DedicatedHostFilter", {}, {}, ""),
    ("DedicatedHostFilter", {}, {"dedicated_to": "blue"}, ""),
    ("DedicatedHostFilter", {}, {"dedicated_to": "red"}, "dedicated to another project"),
    ("CandidatesFilter", {}, {}, ""),
    ("CandidatesFilter", {"candidates": frozenset({"node-of-host-1"})}, {}, ""),
    ("CandidatesFilter", {"candidates": frozenset()}, {}, "not among Placement's candidates"),
    ("CapacityFilter", {"resources": {"CUSTOM_FPGA": 9}, "candidates": frozenset()}, {}, ""),
    ("TargetCellFilter", {}, {}, ""),
    ("TargetCellFilter", {"target_cell": EAST}, {}, ""),
    ("TargetCellFilter", {"target_cell": WEST}, {}, "hint target_cell"),
    ("DifferentCellFilter", {"different_cells": frozenset({WEST})}, {}, ""),
    ("DifferentCellFilter", {"different_cells": frozenset({EAST})}, {}, "hint different_cell"),
    ("JsonFilter", {}, {}, ""),
    ("JsonFilter", {"query": parse('[">=", "$free_ram_mb", 16384]')}, {}, ""),
    ("JsonFilter", {"query": parse('[">", "$free_ram_mb", 16384]')}, {}, "hint query"),
    ("JsonFilter", {"query": parse('["=", "$hypervisor_type", 5]')}, {"hypervisor_type": "QEMU"}, "hint query"),
    ("SimpleCIDRAffinityFilter", {}, {}, ""),
    ("SimpleCIDRAffinityFilter", {"near": ip_network("192.0.2.0/24")}, {"host_ip": "192.0.2.77"}, ""),
    ("SimpleCIDRAffinityFilter", {"near": ip_network("192.0.2.0/24")}, {"host_ip": "192.0.3.1"}, NEAR),
    ("SimpleCIDRAffinityFilter", {"near": ip_network("192.0.2.0/24")}, {"host_ip": "2001:db8::1"}, NEAR),
    ("SimpleCIDRAffinityFilter", {"near": ip_network("2001:db8::/64")}, {"host_ip": "2001:db8::1"}, ""),
    ("SimpleCIDRAffinityFilter", {"near": ip_network("192.0.2.0/24")}, {"host_ip": "no address"}, NEAR),
    ("NUMATopologyFilter", {}, {"page_sizes_kib": frozenset({4})}, ""),
    ("NUMATopologyFilter", {"resources": {"PCPU": 4}}, {"dedicated_cpus": 4}, ""),
    ("NUMATopologyFilter", {"resources": {"PCPU": 4}}, {"dedicated_cpus": 3}, "fewer than 4 dedicated CPUs"),
    ("NUMATopologyFilter", {"extra_specs": {"hw:mem_page_size": "small"}}, {"page_sizes_kib": frozenset({4})}, ""),
    ("NUMATopologyFilter", {"extra_specs": {"hw:mem_page_size": "large"}}, {"page_sizes_kib": frozenset({4})}, PAGES),
    ("NUMATopologyFilter", {"extra_specs": {"hw:mem_page_size": "large"}}, {"page_sizes_kib": BOTH}, ""),
    ("NUMATopologyFilter", {"extra_specs": {"hw:mem_page_size": "2MB"}}, {"page_sizes_kib": BOTH}, ""),
    ("NUMATopologyFilter", {"extra_specs": {"hw:mem_page_size": "2048"}}, {"page_sizes_kib": BOTH}, ""),
    ("NUMATopologyFilter", {"extra_specs": {"hw:mem_page_size": "1GB"}}, {"page_sizes_kib": BOTH}, PAGES),
    ("NUMATopologyFilter", {"extra_specs": {"hw:mem_page_size": "1GB"}}, {}, ""),
    ("NUMATopologyFilter", {"image_properties": {"hw_mem_page_size": "1GB"}}, {"page_sizes_kib": BOTH}, PAGES),
    ("NUMATopologyFilter", {"extra_specs": {"hw:cpu_policy": "mixed"}}, {}, "no host mixes dedicated and shared CPUs"),
    (
        "NUMATopologyFilter",
        {"extra_specs": {"hw:cpu_thread_policy": "isolate"}},
        {},
        "no host has the CPU thread policy isolate",
    ),
    ("IsolatedHostsFilter", {}, {}, ""),
    ("AggregateImagePropertiesIsolation", {}, GOLD, ""),
    ("AggregateImagePropertiesIsolation", {"image_properties": {"tier": "gold"}}, GOLD, ""),
    ("AggregateImagePropertiesIsolation", {"image_properties": {"tier": "iron"}}, GOLD, "for images with another tier"),
    ("AggregateImagePropertiesIsolation", {"image_properties": {"tier": "iron"}}, {}, ""),
    ("IsolatedAggregatesFilter", {}, GOLD, ""),
    ("TenantAggregateFilter", {}, GOLD, ""),
    ("ImageTraitsFilter", {"image_format": "qcow2", "image_properties": {"hw_vif_model": "e1000"}}, {}, ""),
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
    ("ComputeCapabilitiesFilter", {"extra_specs": {"vcpus_total": ">= 17"}}, {}, "capability vcpus_total is not >= 17"),
    ("ComputeCapabilitiesFilter", {"extra_specs": {"moon": "full"}}, {}, ""),
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


ISOLATED = {"isolated_images": ("secret",), "isolated_hosts": ("host-1",)}
CPU = {"metrics_weight_setting": ("cpu.percent=-1.0",)}
OPEN = {**ISOLATED, "restrict_isolated_hosts_to_isolated_images": False}
SPACE = {"aggregate_image_properties_isolation_namespace": "ti"}
UNDER = {**SPACE, "aggregate_image_properties_isolation_separator": "e"}
KEPT = {"enable_isolated_aggregate_filtering": True}
TENANTS = {"limit_tenants_to_placement_aggregate": True}
STRICT = {**TENANTS, "placement_aggregate_required_for_tenants": True}
WINDOWS = in_aggregate(**{"trait:CUSTOM_WINDOWS": "required"})
BLUE = in_aggregate(filter_tenant_id="blue")
NOT_OURS = "in no aggregate of the project"
WITH_OPTIONS: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any], str]] = [
    ("NumInstancesFilter", {"max_instances_per_host": 3}, {}, {"servers": 3}, "too many servers"),
    ("AggregateNumInstancesFilter", {"max_instances_per_host": 3}, {}, {"servers": 2}, ""),
    ("IoOpsFilter", {"max_io_ops_per_host": 3}, {}, {"io_ops": 3}, "too busy"),
    ("AggregateIoOpsFilter", {"max_io_ops_per_host": 3}, {}, {"io_ops": 2}, ""),
    ("MetricsFilter", CPU, {}, {}, "does not measure all"),
    ("MetricsFilter", CPU, {}, {"cpu_percent": 0}, ""),
    ("IsolatedHostsFilter", ISOLATED, {"image_id": "secret"}, {}, ""),
    ("IsolatedHostsFilter", ISOLATED, {"image_id": "secret"}, {"host": "host-2"}, "not for isolated images"),
    ("IsolatedHostsFilter", ISOLATED, {"image_id": "plain"}, {}, "for isolated images"),
    ("IsolatedHostsFilter", ISOLATED, {"image_id": "plain"}, {"host": "host-2"}, ""),
    ("IsolatedHostsFilter", OPEN, {"image_id": "plain"}, {}, ""),
    ("IsolatedHostsFilter", OPEN, {"image_id": "secret"}, {"host": "host-2"}, "not for isolated images"),
    ("AggregateImagePropertiesIsolation", SPACE, {"image_properties": {"tier": "iron"}}, GOLD, ""),
    (
        "AggregateImagePropertiesIsolation",
        UNDER,
        {"image_properties": {"tier": "iron"}},
        GOLD,
        "for images with another tier",
    ),
    ("IsolatedAggregatesFilter", KEPT, {}, WINDOWS, "isolated by a trait that is not asked for"),
    ("IsolatedAggregatesFilter", KEPT, {"extra_specs": {"trait:CUSTOM_WINDOWS": "required"}}, WINDOWS, ""),
    ("IsolatedAggregatesFilter", KEPT, {"image_properties": {"trait:CUSTOM_WINDOWS": "required"}}, WINDOWS, ""),
    ("IsolatedAggregatesFilter", KEPT, {}, GOLD, ""),
    ("TenantAggregateFilter", TENANTS, {}, {}, ""),
    ("TenantAggregateFilter", TENANTS, {"project_has_aggregates": True}, {}, NOT_OURS),
    ("TenantAggregateFilter", TENANTS, {"project_has_aggregates": True}, BLUE, ""),
    ("TenantAggregateFilter", STRICT, {}, {}, NOT_OURS),
    (
        "ImagePropertiesFilter",
        {"image_properties_default_architecture": "x86_64"},
        {},
        {"architectures": frozenset({"aarch64"})},
        "image is for x86_64",
    ),
    (
        "ImageTraitsFilter",
        {"query_placement_for_image_type_support": True},
        {"image_format": "vmdk"},
        {},
        "lacks COMPUTE_IMAGE_TYPE_VMDK",
    ),
    (
        "ImageTraitsFilter",
        {"query_placement_for_image_type_support": True},
        {"image_format": "raw"},
        {"traits": frozenset({"COMPUTE_IMAGE_TYPE_RAW"})},
        "",
    ),
    (
        "ImageTraitsFilter",
        {"image_metadata_prefilter": True},
        {"image_properties": {"hw_vif_model": "e1000-82545em"}},
        {},
        "lacks COMPUTE_NET_VIF_MODEL_E1000_82545EM",
    ),
]


@pytest.mark.parametrize(("name", "options", "asked", "is_so", "reason"), WITH_OPTIONS)
def test_a_filter_is_set_by_the_options_of_its_policy(
    name: str, options: dict[str, Any], asked: dict[str, Any], is_so: dict[str, Any], reason: str
) -> None:
    check = filters.filters_with(FilterOptions(**options))[name].prepare(request(**asked))

    assert (check(host(**{"name": is_so.get("host", "host-1"), **without_name(is_so)})) if check else "") == reason


def without_name(changes: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in changes.items() if key != "host"}


@pytest.mark.parametrize("text", [">=", "8.2", ">=8.2;<9", ">=1.2.3.4", ">=" + "9" * 300])
def test_an_image_that_wants_no_version_is_refused(text: str) -> None:
    with pytest.raises(core.errors.Invalid, match="img_hv_requested_version"):
        filters.FILTERS["ImagePropertiesFilter"].prepare(request(image_properties={"img_hv_requested_version": text}))


@pytest.mark.parametrize("name", sorted(filters.FILTERS))
def test_the_owner_is_told_in_plain_words_of_every_filter(name: str) -> None:
    assert filters.FILTERS[name].plain
    assert "Filter" not in filters.FILTERS[name].plain


def test_every_filter_is_in_the_table() -> None:
    assert {name for name, *_ in ROWS} == set(filters.FILTERS)


@pytest.mark.parametrize("name", sorted(filters.FILTERS))
def test_a_filter_looks_at_no_host_that_it_need_not_look_at(name: str) -> None:
    check = filters.FILTERS[name].prepare(request())

    assert check is None or check(host()) == ""


def test_enabled_filters_come_in_the_order_named() -> None:
    chosen = filters.enabled(["TraitsFilter", "ComputeFilter"])

    always = ["TargetHostFilter", "DedicatedHostFilter", "CandidatesFilter", "CapacityFilter"]
    assert [one.name for one in chosen] == [*always, "TraitsFilter", "ComputeFilter"]
    assert [one.name for one in filters.enabled([])] == [one.name for one in filters.DEFAULT]


@pytest.mark.parametrize("name", sorted(filters.NOT_HERE))
def test_a_filter_that_cannot_be_is_refused_by_name(name: str) -> None:
    with pytest.raises(core.errors.Invalid, match=name):
        filters.enabled([name])


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

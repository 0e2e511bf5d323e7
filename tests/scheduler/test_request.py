"""What a build asks for."""

import msgspec
import pytest

import core.errors
from objects.build import Flavor, ImageRef
from objects.build_request import RequestSpec
from scheduler.request import Group, Hints, Request, request_for
from scheduler.resources import resources_of


@pytest.mark.parametrize(
    ("flavor", "resources"),
    [
        ({}, {"VCPU": 2, "MEMORY_MB": 2048, "DISK_GB": 20}),
        ({"ephemeral_gib": 5, "swap_mib": 1}, {"VCPU": 2, "MEMORY_MB": 2048, "DISK_GB": 26}),
        ({"swap_mib": 1024}, {"VCPU": 2, "MEMORY_MB": 2048, "DISK_GB": 21}),
        ({"root_gib": 0}, {"VCPU": 2, "MEMORY_MB": 2048}),
        ({"boots_from_volume": True, "ephemeral_gib": 5}, {"VCPU": 2, "MEMORY_MB": 2048, "DISK_GB": 5}),
        ({"extra_specs": {"resources:VCPU": "0"}}, {"MEMORY_MB": 2048, "DISK_GB": 20}),
        ({"extra_specs": {"resources:MEMORY_MB": "64"}}, {"VCPU": 2, "MEMORY_MB": 64, "DISK_GB": 20}),
        (
            {"extra_specs": {"resources:CUSTOM_FPGA": "1"}},
            {"VCPU": 2, "MEMORY_MB": 2048, "DISK_GB": 20, "CUSTOM_FPGA": 1},
        ),
        (
            {"extra_specs": {"resources1:VGPU": "1", "resources_b:VGPU": "2"}},
            {"VCPU": 2, "MEMORY_MB": 2048, "DISK_GB": 20, "VGPU": 3},
        ),
        ({"extra_specs": {"hw:cpu_policy": "dedicated"}}, {"PCPU": 2, "MEMORY_MB": 2048, "DISK_GB": 20}),
        (
            {"extra_specs": {"hw:cpu_policy": "shared", "quota:cpu_shares": "1"}},
            {"VCPU": 2, "MEMORY_MB": 2048, "DISK_GB": 20},
        ),
    ],
)
def test_resources_of_a_flavor(flavor: dict[str, object], resources: dict[str, int]) -> None:
    small = Flavor(flavor_id="2", name="m1.small", vcpus=2, memory_mib=2048, root_gib=20)
    changed = {name: value for name, value in flavor.items() if name != "boots_from_volume"}

    assert (
        resources_of(msgspec.structs.replace(small, **changed), boots_from_volume="boots_from_volume" in flavor)
        == resources
    )


def test_groups_that_must_come_from_different_providers_are_refused() -> None:
    with pytest.raises(core.errors.Invalid, match="group_policy"):
        resources_of(
            Flavor(flavor_id="1", name="n", vcpus=1, memory_mib=1, root_gib=1, extra_specs={"group_policy": "isolate"})
        )


@pytest.mark.parametrize("amount", ["", "-1", "1.5", "many"])
def test_an_amount_that_is_no_number_is_refused(amount: str) -> None:
    with pytest.raises(core.errors.Invalid, match="resources:VCPU"):
        resources_of(
            Flavor(flavor_id="1", name="n", vcpus=1, memory_mib=1, root_gib=1, extra_specs={"resources:VCPU": amount})
        )


def test_traits_are_read_from_flavor_and_image() -> None:
    asked = Request(
        resources={},
        extra_specs={"trait:CUSTOM_A": "required", "trait:CUSTOM_B": "forbidden", "hw:x": "y"},
        image_properties={"trait:CUSTOM_C": "required", "os_distro": "debian"},
    )

    assert asked.required_traits == {"CUSTOM_A", "CUSTOM_C"}
    assert asked.forbidden_traits == {"CUSTOM_B"}


def test_a_trait_that_is_neither_required_nor_forbidden_is_refused() -> None:
    with pytest.raises(core.errors.Invalid, match="trait:CUSTOM_A"):
        Request(resources={}, extra_specs={"trait:CUSTOM_A": "liked"})


FLAVOR = Flavor(
    flavor_id="1", name="m1.small", vcpus=1, memory_mib=512, root_gib=10, extra_specs={"trait:CUSTOM_A": "required"}
)
IMAGE = ImageRef(image_id="i", properties={"hw_architecture": "x86_64"})
SPEC = RequestSpec(project_id="blue", user_id="me", availability_zone="mars", host="host-9", node="node-9", forced=True)


def test_a_request_holds_all_that_is_known_of_where_the_servers_may_go() -> None:
    group, hints = Group("affinity", {"host-1": 1}), Hints(frozenset({"host-1"}), frozenset({"host-2"}))

    asked = request_for(SPEC, FLAVOR, IMAGE, num=3, excluded_hosts=frozenset({"host-3"}), group=group, hints=hints)

    assert asked.resources == {"VCPU": 1, "MEMORY_MB": 512, "DISK_GB": 10}
    assert (asked.num, asked.project_id, asked.flavor_name, asked.availability_zone) == (3, "blue", "m1.small", "mars")
    assert (asked.target_host, asked.target_node, asked.forced) == ("host-9", "node-9", True)
    assert (asked.excluded_hosts, asked.group, asked.hints) == ({"host-3"}, group, hints)
    assert asked.required_traits == {"CUSTOM_A"}
    assert asked.image_properties == {"hw_architecture": "x86_64"}


def test_a_server_without_an_image_boots_from_a_volume() -> None:
    assert "DISK_GB" not in request_for(SPEC, FLAVOR, None).resources

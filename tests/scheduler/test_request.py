"""What a build asks for."""

import pytest

import core.errors
from objects.build import BuildSpec, Flavor, ImageRef
from scheduler.request import Place, Request, place_of, request_for
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
        ({"extra_specs": {"resources:CUSTOM_FPGA": "1"}}, {"VCPU": 2, "MEMORY_MB": 2048, "DISK_GB": 20, "CUSTOM_FPGA": 1}),
        ({"extra_specs": {"resources1:VGPU": "1", "resources_b:VGPU": "2"}}, {"VCPU": 2, "MEMORY_MB": 2048, "DISK_GB": 20, "VGPU": 3}),
        ({"extra_specs": {"hw:cpu_policy": "dedicated"}}, {"PCPU": 2, "MEMORY_MB": 2048, "DISK_GB": 20}),
        ({"extra_specs": {"hw:cpu_policy": "shared", "quota:cpu_shares": "1"}}, {"VCPU": 2, "MEMORY_MB": 2048, "DISK_GB": 20}),
    ],
)
def test_resources_of_a_flavor(flavor: dict[str, object], resources: dict[str, int]) -> None:
    small: dict[str, object] = {"vcpus": 2, "memory_mib": 2048, "root_gib": 20}

    assert resources_of(**{**small, **flavor}) == resources  # type: ignore[arg-type]


@pytest.mark.parametrize("amount", ["", "-1", "1.5", "many"])
def test_an_amount_that_is_no_number_is_refused(amount: str) -> None:
    with pytest.raises(core.errors.Invalid, match="resources:VCPU"):
        resources_of(vcpus=1, memory_mib=1, root_gib=1, extra_specs={"resources:VCPU": amount})


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (None, Place()),
        ("", Place()),
        ("nova", Place("nova")),
        ("nova:host-1", Place("nova", "host-1")),
        ("nova:host-1:node-1", Place("nova", "host-1", "node-1")),
        ("nova::node-1", Place("nova", None, "node-1")),
        (":host-1", Place(None, "host-1")),
    ],
)
def test_a_zone_may_name_host_and_node(text: str | None, place: Place) -> None:
    assert place_of(text) == place


def test_a_zone_with_too_many_parts_is_refused() -> None:
    with pytest.raises(core.errors.Invalid):
        place_of("a:b:c:d")


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


def spec(**changes: object) -> BuildSpec:
    values: dict[str, object] = {
        "uuid": "u",
        "project_id": "blue",
        "user_id": "me",
        "name": "n",
        "hostname": "n",
        "flavor": Flavor(flavor_id="1", name="m1.small", vcpus=1, memory_mib=512, root_gib=10, extra_specs={"trait:CUSTOM_A": "required"}),
        "image": ImageRef(image_id="i", properties={"hw_architecture": "x86_64"}),
    }
    return BuildSpec(**{**values, **changes})  # type: ignore[arg-type]


def test_a_build_says_what_it_asks_for() -> None:
    asked = request_for(spec(availability_zone="mars"), num=3, target_host="host-9")

    assert asked.resources == {"VCPU": 1, "MEMORY_MB": 512, "DISK_GB": 10}
    assert (asked.num, asked.project_id, asked.flavor_name, asked.availability_zone) == (3, "blue", "m1.small", "mars")
    assert (asked.target_host, asked.forced) == ("host-9", False)
    assert asked.required_traits == {"CUSTOM_A"}
    assert asked.image_properties == {"hw_architecture": "x86_64"}


def test_a_host_in_the_zone_s_name_is_forced() -> None:
    asked = request_for(spec(availability_zone="mars:host-1"))

    assert (asked.availability_zone, asked.target_host, asked.target_node, asked.forced) == ("mars", "host-1", None, True)


def test_a_server_without_an_image_boots_from_a_volume() -> None:
    assert "DISK_GB" not in request_for(spec(image=None)).resources

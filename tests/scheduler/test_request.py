"""What a build asks for."""

import msgspec
import pytest

import core.errors
from objects.build import Flavor, ImageRef
from objects.build_request import RequestSpec
from objects.host_query import Term, Variable
from scheduler.request import Group, Hints, request_for
from scheduler.resources import ResourceGroup, needed_of, resources_of


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


def flavor_with(**specs: str) -> Flavor:
    return Flavor(flavor_id="1", name="n", vcpus=2, memory_mib=1, root_gib=1, extra_specs=specs)


@pytest.mark.parametrize(
    ("specs", "what"),
    [
        ({"group_policy": "together"}, "group_policy"),
        ({"trait:CUSTOM_A": "liked"}, "trait:CUSTOM_A"),
        ({"trait1:CUSTOM_A": "required"}, "trait1"),
        ({f"resources{number}:CUSTOM_A": "1" for number in range(17)}, "17 groups"),
        ({"resources:VCPU": "9" * 5000}, "resources:VCPU"),
        ({"resources:VCPU": "²"}, "resources:VCPU"),
    ],
)
def test_what_cannot_be_asked_of_placement_is_refused(specs: dict[str, str], what: str) -> None:
    with pytest.raises(core.errors.Invalid, match=what):
        needed_of(flavor_with(**specs))


@pytest.mark.parametrize("name", ["", "CUSTOM_A,!CUSTOM_B", "custom_a", "CUSTOM_A\n", "X" * 256, "CUSTOM_A&limit=1"])
def test_an_image_names_traits_and_nothing_else(name: str) -> None:
    with pytest.raises(core.errors.Invalid, match="names no trait"):
        needed_of(flavor_with(), {f"trait:{name}": "required"})


def test_groups_keep_their_resources_and_traits_apart() -> None:
    needed = needed_of(
        flavor_with(
            **{
                "resources_net:NET_BW": "5", "trait_net:CUSTOM_FAST": "required", "trait_net:CUSTOM_OLD": "forbidden",
                "resources:CUSTOM_GPU": "1", "trait:CUSTOM_A": "required", "group_policy": "isolate",
            }
        )
    )  # fmt: skip

    assert needed.whole == ResourceGroup(
        {"VCPU": 2, "MEMORY_MB": 1, "DISK_GB": 1, "CUSTOM_GPU": 1}, frozenset({"CUSTOM_A"})
    )
    assert needed.groups == {
        "_net": ResourceGroup({"NET_BW": 5}, frozenset({"CUSTOM_FAST"}), frozenset({"CUSTOM_OLD"}))
    }
    assert needed.policy == "isolate"


@pytest.mark.parametrize(
    ("specs", "properties", "cpus"),
    [
        ({}, {"hw_cpu_policy": "dedicated"}, {"PCPU": 2}),
        ({"hw:cpu_policy": "dedicated", "hw:emulator_threads_policy": "isolate"}, {}, {"PCPU": 3}),
        ({"hw:cpu_policy": "dedicated", "hw:emulator_threads_policy": "share"}, {}, {"PCPU": 2}),
        ({"hw:emulator_threads_policy": "isolate"}, {}, {"VCPU": 2}),
    ],
)
def test_dedicated_cpus_are_counted_as_the_driver_pins_them(
    specs: dict[str, str], properties: dict[str, str], cpus: dict[str, int]
) -> None:
    resources = needed_of(flavor_with(**specs), properties).resources

    assert {name: amount for name, amount in resources.items() if name.endswith("CPU")} == cpus


@pytest.mark.parametrize("amount", ["", "-1", "1.5", "many"])
def test_an_amount_that_is_no_number_is_refused(amount: str) -> None:
    with pytest.raises(core.errors.Invalid, match="resources:VCPU"):
        resources_of(
            Flavor(flavor_id="1", name="n", vcpus=1, memory_mib=1, root_gib=1, extra_specs={"resources:VCPU": amount})
        )


def test_traits_are_read_from_flavor_and_image() -> None:
    needed = needed_of(
        flavor_with(**{"trait:CUSTOM_A": "required", "trait:CUSTOM_B": "forbidden", "hw:x": "y"}),
        {"trait:CUSTOM_C": "required", "os_distro": "debian"},
    )

    assert needed.whole.required == {"CUSTOM_A", "CUSTOM_C"}
    assert needed.whole.forbidden == {"CUSTOM_B"}


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


def test_hints_come_with_the_request() -> None:
    spec = RequestSpec(
        project_id="blue", user_id="me", query='[">=", "$free_ram_mb", 1]', near="192.0.2.9/24", different_cell=["c1"],
        target_cell="c2",
    )  # fmt: skip

    asked = request_for(spec, FLAVOR, IMAGE)

    assert asked.query == Term(">=", (Variable("free_ram_mb"), 1))
    assert (str(asked.near), asked.different_cells, asked.target_cell) == ("192.0.2.0/24", {"c1"}, "c2")


def test_placement_is_asked_only_about_what_hosts_do_not_say_themselves() -> None:
    assert not request_for(SPEC, FLAVOR, IMAGE).needs_candidates
    for specs in ({"resources:CUSTOM_GPU": "1"}, {"resources1:VCPU": "1"}, {"hw:cpu_policy": "dedicated"}):
        flavor = msgspec.structs.replace(FLAVOR, extra_specs=specs)
        asked = request_for(SPEC, flavor, IMAGE)

        assert asked.needs_candidates
        assert asked.needed == needed_of(flavor)

"""Hosts chosen from the view and claimed in the real Placement: what only Placement knows, policies, explanations."""

import datetime
import pathlib
import random
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from api_db.journal import Entry
from clients.placement import Placement
from conductor.superconductor.host_selector import HostSelector, RequestBuilds
from core.crash_points import CrashPoints
from objects import explanation
from objects.build import BuildSpec, Flavor, ImageRef
from objects.build_request import BuildRequest, RequestSpec
from objects.explanation import Explanation
from scheduler.aggregates import AggregateState
from scheduler.hosts import HostState
from scheduler.options import FilterOptions
from scheduler.policy import policy_with
from scheduler.view import HostView
from tests.clients.conftest import connect, write_placement_conf
from tests.clients.test_placement_candidates import below
from tests.scheduler.hosts import EAST

# WebOb, Placement's own library, uses modules that Python has announced to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

NOW = datetime.datetime(2026, 1, 2, 3, 4, 5)
INVENTORIES = {"VCPU": {"total": 8}, "MEMORY_MB": {"total": 8192}, "DISK_GB": {"total": 100}}
GPU = "CUSTOM_GPU"


class Place:
    """Hosts that both Placement and the view know, and a selector."""

    def __init__(self, placement: Placement) -> None:
        self.placement = placement
        self.view = HostView()
        self.policies = {"default": policy_with()}

    def host(self, name: str, *, inventories: dict[str, Any] | None = None, **changes: Any) -> str:
        node = str(uuid.uuid4())
        self.placement.ensure_provider(
            node, f"{name}-{node}", inventories={**INVENTORIES, **(inventories or {})}, traits=()
        )
        state: dict[str, Any] = {
            "vcpus": 8,
            "memory_mib": 8192,
            "disk_gib": 100,
            "cpu_allocation_ratio": 1.0,
            **changes,
        }
        self.view.update(
            EAST,
            [HostState(host=name, node_uuid=node, hypervisor_hostname=name, cell_uuid=EAST, **state)],
        )
        return node

    def select(
        self,
        specs: dict[str, str] | None = None,
        *,
        number: int = 1,
        properties: dict[str, str] | None = None,
        **spec: Any,
    ) -> RequestBuilds:
        selector = HostSelector(
            self.placement, self.view, lambda: None, attempts=3, steps=CrashPoints(), rng=random.Random(1),
            by_policy=self.policies,
        )  # fmt: skip
        flavor = Flavor("1", "small", 1, 512, 1, extra_specs=specs or {})
        group = RequestBuilds(
            RequestSpec(project_id="blue", user_id="me", **spec),
            [_entry(flavor, properties or {}) for _ in range(number)],
        )
        selector.place([group])
        return group

    def held(self, group: RequestBuilds, number: int = 0) -> dict[str, Any]:
        return {
            provider: dict(resources)
            for provider, resources in self.placement.read_claim(group.entries[number].uuid).providers.items()
        }


def _entry(flavor: Flavor, properties: dict[str, str], explanations: object = None) -> Entry:
    server = str(uuid.uuid4())
    build = BuildSpec(
        uuid=server, project_id="blue", user_id="me", name="n", hostname="n", flavor=flavor,
        image=ImageRef("i", properties=properties)
    )  # fmt: skip
    return Entry(
        uuid=server, request_uuid="r", project_id="blue", phase="new", target=None, host=None, alternates=None,
        deleting=False, fault=None, token="t", tries=1, not_after=NOW,
        build_request=BuildRequest(build=build, request_id="req", created_at=NOW), created_at=NOW,
        explanations=explanations,
    )  # fmt: skip


@pytest.fixture(scope="module")
def placement(tmp_path_factory: pytest.TempPathFactory) -> Placement:
    conf: pathlib.Path = write_placement_conf(tmp_path_factory.mktemp("placement"))
    return connect(f"wsgi://{conf}")


@pytest.fixture
def place(placement: Placement) -> Iterator[Place]:
    yield Place(placement)


def why(group: RequestBuilds, number: int = 0) -> Explanation:
    return explanation.read(group.explanations(number, NOW))[-1]


# ---- what only Placement knows ---------------------------------------------------------------------------------------


def test_a_server_gets_what_only_placement_knows_of(place: Place) -> None:
    place.host("plain")
    rich = place.host("rich", inventories={GPU: {"total": 2}})

    group = place.select({f"resources:{GPU}": "1"})

    assert group.fault is None
    assert place.held(group) == {rich: {"VCPU": 1, "MEMORY_MB": 512, "DISK_GB": 1, GPU: 1}}
    assert why(group).rejected[0].filter == "CandidatesFilter"


def test_granular_groups_come_from_providers_below_the_host(place: Place) -> None:
    name = f"CUSTOM_{uuid.uuid4().hex.upper()}"
    place.host("plain")
    rich, other = place.host("rich"), place.host("other", inventories={name: {"total": 1}})
    card = below(place.placement, rich, "card", {name: 2}, "CUSTOM_FAST")

    group = place.select({f"resources_net:{name}": "2", "trait_net:CUSTOM_FAST": "required"})

    assert place.held(group) == {rich: {"VCPU": 1, "MEMORY_MB": 512, "DISK_GB": 1}, card: {name: 2}}
    assert [one.host for one in group.candidates(0)] == ["rich"]
    either = place.select({f"resources_net:{name}": "1"})
    assert list(place.held(either)) == [other]
    assert [one.host for one in either.candidates(0)] == ["other"], "a card is no alternate that its cell could claim"


def test_servers_of_one_request_take_turns_with_the_ways_that_there_are(place: Place) -> None:
    name = f"CUSTOM_{uuid.uuid4().hex.upper()}"
    host = place.host("host")
    cards = {below(place.placement, host, f"card-{number}", {name: 1}) for number in range(2)}

    group = place.select({f"resources1:{name}": "1"}, number=2)

    assert group.fault is None
    assert {provider for number in range(2) for provider in place.held(group, number)} == {host, *cards}


def test_dedicated_cpus_are_claimed_as_such(place: Place) -> None:
    place.host("shared")
    node = place.host("pinned", inventories={"PCPU": {"total": 4}}, dedicated_cpus=4)

    group = place.select({"hw:cpu_policy": "dedicated", "hw:emulator_threads_policy": "isolate"})

    assert place.held(group)[node] == {"PCPU": 2, "MEMORY_MB": 512, "DISK_GB": 1}
    assert place.select(properties={"hw_cpu_policy": "dedicated"}).fault is None


def test_what_placement_does_not_know_is_a_fault_that_says_so(place: Place) -> None:
    place.host("host")

    group = place.select({"resources:CUSTOM_NO_SUCH_CLASS": "1"})

    assert group.fault is not None and "CUSTOM_NO_SUCH_CLASS" in group.fault
    assert why(group).fault == group.fault


def test_placement_is_not_asked_for_plain_servers(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.host("host")
    monkeypatch.setattr(place.placement, "candidates", None)

    assert place.select().fault is None


# ---- policies --------------------------------------------------------------------------------------------------------


def test_each_request_is_chosen_for_by_its_policy(place: Place) -> None:
    packed = policy_with("packed", multipliers={"ram_weight_multiplier": -50})
    place.policies["packed"] = packed
    place.host("empty")
    place.host("half", used_memory_mib=4096)

    assert place.select().choices[0].host.host == "empty"
    assert place.select(policy="packed").choices[0].host.host == "half"
    assert why(place.select(policy="packed")).policy == "packed"


def test_a_policy_that_is_no_more_is_a_fault_that_names_it(place: Place) -> None:
    place.host("host")

    group = place.select(policy="silver")

    assert group.fault is not None and "silver" in group.fault


def test_a_project_with_aggregates_goes_there_where_the_setting_says_so(place: Place) -> None:
    place.policies["default"] = policy_with(options=FilterOptions(limit_tenants_to_placement_aggregate=True))
    place.host("free")
    assert place.select().choices[0].host.host == "free"
    mine = (AggregateState("a", "a", {"filter_tenant_id_1": "blue"}),)
    place.host("mine", used_memory_mib=7000, aggregates=mine)

    assert place.select().choices[0].host.host == "mine"


# ---- weights, dedicated hosts ----------------------------------------------------------------------------------------


def test_a_host_is_chosen_for_its_weight(place: Place) -> None:
    place.host("liked", own_weight=3.0, used_memory_mib=1024)
    place.host("plain")

    group = place.select()

    assert group.choices[0].host.host == "liked"
    assert why(group).chosen is not None
    assert why(group).chosen.parts["ProviderWeigher"] == 1.0  # type: ignore[union-attr]


def test_a_dedicated_host_takes_its_project_and_nobody_else_not_even_forced(place: Place) -> None:
    place.host("theirs", dedicated_to="red")

    assert place.select().fault is not None
    assert place.select(host="theirs", forced=True).fault is not None
    place.host("mine", dedicated_to="blue")
    assert place.select().choices[0].host.host == "mine"


# ---- explanations ----------------------------------------------------------------------------------------------------


def test_the_last_choices_are_kept_with_the_order(place: Place) -> None:
    group = place.select()
    first = group.explanations(0, NOW)
    place.host("host")
    again = RequestBuilds(group.request, [_entry(Flavor("1", "small", 1, 512, 1), {}, explanations=first)])
    HostSelector(
        place.placement, place.view, lambda: None, attempts=3, steps=CrashPoints(), rng=random.Random(1)
    ).place([again])

    found = explanation.read(again.explanations(0, NOW))

    assert [one.chosen is not None for one in found] == [False, True]
    assert found[0].fault is not None and found[0].hosts == 0
    assert (found[1].known, found[1].hosts, found[1].fit) == (1, 1, 1)

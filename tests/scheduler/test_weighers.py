"""Every weigher as a table: which of two hosts is better, and that its setting and its aggregates' metadata turn it."""

import random
from typing import Any

import pytest

import core.config
import core.scheduling
from conductor.superconductor.policies import policies_of
from scheduler import weighers
from scheduler.aggregates import AggregateState
from scheduler.choose import choose
from scheduler.options import FilterOptions
from scheduler.policy import Policy, policy_with
from scheduler.weighers import Scale, far_from_members, near_members
from tests.scheduler.hosts import host, request

ROWS: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("RAMWeigher", "ram_weight_multiplier", {}, {"used_memory_mib": 8192}),
    ("CPUWeigher", "cpu_weight_multiplier", {}, {"used_vcpus": 32}),
    ("DiskWeigher", "disk_weight_multiplier", {}, {"used_disk_gib": 100}),
    ("IoOpsWeigher", "io_ops_weight_multiplier", {}, {"io_ops": 4}),
    ("BuildFailureWeigher", "build_failure_weight_multiplier", {}, {"failed_builds": 1}),
    ("NumInstancesWeigher", "num_instances_weight_multiplier", {}, {"servers": 4}),
    ("HypervisorVersionWeigher", "hypervisor_version_weight_multiplier", {"hypervisor_version": 9},
        {"hypervisor_version": 8}),
    ("ProviderWeigher", "provider_weight_multiplier", {"own_weight": 2.0}, {"own_weight": 1.0}),
    ("ProviderWeigher", "provider_weight_multiplier", {}, {"own_weight": -1.0}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "key", "better", "worse"), ROWS)
def test_a_weigher_prefers_what_it_should(name: str, key: str, better: dict[str, Any], worse: dict[str, Any]) -> None:
    [one] = [each for each in weighers.DEFAULT if each.name == name]
    hosts = [host("worse", **worse), host("better", **better)]

    def best(multipliers: dict[str, float]) -> str:
        weights = Scale([_of(policy_with(multipliers=multipliers), name)], hosts).weights()
        return max(zip(weights, (each.host for each in hosts), strict=True))[1]

    assert one.key == key
    assert best({}) == "better"
    assert best({key: -one.multiplier}) == "worse"


@pytest.mark.parametrize(("name", "key", "better", "worse"), ROWS)
def test_an_aggregate_turns_a_weigher_for_its_hosts(
    name: str, key: str, better: dict[str, Any], worse: dict[str, Any]
) -> None:
    [one] = [each for each in weighers.DEFAULT if each.name == name]
    turned = (AggregateState("a", "a", {key: str(-one.multiplier)}),)
    hosts = [host("worse", aggregates=turned, **worse), host("better", aggregates=turned, **better)]

    weights = Scale([one], hosts).weights()

    assert weights[0] > weights[1]
    assert weights == [Scale([one], hosts).weight(each) for each in hosts]


def test_every_weigher_is_in_the_table_and_in_the_settings() -> None:
    assert {name for name, *_ in ROWS} == {one.name for one in weighers.DEFAULT}
    settings = {option.dest: option.default for option in core.scheduling._MULTIPLIERS}
    assert settings == dict(weighers.MULTIPLIERS)


def test_a_busy_host_is_worse_where_the_setting_says_so() -> None:
    policy = policy_with(options=FilterOptions(metrics_weight_setting=("cpu.percent=-1.0",)))
    hosts = [host("busy", cpu_percent=90), host("idle", cpu_percent=10), host("silent")]

    weights = Scale([_of(policy, "MetricsWeigher")], hosts).weights()

    assert weights[1] > weights[0] > weights[2]
    assert not any(one.name == "MetricsWeigher" for one in policy_with().weighers)


@pytest.mark.parametrize("setting", ["cpu.percent", "cpu.percent=", "cpu.percent=nan", "moon.phase=1", "=1"])
def test_metrics_that_hosts_do_not_have_are_refused(setting: str) -> None:
    with pytest.raises(core.errors.Invalid, match="metrics_weight_setting"):
        policy_with(options=FilterOptions(metrics_weight_setting=(setting,)))


def test_members_of_a_group_count_as_their_policy_wants() -> None:
    hosts = [host("with"), host("without")]

    near = Scale([near_members({"with": 2})], hosts).weights()
    far = Scale([far_from_members({"with": 2})], hosts).weights()

    assert (near[0] > near[1], far[0] > far[1]) == (True, False)


def test_the_lowest_weight_of_its_aggregates_is_a_hosts_unless_it_has_its_own() -> None:
    def weights(*texts: str) -> tuple[AggregateState, ...]:
        return tuple(AggregateState(text, text, {"cellplane:weight": text}) for text in texts)

    assert host(aggregates=weights("3", "2", "9")).weight == 2.0
    assert host(aggregates=weights("3"), own_weight=7.0).weight == 7.0
    assert host(aggregates=weights("3"), own_weight=0.0).weight == 0.0
    assert host(aggregates=weights("nan", "inf", "-1e300", "many")).weight == 0.0
    assert host().weight == 0.0


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e300"])
def test_a_multiplier_that_is_no_number_does_not_stop_the_choice(text: str) -> None:
    odd = (AggregateState("a", "a", {"ram_weight_multiplier": text}),)

    [choice] = choose(request(), [host("odd", aggregates=odd), host("even")], random=random.Random(1))

    assert choice.host.host in ("odd", "even")


# ---- policies --------------------------------------------------------------------------------------------------------


def test_policies_are_made_of_settings(tmp_path: Any) -> None:
    file = tmp_path / "x.conf"
    file.write_text(
        "[scheduler]\npolicies = packed,gold\n[filter_scheduler]\ncpu_weight_multiplier = 3\nmax_io_ops_per_host = 4\n"
        "[scheduler_policy_packed]\nram_weight_multiplier = -5\n"
        "[scheduler_policy_gold]\nenabled_filters = TraitsFilter, IsolatedHostsFilter\nisolated_hosts = g1,g2\n"
    )

    found = policies_of(loaded(file))

    assert sorted(found) == ["default", "gold", "packed"]
    assert _of(found["packed"], "RAMWeigher").multiplier == -5.0
    assert _of(found["default"], "RAMWeigher").multiplier == 1.0
    assert {_of(policy, "CPUWeigher").multiplier for policy in found.values()} == {3.0}
    assert found["gold"].options.isolated_hosts == ("g1", "g2")
    assert found["gold"].options.max_io_ops_per_host == 4
    assert [one.name for one in found["gold"].filters][-2:] == ["TraitsFilter", "IsolatedHostsFilter"]
    assert found["packed"].options.isolated_hosts == ()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[scheduler]\npolicies = default\n", "default"),
        ("[scheduler]\npolicies = a b\n", "a b"),
        ("[scheduler]\npolicies = gold\n[scheduler_policy_gold]\nenabled_filters = MoonFilter\n", "MoonFilter"),
        ("[scheduler]\npolicies = gold\n[scheduler_policy_gold]\nram_weight_multiplier = much\n",
            "scheduler_policy_gold"),
        ("[scheduler]\npolicies = gold\n[scheduler_policy_gold]\nram_weight_multiplier = nan\n",
            "ram_weight_multiplier"),
        ("[filter_scheduler]\nenabled_filters = PciPassthroughFilter\n", "PciPassthroughFilter"),
    ],
)  # fmt: skip
def test_settings_of_policies_that_cannot_be_are_refused(tmp_path: Any, text: str, what: str) -> None:
    file = tmp_path / "x.conf"
    file.write_text(text)

    with pytest.raises(core.errors.Invalid, match=what):
        policies_of(loaded(file))


def loaded(file: Any) -> Any:
    groups = [core.scheduling.POLICIES, core.scheduling.FILTER_SCHEDULER]
    return core.config.load("x", ["--config-file", str(file)], groups)


def _of(policy: Policy, name: str) -> weighers.Weigher:
    return next(one for one in policy.weighers if one.name == name)

"""The choice of hosts: what fits, spread over equals, alternates, and the reasons when there is none."""

import collections
import random
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies

from scheduler import filters
from scheduler.aggregates import AggregateState
from scheduler.choose import Choice, NoValidHost, choose
from scheduler.hosts import HostState
from scheduler.request import Group, Hints, Request
from tests.scheduler.hosts import EAST, WEST, host, request


def chosen(choices: list[Choice]) -> list[str]:
    return [choice.host.host for choice in choices]


def rng(seed: int = 7) -> random.Random:
    return random.Random(seed)


# What is chosen


def test_the_emptiest_host_is_chosen() -> None:
    hosts = [host("full", used_memory_mib=12000), host("empty"), host("half", used_memory_mib=8000)]

    assert chosen(choose(request(), hosts, random=rng())) == ["empty"]


def test_a_host_that_failed_builds_comes_last() -> None:
    hosts = [host("failing", failed_builds=1), host("busy", used_memory_mib=12000)]

    [choice] = choose(request(), hosts, random=rng())

    assert choice.host.host == "busy"
    assert [other.host for other in choice.alternates] == ["failing"]


def test_a_busy_host_comes_later() -> None:
    assert chosen(choose(request(), [host("busy", io_ops=3), host("idle")], random=rng())) == ["idle"]


def test_an_aggregate_may_turn_a_weigher_round() -> None:
    packed = (AggregateState("a", "packed", {"ram_weight_multiplier": "-5", "cpu_weight_multiplier": "no number"}),)
    hosts = [host("full", used_memory_mib=12000, aggregates=packed), host("empty", aggregates=packed)]

    assert chosen(choose(request(), hosts, random=rng())) == ["full"]


def test_equals_take_turns_from_request_to_request() -> None:
    hosts = [host(f"host-{number}") for number in range(4)]
    chance = rng()

    assert {chosen(choose(request(), hosts, random=chance))[0] for _ in range(50)} == {one.host for one in hosts}


def test_hosts_that_differ_by_a_hair_are_equals() -> None:
    hosts = [host(f"host-{number}", used_memory_mib=number) for number in range(4)]
    chance = rng()

    assert {chosen(choose(request(), hosts, random=chance))[0] for _ in range(50)} == {one.host for one in hosts}


def test_a_burst_is_spread_over_cells_as_well() -> None:
    hosts = [host(f"{cell}-{number}", cell_uuid=cell) for cell in (EAST, WEST) for number in range(4)]

    choices = choose(request(), hosts, 4, random=rng())

    assert collections.Counter(choice.host.cell_uuid for choice in choices) == {EAST: 2, WEST: 2}


def test_a_cell_with_more_hosts_takes_more() -> None:
    hosts = [host(f"e{number}", cell_uuid=EAST) for number in range(6)] + [
        host(f"w{number}", cell_uuid=WEST) for number in range(2)
    ]

    choices = choose(request(), hosts, 8, random=rng())

    assert collections.Counter(choice.host.cell_uuid for choice in choices) == {EAST: 6, WEST: 2}


def test_a_big_host_takes_more_than_a_small_one() -> None:
    big = host("big", vcpus=128, memory_mib=524288, disk_gib=8000)
    small = host("small", vcpus=8, memory_mib=16384, disk_gib=400)

    counts = collections.Counter(chosen(choose(request(), [big, small], 20, random=rng())))

    assert counts["big"] > counts["small"]


def test_no_server_asks_for_no_host() -> None:
    assert choose(request(), [], 0, random=rng()) == []


# Forced and wished-for hosts


def test_the_host_asked_for_is_chosen() -> None:
    hosts = [host("a"), host("b", used_memory_mib=8000)]

    [choice] = choose(request(target_host="b"), hosts, random=rng())

    assert (choice.host.host, choice.alternates) == ("b", ())


def test_a_forced_host_is_asked_facts_only() -> None:
    of_others = host("b", aggregates=(AggregateState("a", "a", {"filter_tenant_id": "red"}),))
    forced = request(target_host="b", forced=True, availability_zone="nova")

    assert chosen(choose(forced, [host("a"), of_others], random=rng())) == ["b"]


@pytest.mark.parametrize(
    "wish",
    [
        {"availability_zone": "other"},
        {"hints": Hints(same_hosts=frozenset({"a"}))},
        {"hints": Hints(different_hosts=frozenset({"b"}))},
        {"group": Group("affinity", {"a": 1})},
        {"group": Group("anti-affinity", {"b": 1})},
    ],
)
def test_a_forced_host_makes_nobody_forget_what_else_the_request_says(wish: dict[str, Any]) -> None:
    with pytest.raises(NoValidHost):
        choose(request(target_host="b", forced=True, **wish), [host("a"), host("b")], random=rng())


@pytest.mark.parametrize(
    "broken", [{"up": False}, {"disabled": True}, {"cleanups_open": True}, {"used_memory_mib": 16384}]
)
def test_facts_hold_for_forced_hosts(broken: dict[str, object]) -> None:
    with pytest.raises(NoValidHost):
        choose(request(target_host="b", forced=True), [host("a"), host("b", **broken)], random=rng())


# Groups


def test_anti_affinity_holds_within_a_request_and_for_alternates() -> None:
    hosts = [host(f"host-{number}") for number in range(6)]
    apart = request(group=Group("anti-affinity", {"host-0": 1}))

    choices = choose(apart, hosts, 3, alternates=1, random=rng())

    used = chosen(choices) + [other.host for choice in choices for other in choice.alternates]
    assert len(used) == len(set(used)) == 5
    assert "host-0" not in used


def test_anti_affinity_counts_members_up_to_the_rule() -> None:
    hosts = [host("a"), host("b")]
    apart = request(group=Group("anti-affinity", {"a": 1}, most_per_host=2))

    assert collections.Counter(chosen(choose(apart, hosts, 3, random=rng()))) == {"a": 1, "b": 2}
    with pytest.raises(NoValidHost):
        choose(apart, hosts, 4, random=rng())


def test_affinity_keeps_a_request_together() -> None:
    hosts = [host(f"host-{number}") for number in range(6)]

    choices = choose(request(group=Group("affinity")), hosts, 5, random=rng())

    assert len(set(chosen(choices))) == 1
    assert all(choice.alternates == () for choice in choices)


def test_the_first_member_of_an_affinity_group_has_alternates() -> None:
    [choice] = choose(request(group=Group("affinity")), [host("a"), host("b")], random=rng())

    assert len(choice.alternates) == 1


# Reasons


def test_every_rejection_is_counted_and_explained() -> None:
    hosts = [
        host("a", availability_zone="earth"),
        host("b"),
        *(host(name, availability_zone="mars", used_memory_mib=16000) for name in "cd"),
    ]

    with pytest.raises(NoValidHost) as refusal:
        choose(request(availability_zone="mars"), hosts, random=rng())

    assert refusal.value.message == (
        "No valid host was found. 4 hosts: 2 rejected by AvailabilityZoneFilter (zone 'mars'), 2 by CapacityFilter "
        "(not enough memory)."
    )


def test_different_reasons_of_one_filter_are_told_apart() -> None:
    hosts = [host("a", used_memory_mib=16000), host("b", used_memory_mib=16000), host("c", used_disk_gib=200)]

    with pytest.raises(NoValidHost) as refusal:
        choose(request(), hosts, random=rng())

    assert refusal.value.message == (
        "No valid host was found. 3 hosts: 3 rejected by CapacityFilter (not enough memory: 2, not enough disk: 1)."
    )


def test_no_hosts_at_all_is_said() -> None:
    with pytest.raises(NoValidHost, match="There are no hosts"):
        choose(request(), [], random=rng())


def test_all_or_none_of_a_request() -> None:
    hosts = [host("a"), host("b", up=False)]

    with pytest.raises(NoValidHost) as refusal:
        choose(request(resources={"MEMORY_MB": 8000}), hosts, 3, random=rng())

    assert refusal.value.message == (
        "No valid host was found. 2 hosts: 1 rejected by ComputeFilter (down), 1 would do. There is room for 2 of 3 "
        "servers."
    )
    assert refusal.value.fields == {"placed": 2, "asked": 3}


def test_a_limit_on_servers_counts_those_of_the_request() -> None:
    limited = filters.enabled(["NumInstancesFilter"])

    with pytest.raises(NoValidHost, match="room for 2 of 3"):
        choose(request(), [host("a", servers=48)], 3, random=rng(), filters=limited)


# Properties


SIZES = strategies.fixed_dictionaries(
    {
        "vcpus": strategies.integers(1, 32),
        "memory_mib": strategies.integers(512, 32768),
        "disk_gib": strategies.integers(1, 500),
        "used_vcpus": strategies.integers(0, 40),
        "used_memory_mib": strategies.integers(0, 32768),
        "used_disk_gib": strategies.integers(0, 500),
        "reserved_memory_mib": strategies.integers(0, 512),
        "cell_uuid": strategies.sampled_from([EAST, WEST, "cell-north"]),
        "up": strategies.booleans(),
        "cleanups_open": strategies.booleans(),
    }
)
CLOUDS = strategies.lists(SIZES, max_size=12).map(
    lambda sizes: [host(f"host-{number}", **size) for number, size in enumerate(sizes)]
)
REQUESTS = strategies.builds(
    lambda vcpus, memory_mib, disk_gib: request(
        resources={"VCPU": vcpus, "MEMORY_MB": memory_mib, "DISK_GB": disk_gib}
    ),
    strategies.integers(1, 8),
    strategies.integers(1, 8192),
    strategies.integers(0, 100),
)


def room_for(wanted: Request, one: HostState) -> int:
    """How many of these servers the host can take, reckoned from the other side."""
    if not one.up or one.cleanups_open:
        return 0
    rooms = []
    for name, total in (("VCPU", one.vcpus), ("MEMORY_MB", one.memory_mib), ("DISK_GB", one.disk_gib)):
        asked = wanted.resources.get(name, 0)
        if asked > total:
            return 0
        if asked:
            rooms.append(max(0, int(one.free(name) // asked)))
    return min(rooms)


@hypothesis.given(CLOUDS, REQUESTS, strategies.integers(1, 20), strategies.integers(0, 3), strategies.integers())
def test_only_hosts_with_room_are_chosen_and_all_room_is_found(
    hosts: list[HostState], wanted: Request, num: int, alternates: int, seed: int
) -> None:
    room = {one.host: room_for(wanted, one) for one in hosts}
    try:
        choices = choose(wanted, hosts, num, alternates=alternates, random=rng(seed))
    except NoValidHost as refusal:
        assert sum(room.values()) < num
        assert refusal.fields["placed"] == sum(room.values())
        return

    assert len(choices) == num
    counts = collections.Counter(chosen(choices))
    assert all(count <= room[name] for name, count in counts.items())
    for choice in choices:
        names = [other.host for other in choice.alternates]
        assert len(names) <= alternates
        assert choice.host.host not in names
        assert len(names) == len(set(names))
        assert {other.cell_uuid for other in choice.alternates} <= {choice.host.cell_uuid}
        assert all(counts[name] < room[name] for name in names)


@hypothesis.given(
    strategies.integers(1, 12),
    strategies.integers(1, 4),
    strategies.integers(0, 40),
    strategies.integers(0, 40),
    strategies.integers(),
)
def test_equal_hosts_share_evenly(hosts: int, cells: int, num: int, servers: int, seed: int) -> None:
    cloud = [
        host(f"host-{number}", cell_uuid=f"cell-{number % cells}", memory_mib=65536, servers=servers)
        for number in range(hosts)
    ]
    wanted = request(resources={"VCPU": 1, "MEMORY_MB": 512})
    if num > sum(room_for(wanted, one) for one in cloud):
        return

    counts = collections.Counter({one.host: 0 for one in cloud})
    counts.update(chosen(choose(wanted, cloud, num, random=rng(seed))))

    assert max(counts.values()) - min(counts.values()) <= 1


@hypothesis.given(CLOUDS, REQUESTS)
def test_every_host_is_explained_once(hosts: list[HostState], wanted: Request) -> None:
    fitting = [one for one in hosts if room_for(wanted, one)]
    try:
        choose(wanted, [one for one in hosts if one not in fitting], random=rng())
    except NoValidHost as refusal:
        numbers = [int(word) for word in refusal.message.replace("(", " ").split() if word.isdecimal()]
        assert not numbers or numbers[0] == sum(numbers[1:])
    else:
        raise AssertionError("a host without room was chosen")


def test_a_plain_request_asks_few_questions() -> None:
    """Each question costs every host a call: what the request does not raise is not asked."""
    image = {"hw_architecture": "x86_64"}
    asked = request(image_properties=image)

    raised = [one.name for one in filters.DEFAULT if one.prepare(asked) is not None]

    assert raised == [
        "ComputeFilter", "DedicatedHostFilter", "ImagePropertiesFilter", "AggregateMultiTenancyIsolation",
        "CapacityFilter",
    ]  # fmt: skip


def test_a_server_goes_to_one_of_the_best_few_where_the_setting_says_so() -> None:
    hosts = [
        host(f"host-{number}", used_memory_mib=4000 * number, cell_uuid=(EAST, WEST)[number % 2]) for number in range(4)
    ]
    chance = rng()

    found = [chosen(choose(request(), hosts, random=chance, subset=2))[0] for _ in range(50)]

    assert set(found) == {"host-0", "host-1"}
    assert len(set(chosen(choose(request(), hosts, 9, random=chance, subset=100)))) == 4
    assert set(chosen(choose(request(), hosts, random=chance))) == {"host-0"}


def test_members_that_belong_together_stay_so_with_a_subset() -> None:
    hosts = [host(f"host-{number}") for number in range(4)]

    choices = choose(request(group=Group("affinity")), hosts, 3, random=rng(), subset=3)

    assert len(set(chosen(choices))) == 1

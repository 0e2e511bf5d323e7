"""Parts of the benchmarks that need no cloud."""

import pytest

from benchmarks.boots import CASES, percentile, sized
from benchmarks.large import REFUSED_CLAIM, is_as_promised
from benchmarks.played_hosts import PlayedHost
from benchmarks.timed_super_conductor import DECISION, TimedSteps


@pytest.mark.parametrize(("boots", "expected"), [(None, 100), (1, 50), (60, 50), (130, 150)])
def test_a_case_boots_whole_requests(boots: int | None, expected: int) -> None:
    assert sized(CASES["multi50"], boots).boots == expected


def test_percentiles_of_nothing_and_of_one() -> None:
    assert (percentile([], 99), percentile([3.0], 99), percentile([1.0, 2.0, 3.0], 50)) == (0.0, 3.0, 2.0)


def test_refused_claims_are_counted_and_nothing_else() -> None:
    log = """
[requestlog req] 127.0.0.1 "POST /allocations" status: 204 len: 0 microversion: 1.36
[requestlog req] 127.0.0.1 "POST /allocations" status: 409 len: 300 microversion: 1.36
[requestlog req] 127.0.0.1 "PUT /resource_providers/1/inventories" status: 409 len: 300 microversion: 1.36
"""
    assert len(REFUSED_CLAIM.findall(log)) == 1


def test_a_decision_is_what_lies_between_lease_and_claim() -> None:
    steps = TimedSteps()
    with steps("super.lease"):
        pass
    for _ in range(2):  # the second claim of a round belongs to no decision of its own
        with steps("super.claim"):
            pass
    with steps("super.claim"):
        pass

    assert {name: len(seconds) for name, seconds in steps.seconds.items()} == {
        "super.lease": 1,
        DECISION: 1,
        "super.claim": 3,
    }


@pytest.mark.parametrize(
    ("growth", "wrong", "promised"), [(1.9, [], True), (2.1, [], False), (1.0, ["a server is lost"], False)]
)
def test_what_is_promised_of_a_large_cloud(growth: float, wrong: list[str], promised: bool) -> None:
    runs = {"one_super_conductor": {"wrong": []}, "two_super_conductors": {"wrong": wrong}}

    assert is_as_promised({"growth": {"cpu_s_per_boot": growth}, "hosts_20": runs, "hosts_2000": runs}) is promised


def test_a_played_host_says_what_a_real_one_would() -> None:
    host = PlayedHost("east-played-1")

    assert host.heartbeat(hello=True).guests == []
    assert host.heartbeat(hello=False).guests is None
    assert host.heartbeat(hello=False).inventory.node_uuid == PlayedHost("east-played-1").inventory.node_uuid

"""Allocation candidates of the real Placement: granular groups, providers below a host, traits."""

import uuid

import pytest

import core.errors
from clients.placement import CandidateGroup, CandidateQuery, Claim, Placement
from tests.clients.test_placement import new_host, new_uuid

# WebOb, Placement's own library, uses modules that Python has announced to drop.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

WHOLE = CandidateGroup({"VCPU": 1, "MEMORY_MB": 512})


def query(
    whole: CandidateGroup = WHOLE, policy: str = "none", host: str | None = None, **groups: CandidateGroup
) -> CandidateQuery:
    return CandidateQuery(whole=whole, groups=groups, group_policy=policy, in_tree=host, limit=1000)


def below(placement: Placement, host: str, name: str, inventories: dict[str, int], *traits: str) -> str:
    """A provider below the host, as another service makes it."""
    child = new_uuid()
    row = {"uuid": child, "name": f"{name}-{child}", "parent_provider_uuid": host}
    assert placement._http.ask("POST", "/resource_providers", row).status == 200
    placement.ensure_provider(
        child, row["name"], inventories={each: {"total": total} for each, total in inventories.items()}, traits=traits
    )
    return child


def test_a_host_gives_what_lies_below_it(placement: Placement) -> None:
    name = f"CUSTOM_{uuid.uuid4().hex.upper()}"
    plain, rich = new_host(placement), new_host(placement)
    first = below(placement, rich, "one", {name: 4}, "CUSTOM_FAST")
    below(placement, rich, "two", {name: 1}, "CUSTOM_OLD")
    fast = CandidateGroup({name: 2}, frozenset({"CUSTOM_FAST"}), frozenset({"CUSTOM_OLD"}))

    found = placement.candidates(query(_net=fast))

    assert plain not in found
    assert found == {rich: [{rich: WHOLE.resources, first: {name: 2}}]}
    placement.claim(
        [
            Claim(
                uuid=new_uuid(), provider_uuid=rich, resources={}, project_id="p", user_id="u", generation=None,
                allocation=found[rich][0],
            )
        ]
    )  # fmt: skip
    assert placement.provider_usages(first) == {name: 2}
    assert placement.provider_usages(rich)["VCPU"] == 1


@pytest.mark.parametrize(("policy", "ways"), [("none", 4), ("isolate", 2)])
def test_isolated_groups_come_from_different_providers(placement: Placement, policy: str, ways: int) -> None:
    name = f"CUSTOM_{uuid.uuid4().hex.upper()}"
    host = new_host(placement)
    for child in ("one", "two"):
        below(placement, host, child, {name: 4})
    group = CandidateGroup({name: 1})

    found = placement.candidates(query(policy=policy, **{"1": group, "2": group}))

    assert len(found[host]) == ways


def test_traits_of_the_whole_are_the_hosts_own(placement: Placement) -> None:
    host = new_host(placement)

    def is_found(**traits: frozenset[str]) -> bool:
        return host in placement.candidates(query(CandidateGroup(WHOLE.resources, **traits), host=host))

    assert is_found(required=frozenset({"HW_CPU_X86_AVX"}))
    assert not is_found(required=frozenset({"HW_CPU_X86_AVX512F"}))
    assert not is_found(forbidden=frozenset({"HW_CPU_X86_AVX"}))


def test_one_tree_is_asked_for_and_no_other(placement: Placement) -> None:
    here, there = new_host(placement), new_host(placement)

    assert {here, there} <= placement.candidates(query()).keys()
    assert placement.candidates(query(host=here)).keys() == {here}


def test_what_placement_does_not_know_is_refused_and_not_broken(placement: Placement) -> None:
    for whole in (
        CandidateGroup({"CUSTOM_NO_SUCH": 1}),
        CandidateGroup({"VCPU": 1}, frozenset({"CUSTOM_NO_SUCH_TRAIT"})),
    ):
        with pytest.raises(core.errors.Invalid, match="CUSTOM_NO_SUCH"):
            placement.candidates(query(whole))

"""What Placement is asked for allocation candidates, and what it answers (GET /allocation_candidates, 1.36)."""

import dataclasses
import urllib.parse
from collections.abc import Mapping

import msgspec


@dataclasses.dataclass(frozen=True, slots=True)
class CandidateGroup:
    """Resources of one provider, with the traits that it has to have and those that it must not have."""

    resources: Mapping[str, int]
    required: frozenset[str] = frozenset()
    forbidden: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class CandidateQuery:
    """`whole`: of any providers of one host. `groups`: suffix -> of one provider each; `group_policy`: none or isolate.

    `in_tree`: the uuid of the only node that will do.
    """

    whole: CandidateGroup
    groups: Mapping[str, CandidateGroup]
    group_policy: str
    in_tree: str | None = None
    limit: int

    def text(self) -> str:
        """The query string. Traits of the whole are the host's own (`root_required`)."""
        pairs = [("limit", str(self.limit))]
        if self.whole.resources:
            pairs.append(("resources", _amounts(self.whole.resources)))
        root = _traits(self.whole)
        if root:
            pairs.append(("root_required", root))
        for name, group in sorted(self.groups.items()):
            pairs.append((f"resources{name}", _amounts(group.resources)))
            traits = _traits(group)
            if traits:
                pairs.append((f"required{name}", traits))
        if len(self.groups) > 1 or (self.groups and self.group_policy != "none"):
            pairs.append(("group_policy", self.group_policy))
        if self.in_tree is not None:
            pairs.append(("in_tree", self.in_tree))
        return urllib.parse.urlencode(pairs)


Allocation = Mapping[str, Mapping[str, int]]
"""Provider -> what is taken of it, by resource class."""


class _Provided(msgspec.Struct, frozen=True):
    resources: dict[str, int]


class _Request(msgspec.Struct, frozen=True):
    allocations: dict[str, _Provided]


class _Summary(msgspec.Struct, frozen=True):
    root_provider_uuid: str


class Candidates(msgspec.Struct, frozen=True):
    """The document."""

    allocation_requests: list[_Request]
    provider_summaries: dict[str, _Summary]

    def by_root(self) -> dict[str, list[Allocation]]:
        """Node -> the ways in which it can give what was asked for, in Placement's order."""
        allocations: dict[str, list[Allocation]] = {}
        for request in self.allocation_requests:
            roots = {
                self.provider_summaries[provider].root_provider_uuid
                for provider in request.allocations
                if provider in self.provider_summaries
            }
            # Shared storage would be a second root: whose it is nobody could say afterwards.
            if len(roots) == 1:
                allocations.setdefault(roots.pop(), []).append(
                    {provider: given.resources for provider, given in request.allocations.items()}
                )
        return allocations


def _amounts(resources: Mapping[str, int]) -> str:
    return ",".join(f"{name}:{amount}" for name, amount in sorted(resources.items()))


def _traits(group: CandidateGroup) -> str:
    return ",".join([*sorted(group.required), *(f"!{name}" for name in sorted(group.forbidden))])

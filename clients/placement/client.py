"""OpenStack Placement: claims, and what hosts have to give.

Microversion 1.36 is spoken, the oldest that knows all we use, so that older releases of Placement serve as well.
"""

import dataclasses
import importlib
import random
import time
import urllib.parse
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec
from oslo_config import cfg

import core.errors
import core.log
from clients.http import HttpClient, Reply, Transport, token_headers
from clients.placement import inventory
from clients.placement.answers import (
    Aggregates,
    Allocations,
    GenerationConflict,
    Inventories,
    ProviderAllocations,
    ProviderRow,
    Providers,
    ProviderTraits,
    Traits,
    Usages,
    Versions,
    decoded,
    detail,
    refused,
)
from clients.placement.candidates import Allocation, CandidateQuery, Candidates

LOG = core.log.get(__name__)
T = TypeVar("T", bound=msgspec.Struct)

_VERSION = (1, 36)
_HEADERS = {"OpenStack-API-Version": f"placement {_VERSION[0]}.{_VERSION[1]}"}
_TRIES = 5


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Resources of one host for one server; `generation` None: the consumer is not known to Placement yet.

    `allocation`: what is taken of the host's provider and of those below it; None: `resources`, all of the host's own.
    """

    uuid: str
    provider_uuid: str
    resources: Mapping[str, int]
    project_id: str
    user_id: str
    generation: int | None
    allocation: Allocation | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClaimState:
    """A claim as Placement holds it; no `providers` and `generation` None: there is none to be read."""

    generation: int | None = None
    providers: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)
    project_id: str | None = None
    user_id: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A resource provider: for us, a compute node."""

    uuid: str
    name: str
    generation: int
    parent_uuid: str | None
    traits: frozenset[str]


def connect(conf: cfg.ConfigOpts) -> "Placement":
    """The Placement that `[placement] endpoint` names: `http://…`, `https://…` or `wsgi:///path/of/placement.conf`.

    Raises:
        Invalid: the endpoint is missing or of no such form.
    """
    endpoint = conf.placement.endpoint or ""
    timeout_s = conf.placement.timeout_s
    headers = token_headers(conf.placement.token)
    if endpoint.startswith(("http://", "https://")):
        return Placement(
            HttpClient(endpoint, who="Placement", timeout_s=timeout_s, headers=headers, fixed=_HEADERS),
            timeout_s=timeout_s,
        )
    if endpoint.startswith("wsgi:///"):
        # Late, because it brings the whole Placement into this process.
        in_process = importlib.import_module("clients.placement.in_process")
        path = endpoint.removeprefix("wsgi://")
        return Placement(
            in_process.InProcessTransport(path, timeout_s=timeout_s, headers=headers, fixed=_HEADERS),
            timeout_s=timeout_s,
        )
    raise core.errors.Invalid(
        f"[placement] endpoint {endpoint!r} is neither http://… nor wsgi:///…", field="placement.endpoint"
    )


class Placement:
    """Blocking, safe for many threads. Every call may raise `Unavailable`: what was asked may have been done."""

    def __init__(self, http: Transport, *, timeout_s: float, rng: random.Random | None = None) -> None:
        self._http = http
        self._timeout_s = timeout_s
        self._rng = rng or random.Random()

    def close(self) -> None:
        self._http.close()

    # Claims

    def claim(self, claims: Sequence[Claim]) -> None:
        """Takes all of them, or none, in one write; each replaces whatever its consumer held.

        Raises:
            GenerationConflict: a consumer is not at the generation named (read it, renew the lease, claim again), or
                the providers changed too often meanwhile.
            NoCapacity: at least one does not fit, or its provider is gone.
        """
        if not claims:
            return
        try:
            self._write_claims(claims)
        except GenerationConflict as conflict:
            if conflict.fields["of"] != "consumer":
                raise
            self._write_claims(self._with_leftovers(claims, conflict))

    def read_claim(self, uuid: str) -> ClaimState:
        """What the consumer holds."""
        claim = self._get(f"/allocations/{uuid}", Allocations)
        if not claim.allocations:
            return ClaimState()
        if claim.consumer_generation is None:
            raise core.errors.Unavailable(f"Placement: the claim of {uuid} has no generation")
        return ClaimState(
            generation=claim.consumer_generation,
            providers={name: allocated.resources for name, allocated in claim.allocations.items()},
            project_id=claim.project_id,
            user_id=claim.user_id,
        )

    def release(self, uuid: str) -> None:
        """Lets go of all the consumer holds, at whatever generation; nothing held is fine."""
        for _ in range(_TRIES):
            reply = self._http.ask("DELETE", f"/allocations/{uuid}")
            if reply.status == 204:
                return
            # Placement also says 404 when the claim moved between its own read and delete.
            if reply.status == 404 and "No allocations" in detail(reply):
                return
            if reply.status != 404:
                raise refused(reply, "DELETE", f"/allocations/{uuid}")
        raise core.errors.Unavailable(f"the claim of {uuid} changes too often and could not be released")

    def release_at(self, uuid: str, generation: int, project_id: str, user_id: str) -> None:
        """Lets go of all the consumer holds if it is still at this generation.

        Raises:
            GenerationConflict: it is not.
        """
        body = {"allocations": {}, "project_id": project_id, "user_id": user_id, "consumer_generation": generation}
        self._send("PUT", f"/allocations/{uuid}", body, success=(204,), consumers=[uuid])

    def claims_on_provider(self, provider_uuid: str) -> dict[str, dict[str, int]]:
        """Consumer -> what it holds of this provider.

        Raises:
            NotFound: no such provider.
        """
        reply = self._get(_path(provider_uuid, "allocations"), ProviderAllocations)
        return {consumer: allocated.resources for consumer, allocated in reply.allocations.items()}

    def candidates(self, query: CandidateQuery) -> dict[str, list[Allocation]]:
        """Node -> the ways in which it, with the providers below it, can give what is asked for; nodes that cannot are
        missing.

        Raises:
            Invalid: Placement knows a resource class or a trait of the question not, or makes nothing of it.
        """
        path = f"/allocation_candidates?{query.text()}"
        reply = self._http.ask("GET", path)
        if reply.status == 200:
            return decoded(reply, Candidates, "GET", path).by_root()
        refusal = refused(reply, "GET", path)
        if isinstance(refusal, core.errors.Broken):
            # The owner of a server reads this: what was asked of which node is none of it.
            why = f"Placement cannot give what flavor and image ask for: {detail(reply)[:300]}"
            raise core.errors.Invalid(why, field="extra_specs")
        raise refusal

    # Providers

    def ensure_provider(
        self,
        uuid: str,
        name: str,
        *,
        inventories: inventory.Inventories,
        traits: Iterable[str],
        aggregates: Iterable[str] | None = None,
        even_below_usage: bool = False,
    ) -> None:
        """Makes Placement know the host as it is. May be repeated; writes only what differs.

        Custom resource classes and traits that operators added stay. `aggregates` None leaves them as they are.

        Raises:
            Conflict: another provider has this name, or the provider of this uuid has another: it is not ours, and
                nothing was written. Or an inventory would shrink below what is used of it (`classes`; traits and
                aggregates are written all the same). `even_below_usage` shrinks it: nothing more will fit until enough
                is released.
        """
        self._ensure_named(uuid, name)
        self._ensure_traits(uuid, lambda now: inventory.traits_after(now, traits))
        if aggregates is not None:
            self.set_aggregates(uuid, aggregates)
        self._at_its_generation(lambda: self._try_inventories(uuid, inventories, even_below_usage))

    def delete_provider(self, uuid: str, name: str) -> None:
        """Forgets the host; one that is not known is fine.

        Raises:
            Conflict: something is claimed on it, or it has child providers, or it is of another name: somebody else's.
        """
        self._refuse_others(uuid, name)
        reply = self._http.ask("DELETE", _path(uuid))
        if reply.status not in (204, 404):
            raise refused(reply, "DELETE", _path(uuid))

    def set_aggregates(self, provider_uuid: str, aggregate_uuids: Iterable[str]) -> None:
        """Makes these the provider's aggregates."""
        wanted = sorted(set(aggregate_uuids))
        self._at_its_generation(lambda: self._try_aggregates(provider_uuid, wanted))

    def set_disabled(self, provider_uuid: str, disabled: bool) -> None:
        """Keeps new claims by candidates away from the host, or lets them come again."""
        mark = {inventory.DISABLED}
        self._ensure_traits(provider_uuid, lambda now: now | mark if disabled else now - mark)

    def inventories(self, uuid: str) -> dict[str, dict[str, float]]:
        """Resource class -> its inventory.

        Raises:
            NotFound: no such provider.
        """
        return self._get(_path(uuid, "inventories"), Inventories).inventories

    def provider_usages(self, uuid: str) -> dict[str, int]:
        """Resource class -> what is claimed of it.

        Raises:
            NotFound: no such provider.
        """
        return self._get(_path(uuid, "usages"), Usages).usages

    def provider_traits(self, uuid: str) -> frozenset[str]:
        """The provider's traits.

        Raises:
            NotFound: no such provider.
        """
        return frozenset(self._get(_path(uuid, "traits"), ProviderTraits).traits)

    def provider_aggregates(self, uuid: str) -> frozenset[str]:
        """The uuids of the provider's aggregates.

        Raises:
            NotFound: no such provider.
        """
        return frozenset(self._get(_path(uuid, "aggregates"), Aggregates).aggregates)

    def providers(self, traits: Iterable[str] | None = None) -> list[Provider]:
        """All providers, with those of these traits that they have; None: with all their traits.

        One request, and one more for each trait: Placement tells traits of many providers no other way.
        """
        names = self._traits_in_use() if traits is None else list(traits)
        having = {name: {row.uuid for row in self._rows(f"?required={name}")} for name in names}
        return [
            Provider(
                uuid=row.uuid,
                name=row.name,
                generation=row.generation,
                parent_uuid=row.parent_provider_uuid,
                traits=frozenset(name for name in names if row.uuid in having[name]),
            )
            for row in self._rows("")
        ]

    def healthy(self) -> bool:
        """True if it answers and speaks a microversion that we know."""
        try:
            versions = self._get("/", Versions).versions
            return any(_number(row.min_version) <= _VERSION <= _number(row.max_version) for row in versions)
        except (core.errors.CellplaneError, ValueError):
            return False

    # Private: claims

    def _write_claims(self, claims: Sequence[Claim]) -> None:
        body = {claim.uuid: _transport(claim) for claim in claims}
        self._at_its_generation(lambda: self._send("POST", "/allocations", body, success=(204,), consumers=list(body)))

    def _with_leftovers(self, claims: Sequence[Claim], conflict: GenerationConflict) -> list[Claim]:
        """The claims once more, at generation 0 where nothing is held.

        A Placement killed between making a consumer and its allocations leaves one of generation 0 that a read does not
        show. Its 0 is as good a fence as null: only the first write at 0 succeeds.
        """
        null = [claim for claim in claims if claim.generation is None]
        allocated = [claim.uuid for claim in null if self.read_claim(claim.uuid).providers]
        left_over = {claim.uuid for claim in null if not allocated and self._is_left_over(claim)}
        if not left_over:
            consumers = allocated or conflict.fields["consumers"]
            raise GenerationConflict(conflict.message, of="consumer", consumers=consumers) from conflict
        return [dataclasses.replace(claim, generation=0) if claim.uuid in left_over else claim for claim in claims]

    def _is_left_over(self, claim: Claim) -> bool:
        """Placement does not say which of many consumers was refused; an empty write at generation 0 fits a leftover
        alone."""
        try:
            self.release_at(claim.uuid, 0, claim.project_id, claim.user_id)
        except GenerationConflict:
            return False
        return True

    # Private: providers

    def _ensure_named(self, uuid: str, name: str) -> None:
        if self._refuse_others(uuid, name):
            return
        reply = self._http.ask("POST", "/resource_providers", {"uuid": uuid, "name": name})
        if reply.status == 200:
            decoded(reply, ProviderRow, "POST", "/resource_providers")
        elif reply.status != 409:
            raise refused(reply, "POST", "/resource_providers")
        elif not self._refuse_others(uuid, name):  # Another conductor may have made it between our two requests.
            raise core.errors.Conflict(
                f"Placement already has a provider named {name}, with another uuid", provider_uuid=uuid
            )

    def _refuse_others(self, uuid: str, name: str) -> bool:
        """Whether Placement knows the provider.

        Raises:
            Conflict: it has another name: whoever made it, it is not the host of this name.
        """
        reply = self._http.ask("GET", _path(uuid))
        if reply.status == 404 and isinstance(refused(reply, "GET", _path(uuid)), core.errors.NotFound):
            return False
        if reply.status != 200:
            raise refused(reply, "GET", _path(uuid))
        known = decoded(reply, ProviderRow, "GET", _path(uuid))
        if known.name != name:
            raise core.errors.Conflict(
                f"provider {uuid} is {known.name} and not {name}: it is not changed", provider_uuid=uuid
            )
        return True

    def _ensure_traits(self, uuid: str, after: Callable[[set[str]], set[str]]) -> None:
        self._at_its_generation(lambda: self._try_traits(uuid, after))

    def _try_traits(self, uuid: str, after: Callable[[set[str]], set[str]]) -> None:
        current = self._get(_path(uuid, "traits"), ProviderTraits)
        now = set(current.traits)
        wanted = after(now)
        if wanted - now:
            wanted = self._known_traits(wanted)
        if wanted != now:
            body = {"resource_provider_generation": current.resource_provider_generation, "traits": sorted(wanted)}
            self._put(_path(uuid, "traits"), body, ProviderTraits)

    def _known_traits(self, wanted: set[str]) -> set[str]:
        """Those that Placement knows, or can be taught; an older Placement has fewer standard traits than a newer
        host."""
        query = urllib.parse.quote("in:" + ",".join(sorted(wanted)), safe=":,")
        known = set(self._get(f"/traits?name={query}", Traits).traits)
        for name in sorted(wanted - known):
            if name.startswith("CUSTOM_"):
                self._send("PUT", f"/traits/{name}", success=(201, 204))
                known.add(name)
            else:
                LOG.warning("trait unknown to Placement, left out: trait=%s", name)
        return wanted & known

    def _try_inventories(self, uuid: str, wanted: inventory.Inventories, even_below_usage: bool) -> None:
        current = self._get(_path(uuid, "inventories"), Inventories)
        now = current.inventories
        new = inventory.after(now, wanted)
        if new == now:
            return
        small = inventory.too_small(new, self._usages_at(uuid, current.resource_provider_generation), now)
        if small and not even_below_usage:
            raise core.errors.Conflict(
                f"the inventory would be smaller than its use: {'; '.join(small)}", provider_uuid=uuid, classes=small
            )
        for name in new.keys() - now.keys():
            if name.startswith("CUSTOM_"):
                self._send("PUT", f"/resource_classes/{name}", success=(201, 204))
        body = {"resource_provider_generation": current.resource_provider_generation, "inventories": new}
        self._put(_path(uuid, "inventories"), body, Inventories)

    def _usages_at(self, uuid: str, generation: int) -> dict[str, int]:
        reply = self._get(_path(uuid, "usages"), Usages)
        if reply.resource_provider_generation != generation:
            raise GenerationConflict(f"provider {uuid} changed between two reads", of="provider", consumers=[])
        return reply.usages

    def _try_aggregates(self, uuid: str, wanted: list[str]) -> None:
        current = self._get(_path(uuid, "aggregates"), Aggregates)
        if sorted(current.aggregates) != wanted:
            body = {"resource_provider_generation": current.resource_provider_generation, "aggregates": wanted}
            self._put(_path(uuid, "aggregates"), body, Aggregates)

    def _traits_in_use(self) -> list[str]:
        return self._get("/traits?associated=true", Traits).traits

    def _rows(self, query: str) -> list[ProviderRow]:
        return self._get(f"/resource_providers{query}", Providers).resource_providers

    # Private: asking

    def _at_its_generation(self, write: Callable[[], None]) -> None:
        """Writes, and again when a provider changed meanwhile: its generation orders writers, ours is as good as
        theirs."""
        give_up_at = time.monotonic() + self._timeout_s
        for tries_left in reversed(range(_TRIES)):
            try:
                write()
                return
            except GenerationConflict as conflict:
                if conflict.fields["of"] != "provider" or not tries_left or time.monotonic() > give_up_at:
                    raise
            time.sleep(self._rng.uniform(0.0, 0.05))

    def _get(self, path: str, kind: type[T]) -> T:
        return decoded(self._answered("GET", path, None, success=(200,)), kind, "GET", path)

    def _put(self, path: str, body: object, kind: type[T]) -> None:
        """A write that Placement answers with what there is now."""
        decoded(self._answered("PUT", path, body, success=(200,)), kind, "PUT", path)

    def _send(
        self, method: str, path: str, body: object = None, *, success: Collection[int], consumers: Sequence[str] = ()
    ) -> None:
        """A write that is answered with a status alone. Any other than these is no success, 200 included."""
        self._answered(method, path, body, success=success, consumers=consumers)

    def _answered(
        self, method: str, path: str, body: object, *, success: Collection[int], consumers: Sequence[str] = ()
    ) -> Reply:
        reply = self._http.ask(method, path, body)
        if reply.status not in success:
            raise refused(reply, method, path, consumers)
        return reply


def _transport(claim: Claim) -> dict[str, object]:
    taken = claim.allocation or {claim.provider_uuid: claim.resources}
    return {
        "allocations": {provider: {"resources": dict(resources)} for provider, resources in taken.items()},
        "project_id": claim.project_id,
        "user_id": claim.user_id,
        "consumer_generation": claim.generation,
    }


def _path(uuid: str, below: str = "") -> str:
    return f"/resource_providers/{uuid}/{below}" if below else f"/resource_providers/{uuid}"


def _number(version: str) -> tuple[int, int]:
    major, minor = version.split(".")
    return int(major), int(minor)

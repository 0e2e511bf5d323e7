"""What Placement's answers mean to us: the documents of its successes, and its refusals.

Only what has the form of Placement's answer is one (Placement API, microversion 1.36). What else answers in its place,
a proxy or a half-dead service, has said nothing.
"""

import re
from collections.abc import Sequence
from typing import TypeVar

import msgspec

import core.errors
from clients.http import Reply

T = TypeVar("T", bound=msgspec.Struct)


class ProviderAllocation(msgspec.Struct, frozen=True):
    """What a consumer holds of a provider."""

    resources: dict[str, int]


class Allocations(msgspec.Struct, frozen=True, kw_only=True):
    """Of one consumer, by provider; without any the rest is missing, too."""

    allocations: dict[str, ProviderAllocation]
    consumer_generation: int | None = None
    project_id: str | None = None
    user_id: str | None = None


class ProviderAllocations(msgspec.Struct, frozen=True):
    """On one provider, by consumer."""

    allocations: dict[str, ProviderAllocation]


class ProviderRow(msgspec.Struct, frozen=True, kw_only=True):
    """One resource provider."""

    uuid: str
    name: str
    generation: int
    parent_provider_uuid: str | None


class Providers(msgspec.Struct, frozen=True):
    """A list of them."""

    resource_providers: list[ProviderRow]


class Inventories(msgspec.Struct, frozen=True):
    """What a provider has to give, by resource class."""

    resource_provider_generation: int
    inventories: dict[str, dict[str, int | float]]


class Usages(msgspec.Struct, frozen=True):
    """What is claimed of a provider, by resource class."""

    resource_provider_generation: int
    usages: dict[str, int]


class ProviderTraits(msgspec.Struct, frozen=True):
    """The traits of a provider."""

    resource_provider_generation: int
    traits: list[str]


class Traits(msgspec.Struct, frozen=True):
    """A list of traits."""

    traits: list[str]


class Aggregates(msgspec.Struct, frozen=True):
    """The aggregates of a provider."""

    resource_provider_generation: int
    aggregates: list[str]


class Version(msgspec.Struct, frozen=True):
    """A version of the API and the microversions that it knows."""

    min_version: str
    max_version: str


class Versions(msgspec.Struct, frozen=True):
    """What is spoken."""

    versions: list[Version]


def decoded(reply: Reply, kind: type[T], method: str, path: str) -> T:
    """The document of a success.

    Raises:
        Unavailable: it is none of this kind.
    """
    try:
        return msgspec.json.decode(reply.body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise core.errors.Unavailable(
            f"Placement: {method} {path} answered {reply.status} and no {kind.__name__}: {error}"
        ) from error


_CONCURRENT = "placement.concurrent_update"
_NAMED_PROVIDER = re.compile(r"resource provider '([0-9a-f-]{36})")
_NAMED_CLASS = re.compile(r"(?:Inventory|allocation) for '([A-Z0-9_]+)'")


class GenerationConflict(core.errors.Conflict):
    """Somebody else wrote first. `of` says what: "consumer" (then `consumers` lists them) or "provider"."""


class NoCapacity(core.errors.Conflict):
    """It does not fit. `provider_uuid` and `resource_class` name what was too small, as far as Placement says."""


def refused(reply: Reply, method: str, path: str, consumers: Sequence[str] = ()) -> core.errors.CellplaneError:
    """What an answer other than the success that was expected means."""
    if not _error(reply):
        return core.errors.Unavailable(f"Placement: {method} {path} answered {reply.status}: {reply.body[:200]!r}")
    said = f"Placement: {method} {path} answered {reply.status}: {detail(reply)[:300]}"
    if reply.status == 409 and _error(reply).get("code") == _CONCURRENT:
        of = "consumer" if "consumer generation conflict" in said else "provider"
        return GenerationConflict(said, of=of, consumers=list(consumers))
    allocating = path.startswith("/allocations")
    if allocating and (reply.status == 409 or (reply.status == 400 and "does not exist" in said)):
        return NoCapacity(said, **_named(said))
    if reply.status == 409:
        return core.errors.Conflict(said)
    if reply.status == 404:
        return core.errors.NotFound(said)
    if reply.status == 400:
        return core.errors.Broken(said)
    # 401, 403, 406 and 5xx alike: somebody has to mend Placement or our way to it, and the work waits for that.
    return core.errors.Unavailable(said)


def _named(said: str) -> dict[str, str]:
    matches = {"provider_uuid": _NAMED_PROVIDER.search(said), "resource_class": _NAMED_CLASS.search(said)}
    return {field: match.group(1) for field, match in matches.items() if match}


def detail(reply: Reply) -> str:
    """The refusal in Placement's words."""
    return " ".join(str(_error(reply).get("detail", "")).split())


def _error(reply: Reply) -> dict[str, object]:
    """The first error of Placement's document of errors; empty: the answer is none, so somebody else has refused."""
    try:
        errors = reply.json().get("errors")
    except core.errors.Unavailable:
        return {}
    return errors[0] if isinstance(errors, list) and errors and isinstance(errors[0], dict) else {}

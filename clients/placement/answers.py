"""What Placement's refusals mean to us."""

import re
from collections.abc import Sequence

import core.errors
from clients.wire import Reply

_CONCURRENT = "placement.concurrent_update"
_NAMED_PROVIDER = re.compile(r"resource provider '([0-9a-f-]{36})")
_NAMED_CLASS = re.compile(r"(?:Inventory|allocation) for '([A-Z0-9_]+)'")


class GenerationConflict(core.errors.Conflict):
    """Somebody else wrote first. `of` says what: "consumer" (then `consumers` lists them) or "provider"."""


class NoCapacity(core.errors.Conflict):
    """It does not fit. `provider_uuid` and `resource_class` name what was too small, as far as Placement says."""


def refused(reply: Reply, method: str, path: str, consumers: Sequence[str] = ()) -> core.errors.CellplaneError:
    """What an answer other than success means."""
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
    found = {"provider_uuid": _NAMED_PROVIDER.search(said), "resource_class": _NAMED_CLASS.search(said)}
    return {field: match.group(1) for field, match in found.items() if match}


def detail(reply: Reply) -> str:
    return " ".join(str(_error(reply).get("detail", "")).split())


def _error(reply: Reply) -> dict[str, object]:
    try:
        errors = reply.json().get("errors")
    except core.errors.Unavailable:
        return {"detail": reply.body[:200].decode("utf-8", "replace")}
    return errors[0] if isinstance(errors, list) and errors else {}

"""What became of journal rows that were worked on. Handlers give it back; the worker writes it."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import core.errors
import core.log
from api_db.journal import Entry
from core.log import requests
from objects.fault import Fault

LOG = core.log.get(__name__)
Explanations = list[dict[str, object]]
Part = TypeVar("Part")
Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True, slots=True)
class HandedOver:
    """A cell has the work: the row is dropped."""

    entry: Entry


@dataclasses.dataclass(frozen=True, slots=True)
class GiveBack:
    """A part that is needed does not answer, or says not yet: the row is tried again. `fault`: what users see until
    then. `explanations`: why it has no host yet; None: as before."""

    entry: Entry
    fault: Fault | None = None
    explanations: Explanations | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Refused:
    """A compare-and-set on the row found nothing: it was deleted meanwhile, or somebody else holds it."""

    entry: Entry


@dataclasses.dataclass(frozen=True, slots=True)
class Finished:
    """The handler has ended the row itself, or has left it to whoever holds it now."""

    entry: Entry


Outcome = HandedOver | GiveBack | Refused | Finished


def worked_on(entries: Sequence[Entry], work: Callable[[Sequence[Entry]], Iterable[Outcome]]) -> list[Outcome]:
    """Works on entries, and gives an outcome for each, also if a part that is needed does not answer.

    What fails in another way is logged and has no outcome: it is tried again when its lease is over.
    """
    outcomes: list[Outcome] = []
    if not entries:
        return outcomes
    try:
        for outcome in work(entries):
            outcomes.append(outcome)
    except core.errors.Unavailable as error:
        left = _without_outcome(entries, outcomes)
        LOG.warning("journal rows are put off %s count=%d why=%s", request_ids(left), len(left), error.message)
        outcomes += map(GiveBack, left)
    except Exception:
        left = _without_outcome(entries, outcomes)
        LOG.exception("journal rows could not be worked on %s count=%d", request_ids(left), len(left))
    return outcomes


def apart(
    parts: Sequence[Part], work: Callable[[Sequence[Part]], Result], *, about: Callable[[Part], str]
) -> Iterator[tuple[Sequence[Part], Result]]:
    """Does the work for all parts at once; if that fails in a way that nobody expects, for each part alone, so that the
    one that is to blame costs no other. Gives results with their parts.

    `work` may be repeated for a part. A part that fails alone is logged, and has no result.

    Args:
        about: the fields of the log's line about a part.

    Raises:
        Unavailable: a part that `work` needs does not answer.
    """
    try:
        result = work(parts)
    except core.errors.Unavailable:
        raise
    except Exception:
        if len(parts) == 1:
            raise
        LOG.exception("journal rows are worked on one by one count=%d", len(parts))
    else:
        yield parts, result
        return
    for part in parts:
        try:
            result = work([part])
        except core.errors.Unavailable:
            raise
        except Exception:
            LOG.exception("journal rows could not be worked on alone %s", about(part))
        else:
            yield [part], result


def request_ids(entries: Iterable[Entry]) -> str:
    """Of the log's lines about these entries."""
    return requests(entry.request_id for entry in entries)


def _without_outcome(entries: Sequence[Entry], outcomes: Sequence[Outcome]) -> list[Entry]:
    with_outcome = {outcome.entry.uuid for outcome in outcomes}
    return [entry for entry in entries if entry.uuid not in with_outcome]

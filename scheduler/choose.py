"""The choice: as many hosts as there are servers, each with alternates in its own cell."""

import collections
import dataclasses
import heapq
import random
from collections.abc import Iterable, Sequence

import core.errors
import core.log
from objects.explanation import MAX_ALTERNATES, MAX_REASONS, MAX_TEXT, Rejection, Weighed
from scheduler import filters as all_filters
from scheduler import weighers as all_weighers
from scheduler.filters import Check, Filter
from scheduler.hosts import HostState
from scheduler.request import Request
from scheduler.weighers import Scale, Weigher

LOG = core.log.get(__name__)
_NEAR = 0.05
"""Weights in the same step of this size are equals: which of them comes first is chance, or whoever has fewer of the
request."""


class NoValidHost(core.errors.Conflict):
    """Not every server of the request has a host; the message counts and explains every rejection. None is placed.

    `decision` says the same as data.
    """

    decision: "Decision | None" = None


@dataclasses.dataclass(frozen=True, slots=True)
class Decision:
    """What was thought of the hosts, for whoever is to explain it: nothing here is worked out before it is asked
    for."""

    hosts: int
    fit: int
    _rejected: Sequence[tuple[Filter, collections.Counter[str]]]
    _scale: Scale

    def rejected(self) -> list[Rejection]:
        """The hosts that each filter rejected, in the order of the filters."""
        return [
            Rejection(
                one.name,
                reasons.total(),
                {reason[:MAX_TEXT]: count for reason, count in reasons.most_common(MAX_REASONS)},
                one.plain,
            )
            for one, reasons in self._rejected
        ]

    def weighed(self, host: HostState) -> Weighed:
        """Why the host is good."""
        parts = {name: round(part, 3) for name, part in self._scale.parts(host).items() if part}
        return Weighed(host.host, host.cell_uuid, round(self._scale.weight(host), 3), parts)


@dataclasses.dataclass(frozen=True, slots=True)
class Choice:
    """Where one server goes, and where it goes if that fails; alternates lie in the same cell, best first."""

    host: HostState
    alternates: tuple[HostState, ...]
    decision: Decision = dataclasses.field(compare=False)

    def weighed_alternates(self) -> list[Weighed]:
        """Why the alternates are good."""
        return [self.decision.weighed(host) for host in self.alternates[:MAX_ALTERNATES]]


def choose(
    request: Request,
    hosts: Sequence[HostState],
    num: int | None = None,
    *,
    alternates: int = 2,
    random: random.Random,
    filters: Sequence[Filter] = all_filters.DEFAULT,
    weighers: Sequence[Weigher] = all_weighers.DEFAULT,
    subset: int = 1,
) -> list[Choice]:
    """Hosts for `num` servers (None: as many as the request says), spread over equals, hosts first and cells second.

    `subset`: each is one of so many best ones, by chance.

    Raises:
        NoValidHost: there is not room for all of them.
    """
    wanted = request.num if num is None else num
    sieve = _Sieve(request, filters)
    fit = sieve.passing(hosts)
    scale = Scale(weighers, fit)
    decision = Decision(len(hosts), len(fit), sieve.rejected, scale)
    board = _Board(request, fit, scale, sieve, random, subset)
    chosen = board.take_up_to(wanted)
    if len(chosen) < wanted:
        refusal = NoValidHost(
            _explained(len(hosts), sieve.rejected, wanted, len(chosen)), placed=len(chosen), asked=wanted
        )
        refusal.decision = decision
        raise refusal
    # After all hosts are chosen: what the request itself has filled is nobody's alternate.
    return [
        Choice(fit[number], tuple(fit[other] for other in board.alternates(number, alternates)), decision)
        for number in chosen
    ]


class _Sieve:
    """The filters that this request raises, and why each rejected host was rejected."""

    def __init__(self, request: Request, filters: Iterable[Filter]) -> None:
        self.rejected: list[tuple[Filter, collections.Counter[str]]] = []
        prepared = [(one, _prepared(one, request)) for one in filters if one.is_a_fact or not request.forced]
        self._checks = [(one, check) for one, check in prepared if check is not None]
        self._again: list[Check] = [check for one, check in self._checks if one.changes]

    def passing(self, hosts: Sequence[HostState]) -> list[HostState]:
        """Those that no filter rejects. Every host is counted once, by the first filter that rejects it."""
        left = list(hosts)
        for one, check in self._checks:
            try:
                reasons = [check(host) for host in left]
            except Exception:
                LOG.exception("a scheduler filter cannot judge a host filter=%s", one.name)
                reasons = [_reason(check, host) for host in left]
            if any(reasons):
                self.rejected.append((one, collections.Counter(filter(None, reasons))))
                left = [host for host, reason in zip(left, reasons, strict=True) if not reason]
        return left

    def still_passes(self, host: HostState) -> bool:
        """The same for a host that servers of this request were placed on."""
        return not any(_reason(check, host) for check in self._again)


def _prepared(one: Filter, request: Request) -> Check | None:
    """The filter's question.

    Raises:
        Invalid: the filter cannot make one of this request.
    """
    try:
        return one.prepare(request)
    except core.errors.CellplaneError:
        raise
    except Exception as error:
        LOG.exception("a scheduler filter cannot read a request filter=%s", one.name)
        raise core.errors.Invalid(f"the scheduler filter {one.name} cannot read the request", field=one.name) from error


def _reason(check: Check, host: HostState) -> str:
    """Why the host will not do; one of which the filter can make nothing will not do, and spoils no other."""
    try:
        return check(host)
    except Exception:
        return "could not be judged"


_Entry = tuple[int, int, float, int]
"""Step of the weight (negative: the least is the best), servers of this request on the host, chance, number of the
host."""


class _Board:
    """The hosts that passed, best first in each cell, with what this request places on them."""

    def __init__(
        self,
        request: Request,
        hosts: Sequence[HostState],
        scale: Scale,
        sieve: _Sieve,
        chance: random.Random,
        subset: int,
    ) -> None:
        self._request = request
        self._scale = scale
        self._sieve = sieve
        self._chance = chance
        self._subset = subset
        self._hosts = list(hosts)
        self._counted = [0] * len(hosts)
        self._cells: dict[str, list[_Entry]] = {}
        self._in_cell: collections.Counter[str] = collections.Counter()
        for number, (host, weight) in enumerate(zip(hosts, scale.weights(), strict=True)):
            self._cells.setdefault(host.cell_uuid, []).append((_step(weight), 0, chance.random(), number))
        for entries in self._cells.values():
            heapq.heapify(entries)
        self._size = {cell: len(entries) for cell, entries in self._cells.items()}

    def take_up_to(self, wanted: int) -> list[int]:
        """The numbers of the best hosts for so many servers, fewer if there is not room for all."""
        group = self._request.group
        together = group is not None and group.policy == "affinity" and wanted > 1
        taken: list[int] = []
        while len(taken) < wanted:
            entry = self._pop()
            if entry is None:
                break
            taken.append(self._take(entry[3], together=together))
        return taken

    def _pop(self) -> _Entry | None:
        """The best entry, or by chance one of the best few; None: there is none any more."""
        best: list[_Entry] = []
        while len(best) < self._subset:
            cells = [cell for cell, entries in self._cells.items() if entries]
            if not cells:
                break
            best.append(heapq.heappop(self._cells[min(cells, key=self._rank)]))
        if not best:
            return None
        chosen = best.pop(self._chance.randrange(len(best)) if len(best) > 1 else 0)
        for entry in best:
            heapq.heappush(self._cells[self._hosts[entry[3]].cell_uuid], entry)
        return chosen

    def alternates(self, number: int, most: int) -> list[int]:
        """The numbers of up to `most` other hosts of the same cell that would take the server, best first.

        They count as if half taken, so that the servers of a request fall back on many hosts and not all on the same.
        """
        entries = self._cells[self._hosts[number].cell_uuid]
        chosen: list[int] = []
        itself: list[_Entry] = []
        while entries and len(chosen) < most:
            entry = heapq.heappop(entries)
            if entry[3] == number:
                itself.append(entry)
            else:
                chosen.append(entry[3])
        for entry in itself:
            heapq.heappush(entries, entry)
        for other in chosen:
            self._count(other)
        return chosen

    def _take(self, number: int, *, together: bool) -> int:
        cell = self._hosts[number].cell_uuid
        self._in_cell[cell] += 1
        self._hosts[number] = self._hosts[number].with_server(self._request.resources)
        if together:
            # The first member decides for those that come with it.
            self._cells = {cell: []}
        self._count(number)
        return number

    def _rank(self, cell: str) -> tuple[int, int, float, float]:
        """The best host decides; among equals, the cell that has taken least for its size."""
        step, counted, chance, _ = self._cells[cell][0]
        return step, counted, self._in_cell[cell] / self._size[cell], chance

    def _count(self, number: int) -> None:
        """Puts the host back into its place, unless it can take no more."""
        self._counted[number] += 1
        host = self._hosts[number]
        if self._may_take_more(host, self._counted[number]):
            step = _step(self._scale.weight(host))
            heapq.heappush(self._cells[host.cell_uuid], (step, self._counted[number], self._chance.random(), number))

    def _may_take_more(self, host: HostState, counted: int) -> bool:
        group = self._request.group
        if (
            group is not None
            and group.policy == "anti-affinity"
            and counted + group.members.get(host.host, 0) >= group.most_per_host
        ):
            return False
        return self._sieve.still_passes(host)


def _step(weight: float) -> int:
    return -int(weight // _NEAR)


def _explained(
    total: int, rejected: Sequence[tuple[Filter, collections.Counter[str]]], wanted: int, placed: int
) -> str:
    if not total:
        return "No valid host was found. There are no hosts."
    parts: list[str] = []
    for one, reasons in rejected:
        verb = "" if parts else "rejected "
        parts.append(f"{reasons.total()} {verb}by {one.name} ({_told(reasons)})")
    room = f" There is room for {placed} of {wanted} servers." if placed else ""
    passed = total - sum(reasons.total() for _, reasons in rejected)
    if passed:
        parts.append(f"{passed} would do")
    return f"No valid host was found. {total} host{'s' if total != 1 else ''}: {', '.join(parts)}.{room}"


def _told(reasons: collections.Counter[str]) -> str:
    """One reason alone, several with their counts, most first; of very many the rest is summed up."""
    if len(reasons) == 1:
        return next(iter(reasons))
    told = [f"{reason}: {count}" for reason, count in reasons.most_common(5)]
    rest = reasons.total() - sum(count for _, count in reasons.most_common(5))
    return ", ".join(told) + (f", other: {rest}" if rest else "")

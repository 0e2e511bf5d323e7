"""What the host tells its cell: rows of many servers share a message, and a report is remembered until the broker has
confirmed it."""

import contextlib
import dataclasses
import functools
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import msgspec

import core.errors
import core.log
from core.clock import jittered
from core.context import Context, context_of_rows
from core.crash_points import CrashPoints
from core.log import requests
from messaging.pieces import send_in_pieces
from messaging.verbs import Verb, cell

LOG = core.log.get(__name__)

GATHER_S = 0.05
MAX_GATHER = 100
FIRST_RETRY_S = 0.1
LONGEST_RETRY_S = 3.0

Confirmed = Callable[[], None]


class Casts(Protocol):
    """What the reporter needs of `messaging.caller.Caller`."""

    def cast(
        self, queue: str, verb: Verb, arguments: msgspec.Struct, *, context: Context, deadline_s: float = ...
    ) -> None: ...


@dataclasses.dataclass(slots=True)
class _Report:
    row: Any
    confirmed: list[Confirmed]


class Reporter:
    """One thread, one publishing connection. What waits is bounded by the servers of the host: a newer report takes an
    older one's place.

    A lone report leaves at once; while reports come faster than one in `GATHER_S` they gather, at most that long and at
    most `MAX_GATHER` in a message. A broker that is away is tried again with growing pauses.
    """

    def __init__(self, caller: Casts, host: str, steps: CrashPoints) -> None:
        self._caller = caller
        self._host = host
        self._steps = steps
        self._lock = threading.Lock()
        self._news = threading.Condition(self._lock)
        self._waiting: dict[Verb, dict[Hashable, _Report]] = {}
        self._sending: tuple[Verb, dict[Hashable, _Report]] | None = None
        self._trouble = False
        self._stopping = False
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    def start(self) -> None:
        """Begins to send."""
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Sends what waits, within this time; False if something was left unsent."""
        with self._lock:
            self._stopping = True
            self._news.notify_all()
            done = self._news.wait_for(lambda: self._ended or not self._has_work(), timeout_s)
            self._waiting.clear()
            self._ended = True
            self._news.notify_all()
        if self._thread.ident is not None:
            self._thread.join(0.1)
        return done

    def report(self, verb: Verb, key: Hashable, row: object, confirmed: Confirmed | None = None) -> None:
        """Reports soon. The row takes the place of a waiting one with the same key; `confirmed` is called once the
        broker has it."""
        with self._lock:
            self._put(verb, key, row, [confirmed] if confirmed else [])
            self._news.notify_all()

    def report_now(self, verb: Verb, rows: Iterable[tuple[Hashable, object]], *, deadline_s: float) -> None:
        """Reports and returns when the broker has all rows.

        Raises:
            Unavailable: it did not confirm within the deadline; the reports stay, and go when it is there.
        """
        left = dict(rows)

        def confirm(key: Hashable) -> None:
            with self._lock:
                left.pop(key, None)
                self._news.notify_all()

        with self._lock:
            for key, row in left.items():
                self._put(verb, key, row, [functools.partial(confirm, key)])
            self._news.notify_all()
            self._news.wait_for(lambda: not left or self._ended, deadline_s)
            if left:
                raise core.errors.Unavailable(f"The broker did not confirm {verb.name} in time")

    def is_waiting(self, verb: Verb, key: Hashable) -> bool:
        """Whether a report with this key has not been confirmed yet."""
        with self._lock:
            is_being_sent = self._sending is not None and self._sending[0] == verb and key in self._sending[1]
            return is_being_sent or key in self._waiting.get(verb, ())

    def _put(self, verb: Verb, key: Hashable, row: object, confirmed: list[Confirmed]) -> None:
        rows = self._waiting.setdefault(verb, {})
        known = rows.get(key)
        # Whoever waits for the older report is served by the newer one.
        rows[key] = _Report(row, confirmed if known is None else [*known.confirmed, *confirmed])

    def _has_work(self) -> bool:
        return self._sending is not None or any(self._waiting.values())

    def _run(self) -> None:
        last_sent = retry_s = 0.0
        try:
            while self._wait(last_sent + GATHER_S, retry_s):
                retry_s = 0.0 if self._send_all() else min(LONGEST_RETRY_S, max(FIRST_RETRY_S, retry_s * 2))
                last_sent = time.monotonic()
        finally:
            with self._lock:
                self._ended = True
                self._news.notify_all()

    def _wait(self, not_before: float, retry_s: float) -> bool:
        """Waits for something to send, and then for its moment; False when it is time to end."""
        with self._lock:
            self._news.wait_for(lambda: any(self._waiting.values()) or self._ended)
            if retry_s:
                self._news.wait_for(lambda: self._ended or self._stopping, jittered(retry_s, 0.5, 1.0))
                if self._stopping:
                    self._news.wait_for(lambda: self._ended, FIRST_RETRY_S)
            else:
                self._news.wait_for(self._is_urgent, max(0.0, not_before - time.monotonic()))
            return not self._ended

    def _is_urgent(self) -> bool:
        return self._ended or self._stopping or any(len(rows) >= MAX_GATHER for rows in self._waiting.values())

    def _send_all(self) -> bool:
        """Sends all that waits now; False if the broker did not take something."""
        with self._lock:
            verbs = list(self._waiting)
        for verb in verbs:
            while batch := self._take(verb):
                if not self._send(verb, batch):
                    return False
        return True

    def _take(self, verb: Verb) -> dict[Hashable, _Report]:
        with self._lock:
            rows = self._waiting.get(verb, {})
            keys = list(rows)[: _MESSAGES[verb].most]
            batch = {key: rows.pop(key) for key in keys}
            self._sending = (verb, batch) if batch else None
            return batch

    def _send(self, verb: Verb, batch: dict[Hashable, _Report]) -> bool:
        message = _MESSAGES[verb]
        try:
            with self._steps(message.step) if message.step else contextlib.nullcontext():
                send_in_pieces([report.row for report in batch.values()], functools.partial(self._cast, verb, message))
        except core.errors.CellplaneError as error:
            if not self._trouble:
                said = _said(batch)
                LOG.warning(
                    "reports are kept until the broker takes them %s verb=%s count=%d why=%s",
                    said,
                    verb.name,
                    len(batch),
                    error,
                )
            self._trouble = True
            self._keep(verb, batch)
            return False
        except Exception:
            # The frame of this thread. Tried again it would fail again; what the disk remembers is reported anew by the
            # next round.
            LOG.exception(
                "reports cannot be sent and are dropped %s verb=%s count=%d", _said(batch), verb.name, len(batch)
            )
            self._done()
            return True
        if self._trouble:
            LOG.info("reports are sent again verb=%s", verb.name)
        self._trouble = False
        for report in batch.values():
            _tell(report)
        self._done()
        return True

    def _cast(self, verb: Verb, message: "_Message", rows: Sequence[Any]) -> None:
        arguments = message.make(self._host, list(rows))
        self._caller.cast(
            cell.REPORTS, verb, arguments, context=context_of_rows(_request_ids(rows)), deadline_s=message.deadline_s
        )

    def _done(self) -> None:
        with self._lock:
            self._sending = None
            self._news.notify_all()

    def _keep(self, verb: Verb, batch: dict[Hashable, _Report]) -> None:
        with self._lock:
            newer = self._waiting.get(verb, {})
            self._waiting[verb] = {}
            for rows in (batch, newer):
                for key, report in rows.items():
                    self._put(verb, key, report.row, report.confirmed)
            self._sending = None
            self._news.notify_all()


def _request_ids(rows: Iterable[Any]) -> list[str]:
    """Of the orders that the rows answer; none for what the host says unasked."""
    return [row.request_id for row in rows if getattr(row, "request_id", "")]


def _said(batch: Mapping[Hashable, _Report]) -> str:
    return requests(_request_ids(report.row for report in batch.values()))


def _tell(report: _Report) -> None:
    for call in report.confirmed:
        try:
            call()
        except core.errors.CellplaneError as error:
            # The report is out; what could not be noted down is only reported again.
            LOG.warning(
                "a confirmed report cannot be noted down %s why=%s", requests(_request_ids([report.row])), error
            )


@dataclasses.dataclass(frozen=True)
class _Message:
    """How rows become a message of a verb, and in which step of the protocol it is sent; None: nothing rests on it."""

    make: Callable[[str, list[Any]], msgspec.Struct]
    step: str | None = "agent.report"
    most: int = MAX_GATHER
    deadline_s: float = 3600.0


_MESSAGES: dict[Verb, _Message] = {
    cell.ACTIVE: _Message(cell.Active),
    cell.REFUSED: _Message(cell.Refused),
    cell.GONE: _Message(cell.Gone, step="agent.gone"),
    cell.ACTED: _Message(cell.Acted),
    cell.STAGES: _Message(cell.Stages, step=None, deadline_s=60.0),
    cell.POWER_STATES: _Message(cell.PowerStates),
    cell.HEARTBEAT: _Message(lambda _, rows: rows[0], step=None, most=1, deadline_s=60.0),
}

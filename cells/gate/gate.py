"""The one way to a cell: bounded threads and connections, a deadline, a circuit breaker.

No thread waits for another: a coroutine awaits the gate's future with the deadline, the gate's own few threads block on
PyMySQL, whose time-outs end them. With a shared pool of waiting threads one frozen cell took the others' p50 from 3 ms
to 1.6 s. Short questions of a list need no thread at all (`cells.gate.async_connections`).
"""

import asyncio
import concurrent.futures
import contextlib
import enum
import time
from collections.abc import Callable, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar

import msgspec
import pymysql
import sqlalchemy as sa
from pymysql.constants import CR

import core.errors
import core.log
from cells.gate.answers import Answer, Cause, Cell, Silence, Unknown
from cells.gate.async_connections import AsyncConnections, Question, ask
from cells.gate.bulkhead import Bulkhead, Down, GateMetrics
from core.at_once import AtOnce
from core.bounded_pool import ANY_LANE, Full, result_within
from core.clock import Clock, SystemClock
from core.context import Context
from database.async_connection import AsyncConnection, Rows
from database.engine import Database
from database.errors import OutcomeUnknown, is_transient, unkept
from messaging.broker import Broker, NoSuchQueue
from messaging.caller import Caller, Sent, forget
from messaging.verbs import Verb

LOG = core.log.get(__name__)

P = ParamSpec("P")
T = TypeVar("T")
Work = Callable[Concatenate[sa.Connection, P], T]

# MariaDB and MySQL: max_statement_time, max_execution_time exceeded.
TOO_SLOW = frozenset({1969, 3024})
# MariaDB: no access to the database, a wrong password, no such database, none at all. Asking again at once changes
# nothing.
REFUSALS = frozenset({1044, 1045, 1049, 1698})
# MariaDB: no database is chosen, there is none of the name, there is no such table. `SELECT 1` still has an answer
# then.
SCHEMA_MISSING = frozenset({1046, 1049, 1146})
# What only the question itself can be blamed for. MariaDB: syntax, too many tables, an expression that is none, a
# packet that is too large, too many parameters, no stack left for it, text of two character sets that cannot be
# compared. SQLite has no numbers.
QUESTION_REFUSED = frozenset({1064, 1116, 1139, 1153, 1267, 1390, 1436})
QUESTION_REFUSED_TEXTS = (
    "Expression tree is too large", "too many SQL variables", "parser stack overflow", "too many terms",
    "string or blob too big", "pattern too complex", "too many arguments", "too many columns",
    "Error binding parameter",
)  # fmt: skip
BROKER_THREADS = 2
SLOW_THREADS = 2
MAX_ASYNC_CONNECTIONS = 2
MAX_CALLS_OF_HOST = 2
UNREADABLE_SAID_EVERY_S = 60.0
PROBED_QUEUE = "conductor"
TRIES = 60
PAUSE_S = 0.1
# Of the deadline: after so much silence a fresh connection is tried, and for so long. Together they end before the
# round of a list does.
PING_AFTER, PING_WITHIN = 0.25, 0.5

SLOW_LANE, CALLS_LANE = "slow", "calls"


class Slow(enum.Enum):
    """Instead of a question for an asynchronous connection: what is asked may take long (a regular expression, a filter
    that no index serves)."""

    SLOW = enum.auto()


class _Failure(Exception):
    """The cell did not answer; `unsure`: a write may have taken effect."""

    def __init__(self, why: str, *, unsure: bool, cause: Cause = Cause.AWAY) -> None:
        super().__init__(why)
        self.why = why
        self.unsure = unsure
        self.cause = cause


class Gate:
    """One cell's gate in this process. The API database has one too.

    Args:
        threads: threads and database connections, opened on first use. Questions that may take long have two of them,
            of which one project has one; one, where there are fewer than four.
        deadline_s: seconds within which an answer must come, unless a call says otherwise.
        waiting: requests that may wait for a thread before more are refused.
        project_share: the part of threads and waiting requests that one project may have at once.
        patience_s: seconds for which a database that cannot be reached is tried again before the request fails: none
            for a cell, whose absence must cost nobody anything; some for the API database, without which nothing works.
    """

    def __init__(
        self,
        cell: Cell,
        *,
        threads: int = 4,
        deadline_s: float = 1.0,
        waiting: int = 200,
        project_share: float = 0.5,
        patience_s: float = 0.0,
        clock: Clock | None = None,
        metrics: GateMetrics | None = None,
    ) -> None:
        self.cell = cell
        self.deadline_s = deadline_s
        # A connection that died unnoticed is worth one more try everywhere.
        self._patience_s = patience_s or deadline_s / 4
        self._schema_is_missing = False
        self._metrics = metrics
        self._say_unreadable_at = 0.0
        self._ping_s = deadline_s * PING_WITHIN
        self._database = Database(
            cell.database_connection, pool_size=threads, connect_timeout_s=deadline_s, io_timeout_s=deadline_s,
            wait_s=deadline_s, delay_s=deadline_s * PING_AFTER, on_delay=self._end_if_away,
        )  # fmt: skip
        self._async_connections = AsyncConnections(
            self._database.async_connection, most=0 if self._database.is_sqlite else MAX_ASYNC_CONNECTIONS
        )
        clock = clock or SystemClock()

        def bulkhead(name: str, ping: Callable[[], None], number: int, lanes: Mapping[str, int]) -> Bulkhead:
            return Bulkhead(
                cell.name, name, ping=ping, ping_s=self._ping_s, threads=number, waiting=waiting,
                project_share=project_share, lanes=lanes, clock=clock, metrics=metrics,
            )  # fmt: skip

        self._bulkhead = bulkhead(
            "database", self._ping_database, threads, {SLOW_LANE: max(1, min(SLOW_THREADS, threads // 2))}
        )
        self._broker_bulkhead = bulkhead("broker", self._ping_broker, BROKER_THREADS, {CALLS_LANE: 1})
        self._broker = self._pinged_broker = None
        if not cell.transport_url.startswith("none"):
            self._broker = Broker(cell.transport_url, connect_timeout_s=deadline_s, publish_timeout_s=deadline_s)
            self._pinged_broker = Broker(
                cell.transport_url, connect_timeout_s=self._ping_s, publish_timeout_s=self._ping_s
            )
        self._caller = Caller(self._broker) if self._broker else None
        self._calls = AtOnce(MAX_CALLS_OF_HOST)

    # ---- for coroutines ----------------------------------------------------------------------------------------------

    async def read(self, fn: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> Answer[T] | Silence:
        """`fn(connection, *args)` on the cell's database, within the gate's deadline.

        Raises:
            CellplaneError: what `fn` raised.
        """
        return await self._await(self._reading(fn, args, kwargs), self.deadline_s)

    async def write(self, fn: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> Answer[T] | Silence | Unknown:
        """`fn(connection, *args)` in one transaction; deadlocks are tried again.

        Raises:
            CellplaneError: what `fn` raised; nothing was written then.
        """
        return await self._await_write(self._writing(fn, args, kwargs), self.deadline_s)

    async def cast(
        self, queue: str, verb: Verb, arguments: msgspec.Struct, context: Context
    ) -> Answer[None] | Silence | Unknown:
        """Publishes a message to the cell's broker."""
        return await self._await_write(
            self._casting(queue, verb, arguments, context), self.deadline_s, self._broker_bulkhead
        )

    async def call(
        self, queue: str, verb: Verb, arguments: msgspec.Struct, context: Context, deadline_s: float | None = None
    ) -> Answer[Any] | Silence | Unknown:
        """Asks a process of the cell and gives its reply. No thread waits for it, but for the broker to take the
        question.

        Of the host that the arguments name, if they name one, no more than two answers are waited for at once: it may
        be frozen.

        Raises:
            CellplaneError: what the other side raised; Unavailable: that is, so many are waited for, and nothing was
                sent.
        """
        if self._caller is None:
            return self._without_broker()
        deadline_s = deadline_s or self.deadline_s
        ends_at = time.monotonic() + deadline_s
        with self._calls.one_of(getattr(arguments, "host", queue)):
            sending = self._sending(self._caller, queue, verb, arguments, context, deadline_s)
            try:
                sent = await self._await_write(sending, min(deadline_s, self.deadline_s), self._broker_bulkhead)
                if not isinstance(sent, Answer):
                    return sent
                return await self._replied(sent.value, ends_at)
            finally:
                if not isinstance(sending, Silence):
                    sending.add_done_callback(forget)

    async def _replied(self, sent: Sent, ends_at: float) -> Answer[Any] | Unknown:
        try:
            return Answer(self.cell, await sent.answer(ends_at))
        except core.errors.Unavailable as error:  # Nobody's word, or the other side's: somebody behind it is away.
            return Unknown(self.cell, error.message, Cause.QUESTION)

    def hint(self, queue: str, verb: Verb, arguments: msgspec.Struct, context: Context) -> None:
        """Publishes a message that may be lost (the row says the same) without waiting for it."""
        with contextlib.suppress(core.errors.OverShare):
            self._casting(queue, verb, arguments, context)

    async def compute(self, fn: Callable[P, T], deadline_s: float, *args: P.args, **kwargs: P.kwargs) -> T:
        """`fn(*args)` in the slow lane, without a connection: for work on what was read that may take long.

        Raises:
            Unavailable: it did not get its turn, or takes longer than the deadline.
            CellplaneError: what `fn` raised.
        """
        return await result_within(
            self._bulkhead.submit(lambda: fn(*args, **kwargs), lane=SLOW_LANE, probe=True), deadline_s, "long work"
        )

    # ---- for threads -------------------------------------------------------------------------------------------------

    def read_now(self, fn: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> Answer[T] | Silence:
        """As `read`, for a program without an event loop."""
        return self._wait(self._reading(fn, args, kwargs), self.deadline_s)

    def write_now(self, fn: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> Answer[T] | Silence | Unknown:
        """As `write`, for a program without an event loop."""
        return self._wait_write(self._writing(fn, args, kwargs), self.deadline_s)

    def cast_now(
        self, queue: str, verb: Verb, arguments: msgspec.Struct, context: Context
    ) -> Answer[None] | Silence | Unknown:
        """As `cast`, for a program without an event loop."""
        return self._wait_write(self._casting(queue, verb, arguments, context), self.deadline_s, self._broker_bulkhead)

    def submit_read(
        self, fn: Work[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> "concurrent.futures.Future[T] | Silence":
        """Starts a read and gives its future: the way in for `cells.gate.scatter`."""
        return self._reading(fn, args, kwargs)

    def submit_query(
        self, question: Question[T] | Slow | None, fn: Work[[], T]
    ) -> "concurrent.futures.Future[T] | Silence":
        """As `submit_read(fn)`, in an event loop, which asks the question itself if there is an asynchronous connection
        for it; `fn` brings the same. `SLOW`: it may take long, and has one of the gate's threads at most.
        """
        if isinstance(question, Slow):
            return self._reading(fn, (), {}, lane=SLOW_LANE)
        async_connection = (
            None if question is None or self._bulkhead.breaker.is_open else self._async_connections.take()
        )
        if question is None or async_connection is None:
            future = self._reading(fn, (), {})
            if question is not None and not isinstance(future, Silence):
                future.add_done_callback(self._open_async_connection)
            return future
        text = question.statement.text(async_connection, question.parameters)
        if text is None:
            self._async_connections.give_back(async_connection)
            return self._reading(fn, (), {})
        return self._asking(async_connection, text, question, fn)

    def result_within(self, future: "concurrent.futures.Future[T] | Silence", deadline_s: float) -> Answer[T] | Silence:
        """Waits for a future of `submit_read`."""
        return self._wait(future, deadline_s)

    # ---- its health --------------------------------------------------------------------------------------------------

    def probe(self) -> None:
        """If a breaker is open and it is time, asks the cell once more; nobody waits for it."""
        self._bulkhead.probe()
        self._broker_bulkhead.probe()

    def check_broker(self, *, every_s: float) -> None:
        """Asks the broker whether it answers unless something reached it, or failed to, so lately; nobody waits for it.

        For who must know before there is something to send: whether builds may go to the cell.
        """
        broker = self._broker
        if (
            broker is not None
            and not self._broker_bulkhead.breaker.is_open
            and time.monotonic() - self._broker_bulkhead.used_at > every_s
        ):
            self._submit(self._broker_bulkhead, self._measured_publish(lambda: broker.look(PROBED_QUEUE)))

    def health(self) -> dict[str, Any]:
        """`database` and `broker`: "up" or why not."""
        database, broker = self._bulkhead.breaker, self._broker_bulkhead.breaker
        return {
            "database": database.why if database.is_open else "up",
            "broker": broker.why if broker.is_open else "up",
        }

    @property
    def broker_is_down(self) -> bool:
        """Whether the cell's broker is known not to answer."""
        return self._broker_bulkhead.breaker.is_open

    def note_unreadable(self, uuid: str, why: str) -> None:
        """Counts a server whose row cannot be read; says so in the log once in a while."""
        if self._metrics:
            self._metrics.unreadable.labels(self.cell.name).inc()
        if time.monotonic() >= self._say_unreadable_at:
            self._say_unreadable_at = time.monotonic() + UNREADABLE_SAID_EVERY_S
            LOG.error("a server's row cannot be read cell=%s server=%s why=%s", self.cell.name, uuid, why)

    def close(self) -> None:
        """Lets go of threads and connections without waiting for a cell that hangs."""
        self._bulkhead.close()
        self._broker_bulkhead.close()
        self._async_connections.close()
        self._database.close()
        if self._caller:
            self._caller.close()
        for broker in (self._broker, self._pinged_broker):
            if broker:
                broker.close()

    # ---- on an asynchronous connection, in the event loop ------------------------------------------------------------

    def _asking(
        self, async_connection: AsyncConnection, text: str, question: Question[T], fn: Work[[], T]
    ) -> "concurrent.futures.Future[T] | Silence":
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        future.set_running_or_notify_cancel()
        started = time.monotonic()

        def answered(rows: Rows) -> None:
            self._async_connections.give_back(async_connection)
            self._well(self._bulkhead, "answer", started)
            try:
                value = question.answer(rows)
            except core.errors.Unreadable:
                ask_in_thread()
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(value)

        def broke(_: Exception) -> None:
            self._async_connections.drop(async_connection)
            ask_in_thread()

        def ask_in_thread() -> None:
            """What to make of an error, or of a row that is damaged, is known there."""
            try:
                later = self._reading(fn, (), {})
            except core.errors.CellplaneError as error:
                future.set_exception(error)
                return
            if isinstance(later, Silence):
                future.set_exception(_Failure(later.why, unsure=False, cause=later.cause))
            else:
                later.add_done_callback(lambda done: _fulfil(future, done.result))

        def was_late() -> None:
            self._async_connections.drop(async_connection)
            self._bulkhead.finished("slow", time.monotonic() - started)
            future.set_exception(_Failure("the query timed out", unsure=False, cause=self._cause_of_lateness()))

        try:
            ask(
                async_connection, text, within_s=self.deadline_s, delay_s=self.deadline_s * PING_AFTER,
                answered=answered, broke=broke, was_late=was_late, delayed=self._bulkhead.look,
            )  # fmt: skip
        except pymysql.err.Error as error:
            broke(error)
        return future

    def _cause_of_lateness(self) -> Cause:
        return Cause.AWAY if self._bulkhead.breaker.is_open else Cause.QUESTION

    def _open_async_connection(self, done: "concurrent.futures.Future[Any]") -> None:
        """One more for the next question; nobody waits for it."""
        if not done.cancelled() and done.exception() is None and self._async_connections.wants_more():
            opening = self._submit(self._bulkhead, self._async_connections.open_one)
            if isinstance(opening, Silence):
                self._async_connections.opened_none()

    # ---- in the gate's threads ---------------------------------------------------------------------------------------

    def _submit(
        self, bulkhead: Bulkhead, work: Callable[[], T], *, lane: str = ANY_LANE
    ) -> "concurrent.futures.Future[T] | Silence":
        """
        Raises:
            OverShare: the project that asks has as many requests here as it may have.
        """
        try:
            return bulkhead.submit(work, lane=lane)
        except Down as error:
            return Silence(self.cell, error.message)
        except Full as error:
            return Silence(self.cell, error.message, Cause.NO_TURN)

    def _reading(
        self, fn: Any, args: Any, kwargs: Any, *, lane: str = ANY_LANE
    ) -> "concurrent.futures.Future[Any] | Silence":
        def work() -> Any:
            with self._database.reading() as connection:
                return fn(connection, *args, **kwargs)

        return self._submit(self._bulkhead, lambda: self._measured(work), lane=lane)

    def _writing(self, fn: Any, args: Any, kwargs: Any) -> "concurrent.futures.Future[Any] | Silence":
        def work() -> Any:
            with self._database.transaction() as connection:
                return fn(connection, *args, **kwargs)

        return self._submit(self._bulkhead, lambda: self._measured(work))

    def _measured(self, work: Callable[[], T]) -> T:
        """Runs the work; turns the database's errors into `_Failure`, or into what the caller can do about it.

        A deadlock is tried again, and so is a connection that was lost before the COMMIT, for as long as the gate is
        patient: in both cases nothing was written.
        """
        started = time.monotonic()
        for left in reversed(range(TRIES)):
            try:
                value = work()
            except core.errors.CellplaneError:
                self._well(self._bulkhead, "answer", started)
                raise
            except OutcomeUnknown as error:
                raise self._failed_question(str(error.__cause__), started, unsure=True) from error
            except sa.exc.DBAPIError as error:
                if left and self._may_try_again(error, started):
                    continue
                raise self._database_failure(error, started) from error
            except (sa.exc.StatementError, OverflowError, UnicodeError) as error:  # A value that no column can have.
                self._well(self._bulkhead, "answer", started)
                raise self._refused_question(error) from error
            except sa.exc.TimeoutError as error:  # our own pool, not the cell
                raise _Failure("no connection was free in time", unsure=False, cause=Cause.NO_TURN) from error
            self._well(self._bulkhead, "answer", started)
            return value
        raise AssertionError("the last try returns or raises")

    def _may_try_again(self, error: sa.exc.DBAPIError, started: float) -> bool:
        if _number(error) in REFUSALS:
            return False
        if error.connection_invalidated or not error.statement:
            left_s = started + self._patience_s - time.monotonic()
            if left_s > 0:
                time.sleep(min(left_s, PAUSE_S))  # the server starts again; this thread is the gate's own
            return left_s > 0
        return is_transient(error)

    def _database_failure(self, error: sa.exc.DBAPIError, started: float) -> Exception:
        """What to raise for an error that a question ended with. It says nothing about the cell, unless there is no
        connection, or no schema."""
        number = _number(error)
        if number in TOO_SLOW:
            self._well(self._bulkhead, "slow", started)
            return _Failure("the query took too long", unsure=False, cause=Cause.QUESTION)
        if isinstance(error, sa.exc.IntegrityError):
            self._well(self._bulkhead, "answer", started)
            return error
        if (
            isinstance(error, sa.exc.DataError)
            or number in QUESTION_REFUSED
            or any(text in str(error.orig) for text in QUESTION_REFUSED_TEXTS)
        ):
            self._well(self._bulkhead, "answer", started)
            return self._refused_question(error)
        why = core.log.masked(f"{type(error.orig).__name__}: {error.orig}")
        self._schema_is_missing = number in SCHEMA_MISSING or "no such table" in str(error.orig)
        if not error.statement or self._schema_is_missing:
            self._bulkhead.failed(why, unreachable=True)
            self._bulkhead.finished("error", time.monotonic() - started)
            return _Failure(why, unsure=False)
        return self._failed_question(why, started)

    def _refused_question(self, error: Exception) -> core.errors.Invalid:
        """Logged, for it may be our own mistake, too."""
        LOG.warning(
            "a query was refused cell=%s why=%s",
            self.cell.name,
            core.log.masked(str(getattr(error, "orig", None) or error)),
        )
        if isinstance(error, sa.exc.DataError):
            return unkept(error)
        return core.errors.Invalid("The query is invalid: it has a value that no column can have, or too many values.")

    def _failed_question(self, why: str, started: float, *, unsure: bool = False) -> _Failure:
        """A question had no answer: whether anything else would have one tells a ping."""
        self._bulkhead.finished("error", time.monotonic() - started)
        cause = Cause.QUESTION if self._bulkhead.answers() else Cause.AWAY
        return _Failure(core.log.masked(why), unsure=unsure, cause=cause)

    def _end_if_away(self) -> None:
        """Called in a thread that waits for the database's answer to a question: if a ping has none either, it waits no
        longer."""
        if not self._bulkhead.answers():
            raise pymysql.err.OperationalError(
                CR.CR_SERVER_LOST, f"timed out, and so did a ping ({self._bulkhead.breaker.why})"
            )

    def _ping_database(self) -> None:
        if not self._schema_is_missing:
            self._database.ping(self._ping_s)
            return
        with self._database.reading() as connection:
            connection.execute(sa.text("SELECT version_num FROM alembic_version"))
        self._schema_is_missing = False

    def _ping_broker(self) -> None:
        if self._pinged_broker is not None:
            self._pinged_broker.waiting(PROBED_QUEUE)

    def _without_broker(self) -> Silence:
        return Silence(self.cell, "it has no broker")

    def _casting(
        self, queue: str, verb: Verb, arguments: msgspec.Struct, context: Context
    ) -> "concurrent.futures.Future[None] | Silence":
        caller = self._caller
        if caller is None:
            return self._without_broker()
        return self._submit(
            self._broker_bulkhead, self._measured_publish(lambda: caller.cast(queue, verb, arguments, context=context))
        )

    def _sending(
        self, caller: Caller, queue: str, verb: Verb, arguments: msgspec.Struct, context: Context, deadline_s: float
    ) -> "concurrent.futures.Future[Sent] | Silence":
        """In a lane of its own: what is only published never waits behind those who wait for an answer."""

        def send() -> Sent:
            return caller.send(
                queue, verb, arguments, context=context, deadline_s=deadline_s, send_within_s=self.deadline_s
            )

        return self._submit(self._broker_bulkhead, self._measured_publish(send), lane=CALLS_LANE)

    def _measured_publish(self, publish: Callable[[], T]) -> Callable[[], T]:
        def work() -> T:
            started = time.monotonic()
            try:
                value = publish()
            except NoSuchQueue as error:  # the broker answered: nobody has ever listened there
                self._well(self._broker_bulkhead, "answer", started)
                raise _Failure(error.message, unsure=False, cause=Cause.QUESTION) from error
            except core.errors.Unavailable as error:
                self._broker_bulkhead.finished("error", time.monotonic() - started)
                cause = Cause.QUESTION if self._broker_bulkhead.answers() else Cause.AWAY
                raise _Failure(error.message, unsure=True, cause=cause) from error
            except core.errors.CellplaneError:
                self._well(self._broker_bulkhead, "answer", started)
                raise
            self._well(self._broker_bulkhead, "answer", started)
            return value

        return work

    @staticmethod
    def _well(bulkhead: Bulkhead, outcome: str, started: float) -> None:
        bulkhead.well()
        bulkhead.finished(outcome, time.monotonic() - started)

    # ---- waiting -----------------------------------------------------------------------------------------------------

    async def _await(self, future: "concurrent.futures.Future[T] | Silence", deadline_s: float) -> Answer[T] | Silence:
        answer = await self._await_write(future, deadline_s)
        return Silence(answer.cell, answer.why, answer.cause) if isinstance(answer, Unknown) else answer

    async def _await_write(
        self, future: "concurrent.futures.Future[T] | Silence", deadline_s: float, bulkhead: Bulkhead | None = None
    ) -> Answer[T] | Silence | Unknown:
        if isinstance(future, Silence):
            return future
        waiter = asyncio.wrap_future(future)
        try:
            return Answer(self.cell, await asyncio.wait_for(waiter, deadline_s))
        except _Failure as failure:
            return self._failed(failure)
        except TimeoutError:
            return self._too_late(future, deadline_s, bulkhead or self._bulkhead)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not future.cancelled() or (task is not None and task.cancelling()):
                raise  # whoever asked has gone
            return self._replaced()

    def _wait(self, future: "concurrent.futures.Future[T] | Silence", deadline_s: float) -> Answer[T] | Silence:
        answer = self._wait_write(future, deadline_s)
        return Silence(answer.cell, answer.why, answer.cause) if isinstance(answer, Unknown) else answer

    def _wait_write(
        self, future: "concurrent.futures.Future[T] | Silence", deadline_s: float, bulkhead: Bulkhead | None = None
    ) -> Answer[T] | Silence | Unknown:
        if isinstance(future, Silence):
            return future
        try:
            return Answer(self.cell, future.result(deadline_s))
        except _Failure as failure:
            return self._failed(failure)
        except concurrent.futures.CancelledError:
            return self._replaced()
        except TimeoutError:
            return self._too_late(future, deadline_s, bulkhead or self._bulkhead)

    def _replaced(self) -> Silence:
        """Never left our queue: the gate was closed."""
        return Silence(self.cell, "it was removed, or its addresses are being changed")

    def _failed(self, failure: _Failure) -> Silence | Unknown:
        return (Unknown if failure.unsure else Silence)(self.cell, failure.why, failure.cause)

    def _too_late(
        self, future: "concurrent.futures.Future[T]", deadline_s: float, bulkhead: Bulkhead
    ) -> Silence | Unknown:
        """Its thread ends by the driver's own time-outs and tells the bulkhead then. One that waits for a resolver of
        names has none: that no connection came about in time is as good as a ping that failed.
        """
        why = f"no answer within {deadline_s:g} s" if deadline_s else "no answer in time"
        if future.cancel():
            return Silence(self.cell, why, Cause.NO_TURN)
        if bulkhead is self._bulkhead and self._database.connecting_for_s() > self._ping_s:
            bulkhead.failed("no connection in time", unreachable=True)
        else:
            bulkhead.look()
        return Unknown(self.cell, why, Cause.AWAY if bulkhead.breaker.is_open else Cause.NO_TURN)


def _fulfil(future: "concurrent.futures.Future[T]", value: Callable[[], T]) -> None:
    """As a thread of a pool does: whatever is raised goes to whoever waits."""
    try:
        future.set_result(value())
    except Exception as error:
        future.set_exception(error)


def _number(error: sa.exc.DBAPIError) -> Any:
    """The server's number of an error; of SQLite, which has none, its text."""
    return error.orig.args[0] if error.orig and error.orig.args else None

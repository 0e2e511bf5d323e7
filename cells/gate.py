"""The one way to a cell: bounded threads and connections, a deadline, a circuit breaker.

No thread waits for another: a coroutine awaits the gate's future with the deadline, the gate's own few threads block on PyMySQL, whose
time-outs end them. With a shared pool of waiting threads one frozen cell took the others' p50 from 3 ms to 1.6 s (DESIGN section 5).
Short questions of a list need no thread at all (`cells.wires`).
"""

import asyncio
import concurrent.futures
import time
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

import msgspec
import pymysql
import sqlalchemy as sa

import core.errors
import core.log
from cells.answers import Answer, Cell, Silence, Unknown
from cells.door import Door, GateMetrics
from cells.wires import Question, Wires, ask
from core.clock import Clock, SystemClock
from core.context import Context
from core.database import Database, OutcomeUnknown, is_transient, probe, timed_out, unkept
from core.wire import Rows, Wire
from messaging.broker import Broker, NoSuchQueue
from messaging.caller import Caller
from messaging.verbs import Verb

P = ParamSpec("P")
T = TypeVar("T")
Work = Callable[Concatenate[sa.Connection, P], T]

STATEMENT_TIMED_OUT = 1969  # MariaDB: max_statement_time exceeded: the server is well, the query was slow
SYNTAX_ERROR = 1064
# MariaDB: no access to the database, a wrong password, no such database, none at all. Asking again at once changes nothing.
REFUSALS = frozenset({1044, 1045, 1049, 1698})
# MariaDB: no database is chosen, there is none of the name, there is no such table. `SELECT 1` still has an answer then.
SCHEMA_MISSING = frozenset({1046, 1049, 1146})
BROKER_THREADS = 2
MOST_WIRES = 2
PROBED_QUEUE = "conductor"
TRIES = 60
PAUSE_S = 0.1


class _Failure(Exception):
    """The cell did not answer; `unsure`: a write may have taken effect."""

    def __init__(self, why: str, *, unsure: bool) -> None:
        super().__init__(why)
        self.why = why
        self.unsure = unsure


class Gate:
    """One cell's gate in this process. The API database has one too.

    Args:
        threads: threads and database connections, opened on first use.
        deadline_s: seconds within which an answer must come, unless a call says otherwise.
        waiting: requests that may wait for a thread before more are refused.
        patience_s: seconds for which a database that cannot be reached is tried again before the request fails: none for a cell,
            whose absence must cost nobody anything; some for the API database, without which nothing works.
    """

    def __init__(
        self,
        cell: Cell,
        *,
        threads: int = 4,
        deadline_s: float = 1.0,
        waiting: int = 200,
        patience_s: float = 0.0,
        clock: Clock | None = None,
        metrics: GateMetrics | None = None,
    ) -> None:
        self.cell = cell
        self.deadline_s = deadline_s
        # A connection that died unnoticed is worth one more try everywhere.
        self._patience_s = patience_s or deadline_s / 4
        self._is_patient = patience_s > 0
        self._schema_is_missing = False
        clock = clock or SystemClock()
        self._database = Database(
            cell.database_connection, pool_size=threads, connect_timeout_s=deadline_s, io_timeout_s=deadline_s, wait_s=deadline_s
        )
        self._wires = Wires(self._database.wire, most=0 if self._database.is_sqlite else MOST_WIRES)
        self._door = Door(cell, "database", threads=threads, waiting=waiting, clock=clock, metrics=metrics)
        self._broker_door = Door(cell, "broker", threads=BROKER_THREADS, waiting=waiting, clock=clock, metrics=metrics)
        self._broker = None if cell.transport_url.startswith("none") else Broker(
            cell.transport_url, connect_timeout_s=deadline_s, publish_timeout_s=deadline_s
        )  # fmt: skip
        self._caller = Caller(self._broker) if self._broker else None

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

    async def cast(self, queue: str, verb: Verb, arguments: msgspec.Struct, context: Context) -> Answer[None] | Silence | Unknown:
        """Publishes a message to the cell's broker."""
        return await self._await_write(self._casting(queue, verb, arguments, context), self.deadline_s)

    async def call(
        self, queue: str, verb: Verb, arguments: msgspec.Struct, context: Context, deadline_s: float | None = None
    ) -> Answer[Any] | Silence | Unknown:
        """Asks a process of the cell and gives its reply.

        Raises:
            CellplaneError: what the other side raised.
        """
        deadline_s = deadline_s or self.deadline_s
        return await self._await_write(self._calling(queue, verb, arguments, context, deadline_s), deadline_s + 0.2)

    def hint(self, queue: str, verb: Verb, arguments: msgspec.Struct, context: Context) -> None:
        """Publishes a message that may be lost (the row says the same) without waiting for it."""
        self._casting(queue, verb, arguments, context)

    # ---- for threads ---------------------------------------------------------------------------------------------------

    def read_now(self, fn: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> Answer[T] | Silence:
        """As `read`, for a program without an event loop."""
        return self._wait(self._reading(fn, args, kwargs), self.deadline_s)

    def write_now(self, fn: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> Answer[T] | Silence | Unknown:
        """As `write`, for a program without an event loop."""
        return self._wait_write(self._writing(fn, args, kwargs), self.deadline_s)

    def cast_now(self, queue: str, verb: Verb, arguments: msgspec.Struct, context: Context) -> Answer[None] | Silence | Unknown:
        """As `cast`, for a program without an event loop."""
        return self._wait_write(self._casting(queue, verb, arguments, context), self.deadline_s)

    def reading_soon(self, fn: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> "concurrent.futures.Future[T] | Silence":
        """Starts a read and gives its future: the way in for `cells.scatter`."""
        return self._reading(fn, args, kwargs)

    def asking_soon(self, question: Question[T] | None, fn: Work[[], T]) -> "concurrent.futures.Future[T] | Silence":
        """As `reading_soon(fn)`, in an event loop, which asks the question itself if there is a wire for it; `fn` brings the same."""
        wire = None if question is None or self._door.breaker.is_open else self._wires.take()
        if question is None or wire is None:
            future = self._reading(fn, (), {})
            if question is not None and not isinstance(future, Silence):
                future.add_done_callback(self._open_wire)
            return future
        text = question.statement.text(wire, question.parameters)
        if text is None:
            self._wires.give_back(wire)
            return self._reading(fn, (), {})
        return self._asking(wire, text, question, fn)

    def settled(self, future: "concurrent.futures.Future[T] | Silence", deadline_s: float) -> Answer[T] | Silence:
        """Waits for a future of `reading_soon`."""
        return self._wait(future, deadline_s)

    # ---- its health ------------------------------------------------------------------------------------------------------

    def probe(self) -> None:
        """If a breaker is open and it is time, asks the cell once more, in the gate's own thread; nobody waits for it."""
        if self._door.breaker.may_probe():
            self._reading(_read_version if self._schema_is_missing else probe, (), {}, probe=True)
        if self._broker_door.breaker.may_probe():
            self._ask_broker()

    def look_at_broker(self, *, every_s: float) -> None:
        """Asks the broker whether it answers unless something reached it, or failed to, so lately; nobody waits for it.

        For who must know before there is something to send: whether builds may go to the cell.
        """
        if not self._broker_door.breaker.is_open and time.monotonic() - self._broker_door.used_at > every_s:
            self._ask_broker()

    def _ask_broker(self) -> None:
        broker = self._broker
        if broker is not None:
            self._broker_door.submit(self._measured_publish(lambda: broker.look(PROBED_QUEUE), is_look=True), probe=True)

    def health(self) -> dict[str, Any]:
        """`database` and `broker`: "up" or why not."""
        database, broker = self._door.breaker, self._broker_door.breaker
        return {"database": database.why if database.is_open else "up", "broker": broker.why if broker.is_open else "up"}

    @property
    def broker_is_away(self) -> bool:
        """Whether the cell's broker is known not to answer."""
        return self._broker_door.breaker.is_open

    def close(self) -> None:
        """Lets go of threads and connections without waiting for a cell that hangs."""
        self._door.close()
        self._broker_door.close()
        self._wires.close()
        self._database.close()
        if self._caller:
            self._caller.close()
        if self._broker:
            self._broker.close()

    # ---- on a wire, in the event loop ----------------------------------------------------------------------------------------

    def _asking(self, wire: Wire, text: str, question: Question[T], fn: Work[[], T]) -> "concurrent.futures.Future[T] | Silence":
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        future.set_running_or_notify_cancel()
        started = time.monotonic()

        def answered(rows: Rows) -> None:
            self._wires.give_back(wire)
            self._well(self._door, "answer", started)
            _fulfil(future, lambda: question.answer(rows))

        def broke(_: Exception) -> None:
            """What to make of the error is known where a thread asks."""
            self._wires.drop(wire)
            later = self._reading(fn, (), {})
            if isinstance(later, Silence):
                future.set_exception(_Failure(later.why, unsure=False))
            else:
                later.add_done_callback(lambda done: _fulfil(future, done.result))

        def was_late() -> None:
            self._wires.drop(wire)
            future.set_exception(self._away(started, "the query timed out"))

        try:
            ask(wire, text, within_s=self.deadline_s, answered=answered, broke=broke, was_late=was_late)
        except pymysql.err.Error as error:
            broke(error)
        return future

    def _open_wire(self, done: "concurrent.futures.Future[Any]") -> None:
        """One more for the next question; nobody waits for it."""
        if not done.cancelled() and done.exception() is None and self._wires.wants_more():
            opening = self._door.submit(self._wires.open_one)
            if isinstance(opening, Silence):
                self._wires.opened_none()

    # ---- in the gate's threads ---------------------------------------------------------------------------------------------

    def _reading(self, fn: Any, args: Any, kwargs: Any, *, probe: bool = False) -> "concurrent.futures.Future[Any] | Silence":
        def work() -> Any:
            with self._database.reading() as connection:
                return fn(connection, *args, **kwargs)

        return self._door.submit(lambda: self._measured(work), probe=probe)

    def _writing(self, fn: Any, args: Any, kwargs: Any) -> "concurrent.futures.Future[Any] | Silence":
        def work() -> Any:
            with self._database.transaction() as connection:
                return fn(connection, *args, **kwargs)

        return self._door.submit(lambda: self._measured(work))

    def _measured(self, work: Callable[[], T]) -> T:
        """Runs the work; tells the breaker how the cell did; turns the database's errors into `_Failure`.

        A deadlock is tried again, and so is a connection that was lost before the COMMIT, for as long as the gate is patient: in both
        cases nothing was written.
        """
        started = time.monotonic()
        for left in reversed(range(TRIES)):
            try:
                value = work()
            except core.errors.CellplaneError:
                self._well(self._door, "answer", started)
                raise
            except OutcomeUnknown as error:
                raise self._away(started, str(error.__cause__), unsure=True) from error
            except sa.exc.DBAPIError as error:
                if left and self._may_try_again(error, started):
                    continue
                raise self._database_failure(error, started) from error
            except sa.exc.TimeoutError as error:  # our own pool, not the cell
                raise _Failure("no connection was free in time", unsure=False) from error
            self._well(self._door, "answer", started)
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
        number = _number(error)
        if number == STATEMENT_TIMED_OUT:
            self._well(self._door, "slow", started)
            return _Failure("the query took too long", unsure=False)
        if number == SYNTAX_ERROR or isinstance(error, sa.exc.IntegrityError | sa.exc.DataError):  # ours, not the cell's
            self._well(self._door, "answer", started)
            return unkept(error) if isinstance(error, sa.exc.DataError) else error
        self._schema_is_missing = number in SCHEMA_MISSING
        unreachable = not error.statement or self._schema_is_missing
        return self._away(started, f"{type(error.orig).__name__}: {error.orig}", unreachable=unreachable)

    def _away(self, started: float, why: str, *, unsure: bool = False, unreachable: bool = False) -> _Failure:
        # A server ends a statement by itself before the client gives up: one that lets the client wait does not answer at all.
        silent = not self._is_patient and timed_out(why)
        self._door.failed(core.log.masked(why), unreachable=unreachable or silent)
        self._door.finished("error", time.monotonic() - started)
        return _Failure(core.log.masked(why), unsure=unsure)

    def _casting(self, queue: str, verb: Verb, arguments: msgspec.Struct, context: Context) -> "concurrent.futures.Future[None] | Silence":
        caller = self._caller
        if caller is None:
            return Silence(self.cell, "it has no broker")
        return self._broker_door.submit(self._measured_publish(lambda: caller.cast(queue, verb, arguments, context=context)))

    def _calling(
        self, queue: str, verb: Verb, arguments: msgspec.Struct, context: Context, deadline_s: float
    ) -> "concurrent.futures.Future[Any] | Silence":
        caller = self._caller
        if caller is None:
            return Silence(self.cell, "it has no broker")
        return self._broker_door.submit(
            self._measured_publish(lambda: caller.call(queue, verb, arguments, context=context, deadline_s=deadline_s), is_call=True)
        )

    def _measured_publish(self, publish: Callable[[], T], *, is_call: bool = False, is_look: bool = False) -> Callable[[], T]:
        def work() -> T:
            started = time.monotonic()
            try:
                value = publish()
            except NoSuchQueue as error:  # the broker answered: nobody has ever listened there
                self._well(self._broker_door, "answer", started)
                raise _Failure(error.message, unsure=False) from error
            except core.errors.Unavailable as error:
                if not is_call:  # a process that does not reply says nothing about the broker
                    self._broker_door.failed(error.message, unreachable=is_look)
                self._broker_door.finished("error", time.monotonic() - started)
                raise _Failure(error.message, unsure=True) from error
            except core.errors.CellplaneError:
                self._well(self._broker_door, "answer", started)
                raise
            self._well(self._broker_door, "answer", started)
            return value

        return work

    @staticmethod
    def _well(door: Door, outcome: str, started: float) -> None:
        door.well()
        door.finished(outcome, time.monotonic() - started)

    # ---- waiting -------------------------------------------------------------------------------------------------------------

    async def _await(self, future: "concurrent.futures.Future[T] | Silence", deadline_s: float) -> Answer[T] | Silence:
        answer = await self._await_write(future, deadline_s)
        return Silence(answer.cell, answer.why) if isinstance(answer, Unknown) else answer

    async def _await_write(self, future: "concurrent.futures.Future[T] | Silence", deadline_s: float) -> Answer[T] | Silence | Unknown:
        if isinstance(future, Silence):
            return future
        waiter = asyncio.wrap_future(future)
        try:
            return Answer(self.cell, await asyncio.wait_for(waiter, deadline_s))
        except _Failure as failure:
            return self._failed(failure)
        except TimeoutError:
            return self._too_late(future, deadline_s)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not future.cancelled() or (task is not None and task.cancelling()):
                raise  # whoever asked has gone
            return self._replaced()

    def _wait(self, future: "concurrent.futures.Future[T] | Silence", deadline_s: float) -> Answer[T] | Silence:
        answer = self._wait_write(future, deadline_s)
        return Silence(answer.cell, answer.why) if isinstance(answer, Unknown) else answer

    def _wait_write(self, future: "concurrent.futures.Future[T] | Silence", deadline_s: float) -> Answer[T] | Silence | Unknown:
        if isinstance(future, Silence):
            return future
        try:
            return Answer(self.cell, future.result(deadline_s))
        except _Failure as failure:
            return self._failed(failure)
        except concurrent.futures.CancelledError:
            return self._replaced()
        except TimeoutError:
            return self._too_late(future, deadline_s)

    def _replaced(self) -> Silence:
        """Never left our queue: the gate was closed."""
        return Silence(self.cell, "it was removed or is being re-addressed")

    def _failed(self, failure: _Failure) -> Silence | Unknown:
        return Unknown(self.cell, failure.why) if failure.unsure else Silence(self.cell, failure.why)

    def _too_late(self, future: "concurrent.futures.Future[T]", deadline_s: float) -> Silence | Unknown:
        why = f"no answer within {deadline_s:g} s"
        # Cancelled: it never left our queue. Otherwise its thread ends by PyMySQL's own time-out and tells the breaker then.
        return Silence(self.cell, why) if future.cancel() else Unknown(self.cell, why)


def _fulfil(future: "concurrent.futures.Future[T]", value: Callable[[], T]) -> None:
    """As a thread of a pool does: whatever is raised goes to whoever waits."""
    try:
        future.set_result(value())
    except Exception as error:
        future.set_exception(error)


def _read_version(connection: sa.Connection) -> None:
    connection.execute(sa.text("SELECT version_num FROM alembic_version"))


def _number(error: sa.exc.DBAPIError) -> Any:
    """The server's number of an error; of SQLite, which has none, its text."""
    return error.orig.args[0] if error.orig and error.orig.args else None

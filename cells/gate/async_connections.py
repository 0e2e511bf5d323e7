"""A gate's asynchronous connections: connections on which an event loop asks short questions itself, with no thread of
the gate's between.

Only what an open connection can answer goes this way. Anything else (no connection, a lost one, a database that
refuses) is left to the gate's threads, which know what to make of it.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

import pymysql
import sqlalchemy as sa

from database.async_connection import AsyncConnection, Rows
from database.compiled_statements import CompiledStatement

T = TypeVar("T")

AGAIN_S = 5.0
"""So long after none could be opened no other is tried."""


class Question(NamedTuple, Generic[T]):
    """What one statement can answer; `answer` makes sense of its rows. Few rows: the event loop reads them itself."""

    statement: CompiledStatement
    parameters: Mapping[str, Any]
    answer: Callable[[Rows], T]


class AsyncConnections:
    """The asynchronous connections of one gate, `most` of them; `opened` opens one."""

    def __init__(self, opened: Callable[[], AsyncConnection], *, most: int) -> None:
        self._opened = opened
        self._most = most
        self._lock = threading.Lock()
        self._idle: list[AsyncConnection] = []
        self._number = 0
        self._not_before = float("-inf")
        self._closed = False

    def take(self) -> AsyncConnection | None:
        """An idle asynchronous connection, the taker's until `give_back` or `drop`; None: there is none now."""
        with self._lock:
            return self._idle.pop() if self._idle else None

    def give_back(self, async_connection: AsyncConnection) -> None:
        """It has answered, and may be asked again."""
        with self._lock:
            if not self._closed:
                self._idle.append(async_connection)
                return
        self.drop(async_connection)

    def drop(self, async_connection: AsyncConnection) -> None:
        """It does not answer, or nobody needs it any more."""
        with self._lock:
            self._number -= 1
        async_connection.close()

    def wants_more(self) -> bool:
        """Whether one more is to be opened; who is told so calls `open_one` or `opened_none`."""
        with self._lock:
            if self._closed or self._number == self._most or time.monotonic() < self._not_before:
                return False
            self._number += 1
            return True

    def open_one(self) -> None:
        """Opens one more, in a thread of the gate."""
        try:
            async_connection = self._opened()
        except (sa.exc.SQLAlchemyError, pymysql.err.Error):
            self.opened_none()  # Threads ask the database, too, and say what ails it.
        else:
            self.give_back(async_connection)

    def opened_none(self) -> None:
        """None could be opened."""
        with self._lock:
            self._number -= 1
            self._not_before = time.monotonic() + AGAIN_S

    def close(self) -> None:
        """Lets go of those that are idle, at once, and of the others as they come back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for async_connection in idle:
            self.drop(async_connection)


def ask(
    async_connection: AsyncConnection,
    text: str,
    *,
    within_s: float,
    delay_s: float,
    answered: Callable[[Rows], None],
    broke: Callable[[Exception], None],
    was_late: Callable[[], None],
    delayed: Callable[[Callable[[], None]], None],
) -> None:
    """Sends the question; later the running event loop calls one of `answered`, `broke` and `was_late`.

    `delayed` is called when nothing has come for `delay_s`; it is given what ends the waiting at once, as late, if
    nothing has come then either, and may be called by any thread.

    Raises:
        pymysql.err.Error: the asynchronous connection is lost; none of them will be called.
    """
    loop = asyncio.get_running_loop()
    async_connection.ask(text)
    number, is_over = async_connection.fileno(), False
    timer = loop.call_later(delay_s, lambda: is_delayed())

    def end() -> None:
        nonlocal is_over
        is_over = True
        timer.cancel()
        loop.remove_reader(number)

    def readable() -> None:
        try:
            rows = async_connection.read()
        except Exception as error:  # The frame of this callback: the loop would only log it, and call again and again.
            end()
            broke(error)
            return
        if rows is not None:
            end()
            answered(rows)

    def is_delayed() -> None:
        nonlocal timer
        timer = loop.call_later(within_s - delay_s, time_is_over)
        delayed(give_up)

    def give_up() -> None:
        with contextlib.suppress(RuntimeError):  # The loop is closed: nobody waits any more.
            loop.call_soon_threadsafe(time_is_over)

    def time_is_over() -> None:
        if not is_over:
            end()
            was_late()

    loop.add_reader(number, readable)

"""Asks several cells at once; each through its own gate, all within one deadline."""

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, ParamSpec, TypeVar

from cells.gate.answers import Answer, Silence
from cells.gate.gate import Gate, Work

P = ParamSpec("P")
T = TypeVar("T")


async def scatter(
    gates: Iterable[Gate], fn: Work[P, T], *args: P.args, **kwargs: P.kwargs
) -> dict[str, Answer[T] | Silence]:
    """Cell uuid -> its answer or silence, in the order of the gates; no cell waits for another.

    Raises:
        CellplaneError: what `fn` raised in one of the cells.
    """
    return await scatter_within(None, gates, fn, *args, **kwargs)


async def scatter_within(
    seconds: float | None, gates: Iterable[Gate], fn: Work[P, T], *args: P.args, **kwargs: P.kwargs
) -> dict[str, Answer[T] | Silence]:
    """As `scatter`; a cell that takes longer than so many seconds is silent. None: each gate's own deadline."""
    asked = list(gates)
    answers = await asyncio.gather(*(_in_time(gate, gate.read(fn, *args, **kwargs), seconds) for gate in asked))
    return {gate.cell.uuid: answer for gate, answer in zip(asked, answers, strict=True)}


async def _in_time(gate: Gate, reading: Awaitable[Answer[T] | Silence], seconds: float | None) -> Answer[T] | Silence:
    try:
        return await asyncio.wait_for(reading, seconds)
    except TimeoutError:
        return Silence(gate.cell, f"no answer within {seconds:.2g} s")


def scatter_now(
    gates: Sequence[Gate], fn: Work[P, T], *args: P.args, **kwargs: P.kwargs
) -> dict[str, Answer[T] | Silence]:
    """As `scatter`, for a program without an event loop."""
    futures = [gate.submit_read(fn, *args, **kwargs) for gate in gates]
    ends = time.monotonic() + max((gate.deadline_s for gate in gates), default=0.0)
    return {
        gate.cell.uuid: gate.result_within(future, max(0.0, ends - time.monotonic()))
        for gate, future in zip(gates, futures, strict=True)
    }


async def done_within(futures: Iterable["concurrent.futures.Future[Any] | Silence"], seconds: float) -> None:
    """Waits until all of these (`Gate.reading_soon`) are done, or the time is over; none is cancelled.

    The last one alone wakes the event loop: with a task and a timer for each, eighty cells cost it some milliseconds.
    """
    running = [future for future in futures if isinstance(future, concurrent.futures.Future)]
    loop = asyncio.get_running_loop()
    all_done, left, lock = loop.create_future(), len(running), threading.Lock()

    def wake() -> None:
        if not all_done.done():
            all_done.set_result(None)

    def one_is_done(_: object) -> None:
        nonlocal left
        with lock:
            left -= 1
            if left == 0 and not all_done.done():
                loop.call_soon_threadsafe(wake)

    for future in running:
        future.add_done_callback(one_is_done)
    try:
        if running:
            await asyncio.wait([all_done], timeout=seconds)
    finally:
        with lock:
            all_done.cancel()

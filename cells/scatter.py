"""Asks several cells at once; each through its own gate, all within one deadline."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import ParamSpec, TypeVar

from cells.answers import Answer, Silence
from cells.gate import Gate, Work

P = ParamSpec("P")
T = TypeVar("T")


async def scatter(gates: Iterable[Gate], fn: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> dict[str, Answer[T] | Silence]:
    """Cell uuid -> its answer or silence, in the order of the gates; no cell waits for another.

    Raises:
        CellplaneError: what `fn` raised in one of the cells.
    """
    asked = list(gates)
    answers = await asyncio.gather(*(gate.read(fn, *args, **kwargs) for gate in asked))
    return {gate.cell.uuid: answer for gate, answer in zip(asked, answers, strict=True)}


def scatter_now(gates: Sequence[Gate], fn: Work[P, T], *args: P.args, **kwargs: P.kwargs) -> dict[str, Answer[T] | Silence]:
    """As `scatter`, for a program without an event loop."""
    futures = [gate.reading_soon(fn, *args, **kwargs) for gate in gates]
    ends = time.monotonic() + max((gate.deadline_s for gate in gates), default=0.0)
    return {
        gate.cell.uuid: gate.settled(future, max(0.0, ends - time.monotonic())) for gate, future in zip(gates, futures, strict=True)
    }

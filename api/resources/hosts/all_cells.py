"""Asks every cell that has hosts on behalf of a request, and says which were silent."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Concatenate, Generic, ParamSpec, TypeVar

from api.http.call import Call
from cells.gate.answers import Answer, Cell
from cells.gate.gate import Gate
from cells.gate.scatter import scatter_within
from core import errors
from database.engine import Connection

MISSING_CELLS = "X-Cellplane-Missing-Cells"
LEAST_S = 0.1

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answers(Generic[T]):
    """What the cells said, in the order of the cells; `silent` are those that said nothing."""

    values: list[tuple[Gate, T]]
    silent: list[Cell]

    def of(self, wanted: Callable[[Cell], bool]) -> "Answers[T]":
        """What these cells said or did not say."""
        return Answers(
            [(gate, value) for gate, value in self.values if wanted(gate.cell)],
            [cell for cell in self.silent if wanted(cell)],
        )

    def refuse_silence(self, why: str) -> None:
        """Returns if every cell answered.

        Raises:
            Unavailable: one did not; without it nobody knows.
        """
        if self.silent:
            names = ", ".join(cell.name for cell in self.silent)
            raise errors.Unavailable(f"{why}: cells {names} do not answer.", cell=names)


async def ask(call: Call, fn: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> Answers[T]:
    """`fn(connection, *args)` in every cell but cell0, which has no hosts. The response names the cells that were
    silent.

    A request that asks more than once gives all its questions one deadline, and asks a cell that was silent no second
    time.
    """
    named = _missing(call)
    gates = [gate for gate in call.cloud.cells.gates() if not gate.cell.is_cell0]
    left_s = max(LEAST_S, call.began + call.cloud.conf.cells.deadline_s - time.monotonic())
    answers = await scatter_within(left_s, [gate for gate in gates if gate.cell.name not in named], fn, *args, **kwargs)
    values = [(gate, answer.value) for gate in gates if isinstance(answer := answers.get(gate.cell.uuid), Answer)]
    answered = {gate.cell.uuid for gate, _ in values}
    silent = [gate.cell for gate in gates if gate.cell.uuid not in answered]
    _name_missing(call, named | {cell.name for cell in silent})
    return Answers(values, silent)


def _missing(call: Call) -> set[str]:
    """The cells that the response names as missing so far."""
    return {name for header, names in call.headers if header == MISSING_CELLS for name in names.split(", ")}


def _name_missing(call: Call, names: set[str]) -> None:
    call.headers = [each for each in call.headers if each[0] != MISSING_CELLS]
    if names:
        call.set_header(MISSING_CELLS, ", ".join(sorted(names)))


def down_after_s(call: Call) -> float:
    """Seconds of silence after which a process counts as down."""
    return float(call.cloud.conf.conductor.service_down_time_s)

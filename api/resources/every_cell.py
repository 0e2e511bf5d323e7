"""Asks every cell that has hosts on behalf of a request, and says which were silent."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Concatenate, Generic, ParamSpec, TypeVar

import sqlalchemy as sa

from api.http.call import Call
from cells.answers import Answer, Cell
from cells.gate import Gate
from cells.scatter import scatter
from core import errors

MISSING_CELLS = "X-Cellplane-Missing-Cells"

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answers(Generic[T]):
    """What the cells said, in the order of the cells; `silent` are those that said nothing."""

    found: list[tuple[Gate, T]]
    silent: list[Cell]

    def refuse_silence(self, why: str) -> None:
        """Returns if every cell answered.

        Raises:
            Unavailable: one did not; without it nobody knows.
        """
        if self.silent:
            names = ", ".join(cell.name for cell in self.silent)
            raise errors.Unavailable(f"{why}: cells {names} do not answer.", cell=names)


async def ask(call: Call, fn: Callable[Concatenate[sa.Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> Answers[T]:
    """`fn(connection, *args)` in every cell but cell0, which has no hosts. The response names the cells that were silent."""
    gates = [gate for gate in call.cloud.cells.gates() if not gate.cell.is_cell0]
    answers = await scatter(gates, fn, *args, **kwargs)
    found = [(gate, answer.value) for gate in gates if isinstance(answer := answers[gate.cell.uuid], Answer)]
    silent = [answer.cell for answer in answers.values() if not isinstance(answer, Answer)]
    _name_missing(call, silent)
    return Answers(found, silent)


def _name_missing(call: Call, silent: list[Cell]) -> None:
    """Adds the cells to the header that names the missing ones; a request may ask the cells more than once."""
    if not silent:
        return
    named = {name for header, names in call.headers if header == MISSING_CELLS for name in names.split(", ")}
    call.headers = [each for each in call.headers if each[0] != MISSING_CELLS]
    call.set_header(MISSING_CELLS, ", ".join(sorted(named | {cell.name for cell in silent})))


def down_after_s(call: Call) -> float:
    """Seconds of silence after which a process counts as down."""
    return float(call.cloud.conf.conductor.service_down_time_s)

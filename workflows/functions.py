"""The functions of one program, by step or undo. Programs never import each other: each registers its own."""

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

from workflows.positions import Catalog, Turn
from workflows.workflow import Program

Work = TypeVar("Work")
Function = Callable[[Work], str]
"""Does a step for the work of one row, and gives its report."""


class Functions(Generic[Work]):
    """What a program does in the workflows of a catalog.

    Args:
        functions: by name of step or undo.

    Raises:
        ValueError: a step whose actor the program is has no function, or a function has no step. A program finds that
            out when it starts, not when the first work gets there.
    """

    def __init__(self, program: Program, catalog: Catalog, functions: Mapping[str, Function[Work]]) -> None:
        mine = {turn.name for turn in catalog.turns() if program in [actor.program for actor in turn.actors]}
        if missing := sorted(mine - set(functions)):
            raise ValueError(f"{program.value} has no function for {', '.join(missing)}")
        if unused := sorted(set(functions) - mine):
            raise ValueError(f"{program.value} acts in no step {', '.join(unused)}")
        self._functions = dict(functions)

    def find(self, turn: Turn) -> Function[Work] | None:
        """What this program does in this turn; None: it is another one's."""
        return self._functions.get(turn.name)

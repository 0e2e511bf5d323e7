"""What comes back from a cell: an answer, silence, or, for a write that timed out, no certainty."""

import dataclasses
import enum
from typing import Generic, TypeVar

import core.errors

T = TypeVar("T")
CELL0_UUID = "00000000-0000-0000-0000-000000000000"


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """A cell mapping. `transport_url` is `none://` for cell0, which has no broker; `number` is no other cell's."""

    uuid: str
    name: str
    database_connection: str
    transport_url: str
    disabled: bool = False
    number: int = 0

    @property
    def is_cell0(self) -> bool:
        return self.uuid == CELL0_UUID


@dataclasses.dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """The cell answered."""

    cell: Cell
    value: T


class Cause(enum.Enum):
    """Why there is no answer."""

    AWAY = "the cell answers nobody, as far as is known"
    NO_TURN = "the question did not get its turn, or its time, in this process"
    QUESTION = "the cell is well, and did not answer this question: it took too long, or it failed"


@dataclasses.dataclass(frozen=True, slots=True)
class Silence:
    """The cell did not answer in time, or is known to be away. Nothing was written."""

    cell: Cell
    why: str
    cause: Cause = Cause.AWAY


@dataclasses.dataclass(frozen=True, slots=True)
class Unknown:
    """A write to the cell timed out: it may or may not have taken effect. Repeat only what is idempotent."""

    cell: Cell
    why: str
    cause: Cause = Cause.AWAY


def value_of(answer: Answer[T] | Silence | Unknown) -> T:
    """The value of an answer.

    Raises:
        NoTurn: the question waited too long in this process; the cell may be well.
        Unavailable: it is none; the message names the cell.
    """
    if isinstance(answer, Answer):
        return answer.value
    if answer.cause is Cause.NO_TURN:
        raise core.errors.NoTurn(
            f"Cell {answer.cell.name} could not be queried in time: {answer.why}", cell=answer.cell.name
        )
    raise core.errors.Unavailable(f"Cell {answer.cell.name} does not answer: {answer.why}", cell=answer.cell.name)

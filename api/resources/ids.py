"""Ids in paths: uuids, and integers where the older microversions have them.

Rows of hosts and services are numbered by each cell's database for itself, from 1 on. What users see is unique over the
cloud: the row's number and, in its last bits, its cell's, which the API database gave it; 0 is the API level's own. It
stays as long as the row does.
"""

from api.http.call import Call
from api.http.schema import Type, whole_number
from cells.gate.answers import Cell
from core import errors
from objects.ids import uuid_of

CELL_BITS = 16
API_LEVEL = 0
# What every JSON parser reads as an integer.
MOST = 2**53 - 1
NUMBER: Type = whole_number(0, MOST)


def cloud_number(cell_number: int, row_number: int) -> int:
    """The number over the cloud of a row of this cell."""
    return row_number << CELL_BITS | cell_number


def cell_number_of(number: int) -> int:
    """The number of the cell that a number over the cloud belongs to."""
    return number & (1 << CELL_BITS) - 1


def row_number_of(number: int) -> int:
    """The row of a number over the cloud, in its cell."""
    return number >> CELL_BITS


def is_of(cell: Cell, number: int) -> bool:
    """Whether the number over the cloud is one of this cell's."""
    return cell.number == cell_number_of(number)


def uuid_in_path(call: Call) -> str:
    """The `id` segment, which must be a uuid, in its usual form.

    Raises:
        Invalid: it is none.
    """
    text = call.path["id"]
    try:
        return uuid_of(text)
    except ValueError:
        raise errors.Invalid(f"Invalid uuid {text[:255]}", field="id") from None


def number_in_path(call: Call) -> int:
    """The `id` segment, which must be the number of a row.

    Raises:
        Invalid: it is none.
    """
    text = call.path["id"]
    digits = text.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        raise errors.Invalid(f"Invalid id {text[:255]}: it must be an integer.", field="id")
    # No row has a number beyond these, nor below 1; it is asked for like any other that does not exist.
    number = int(digits) if len(digits) < len(str(MOST)) else MOST
    return number if digits == text else -number

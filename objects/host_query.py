"""The scheduler hint `query`: a condition on hosts, as JSON. Read here, for the API that takes it and the scheduler
that asks it.

Source: Nova's JsonFilter: `["and", [">=", "$free_ram_mb", 1024], ["=", "$hypervisor_type", "QEMU"]]`. A tenant writes
it, so its size, its depth and what it may ask of a host are bounded: no variable names a host.
"""

import dataclasses
from typing import TypeAlias

import msgspec

MAX_BYTES = 4096
MAX_DEPTH = 8
MAX_TERMS = 40

LOGIC = frozenset({"and", "or", "not"})
COMPARISONS = frozenset({"=", "<", ">", "<=", ">=", "in"})
VARIABLES = frozenset(
    {
        "free_ram_mb", "free_disk_mb", "total_usable_ram_mb", "vcpus_total", "vcpus_used", "num_instances",
        "num_io_ops", "hypervisor_type", "hypervisor_version", "cpu_allocation_ratio", "ram_allocation_ratio",
        "disk_allocation_ratio",
    }
)  # fmt: skip

Value: TypeAlias = bool | int | float | str


@dataclasses.dataclass(frozen=True, slots=True)
class Variable:
    """What a host has of this name."""

    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Term:
    """An operator and what it is about."""

    operator: str
    arguments: tuple["Term | Variable | Value", ...]


def parse(text: str) -> Term | None:
    """The condition; None: an empty one, which every host meets.

    Raises:
        ValueError: it is none, or too large; says why.
    """
    if len(text.encode()) > MAX_BYTES:
        raise ValueError(f"It is longer than {MAX_BYTES} bytes.")
    try:
        document = msgspec.json.decode(text) if text.strip() else []
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        raise ValueError("It is not JSON.") from None
    if document == []:
        return None
    if not isinstance(document, list):
        raise ValueError("It has to be a list: an operator and its arguments.")
    terms = [0]
    return _term(document, 1, terms)


def _term(document: list[object], depth: int, terms: list[int]) -> Term:
    _count(terms, depth)
    operator = document[0] if document else None
    if not isinstance(operator, str) or operator not in LOGIC | COMPARISONS:
        raise ValueError(f"{str(operator)[:32]!r} is no operator; there are {', '.join(sorted(LOGIC | COMPARISONS))}.")
    arguments = tuple(_argument(each, depth, terms) for each in document[1:])
    if len(arguments) < (1 if operator in LOGIC else 2):
        raise ValueError(f"The operator {operator} has too few arguments.")
    return Term(operator, arguments)


def _count(terms: list[int], depth: int) -> None:
    terms[0] += 1
    if depth > MAX_DEPTH or terms[0] > MAX_TERMS:
        raise ValueError(f"It is deeper than {MAX_DEPTH} lists, or has more than {MAX_TERMS} terms.")


def _argument(document: object, depth: int, terms: list[int]) -> Term | Variable | Value:
    if isinstance(document, list):
        return _term(document, depth + 1, terms)
    _count(terms, depth)
    if isinstance(document, str) and document.startswith("$"):
        if document[1:] not in VARIABLES:
            raise ValueError(f"{document[:64]!r} is no variable; there are {', '.join(sorted(VARIABLES))}.")
        return Variable(document[1:])
    if isinstance(document, bool | int | float | str):
        return document
    raise ValueError("An argument is a list, a text, a number, true or false.")

"""The little language of extra spec values: `>= 4`, `s== x`, `<in> gold`, `<or> a <or> b` …"""

import operator
from collections.abc import Callable, Collection

_NUMBERS: dict[str, Callable[[float, float], bool]] = {
    "=": operator.ge,  # so it was defined long ago: at least
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
_TEXTS: dict[str, Callable[[str, str], bool]] = {
    "s==": operator.eq,
    "s!=": operator.ne,
    "s<": operator.lt,
    "s<=": operator.le,
    "s>": operator.gt,
    "s>=": operator.ge,
}


def matches(value: str, wanted: str) -> bool:
    """True if the host's value is what the extra spec wants; without an operator, if they are equal."""
    words = wanted.split()
    if not words:
        return value == wanted
    sign, operands = words[0], words[1:]
    if sign == "<or>":
        return any(word == value for word in operands if word != "<or>")
    if sign == "<in>":
        return all(word in value for word in operands if word != "<in>")
    if sign == "<all-in>":
        return all(word in value for word in operands)
    if sign in _TEXTS:
        return _TEXTS[sign](value, " ".join(operands))
    if sign in _NUMBERS:
        return _compared(_NUMBERS[sign], value, " ".join(operands))
    return value == wanted


def any_matches(values: Collection[str], wanted: str) -> bool:
    """True if one of the host's values is what the extra spec wants."""
    return any(matches(value, wanted) for value in values)


def _compared(compare: Callable[[float, float], bool], value: str, wanted: str) -> bool:
    try:
        return compare(float(value), float(wanted))
    except ValueError:
        return False

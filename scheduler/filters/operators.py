"""The little language of extra spec values: `>= 4`, `s== x`, `<in> gold`, `<or> a <or> b` …"""

import operator
from collections.abc import Callable

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


def matcher(wanted: str) -> Callable[[str], bool]:
    """Whether a host's value is what the extra spec wants; without an operator, if they are equal. Read once for all
    hosts."""
    words = wanted.split()
    sign, operands = (words[0], words[1:]) if words else ("", [])
    if sign == "<or>":
        options = frozenset(word for word in operands if word != "<or>")
        return lambda value: value in options
    if sign == "<in>":
        parts = [word for word in operands if word != "<in>"]
        return lambda value: all(word in value for word in parts)
    if sign == "<all-in>":
        return lambda value: all(word in value for word in operands)
    operand = " ".join(operands)
    if sign in _TEXTS:
        compare = _TEXTS[sign]
        return lambda value: compare(value, operand)
    if sign in _NUMBERS:
        return _numbers(_NUMBERS[sign], operand)
    return lambda value: value == wanted


def matches(value: str, wanted: str) -> bool:
    """True if the host's value is what the extra spec wants."""
    return matcher(wanted)(value)


def _numbers(compare: Callable[[float, float], bool], operand: str) -> Callable[[str], bool]:
    try:
        number = float(operand)
    except ValueError:
        return lambda value: False

    def check(value: str) -> bool:
        try:
            return compare(float(value), number)
        except ValueError:
            return False

    return check

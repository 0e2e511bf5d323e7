"""Text from outside, shown to people: in a terminal, where it may not move the cursor, and in a log, where it may not
make lines."""

import re

# Control characters (C0, DEL, C1), and those of Unicode that break lines or turn the direction of what follows.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """The text on one line; what would do anything but be seen is written as Python writes it: `\\n`, `\\x1b`."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)

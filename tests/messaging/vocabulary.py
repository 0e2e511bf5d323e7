"""The verbs that the tests of messaging speak."""

import msgspec

from messaging.verbs import Verb


class Number(msgspec.Struct):
    number: int
    remark: str = ""


class Sum(msgspec.Struct):
    sum: int
    remark: str = ""


ADD_ONE = Verb("add_one", "1.0", Number, Sum)
NOTE = Verb("note", "1.0", Number)
REPORT = Verb("report", "1.0", Number)

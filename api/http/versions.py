"""Microversions: what they are, which span a row of the contract holds for, how a request asks for one."""

import re
from collections.abc import Mapping
from typing import NamedTuple, Self

from core import errors

STANDARD_HEADER = "OpenStack-API-Version"
OLD_HEADER = "X-OpenStack-Nova-API-Version"
SERVICE = "compute"

_FORM = re.compile(r"([1-9]\d{0,5})\.(0|[1-9]\d{0,5})")


class Microversion(NamedTuple):
    """A tuple, because every request compares and hashes a few of them."""

    major: int
    minor: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """The microversion written as ``2.53``.

        Raises:
            Invalid: the text is not of that form.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise errors.Invalid(
                f"API Version String {text[:64]} is of invalid format. Must be of format MajorNum.MinorNum.",
                field=STANDARD_HEADER,
            )
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


MIN = Microversion(2, 1)
MAX = Microversion(2, 104)


class Span(NamedTuple):
    """The microversions a row of the contract holds for; both ends belong to it, ``last=None`` is open."""

    first: Microversion
    last: Microversion | None

    @classmethod
    def between(cls, since: str, until: str | None) -> Self:
        return cls(Microversion.parse(since), None if until is None else Microversion.parse(until))

    def applies(self, version: Microversion) -> bool:
        return version >= self.first and (self.last is None or version <= self.last)

    def overlaps(self, other: "Span") -> bool:
        """Whether some microversion lies in both."""
        return (self.last is None or other.first <= self.last) and (other.last is None or self.first <= other.last)


class NotServed(Exception):
    """A well-formed microversion outside of what is served: 406, which no caller but HTTP knows."""

    def __init__(self, asked: Microversion) -> None:
        super().__init__(
            f"Version {asked} is not supported by the API. Minimum is {MIN} and maximum is {MAX}."
        )


def asked_for(headers: Mapping[str, str]) -> Microversion:
    """The microversion that a request's headers ask for; the lowest when they ask for none.

    Raises:
        Invalid: malformed.
        NotServed: outside of what is served.
    """
    text = _of_compute(headers.get(STANDARD_HEADER)) or headers.get(OLD_HEADER)
    if text is None:
        return MIN
    text = text.strip()
    if text == "latest":
        return MAX
    version = Microversion.parse(text)
    if not MIN <= version <= MAX:
        raise NotServed(version)
    return version


def _of_compute(header: str | None) -> str | None:
    """The part that is meant for this service: the header may name several, separated by commas."""
    if header is None:
        return None
    for part in header.split(","):
        service, _, version = part.strip().partition(" ")
        if service.lower() == SERVICE:
            return version
    return None


def echo(version: Microversion) -> tuple[tuple[str, str], ...]:
    """The response headers that say which microversion was answered."""
    return (
        (STANDARD_HEADER, f"{SERVICE} {version}"),
        (OLD_HEADER, str(version)),
        ("Vary", STANDARD_HEADER),
        ("Vary", OLD_HEADER),
    )

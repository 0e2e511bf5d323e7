"""What a flavor and an image ask for, value by value: each is read once, of a known kind, and whatever nobody read is
refused by name."""

from collections.abc import Iterable, Mapping

import core.errors

_BOOLEANS = {"true": True, "yes": True, "1": True, "on": True, "false": False, "no": False, "0": False, "off": False}
MOST = 1 << 20


class Options:
    """Named values, and which of them nobody has read yet.

    Args:
        values: by name; those that begin with none of the prefixes are no business of ours.
        kind: for messages.
    """

    def __init__(self, values: Mapping[str, str], kind: str, prefixes: tuple[str, ...]) -> None:
        self._values = values
        self._kind = kind
        self._left = {name for name in values if name.startswith(prefixes)}

    def take(self, name: str) -> str | None:
        """The value as it stands there."""
        self._left.discard(name)
        return self._values.get(name)

    def choice(self, name: str, choices: Iterable[str]) -> str | None:
        """One of these."""
        value = self.take(name)
        if value is not None and value not in choices:
            raise self.refusal(name, f"it is one of: {', '.join(choices)}")
        return value

    def flag(self, name: str) -> bool | None:
        """Yes or no."""
        value = self.take(name)
        if value is None:
            return None
        if value.strip().lower() not in _BOOLEANS:
            raise self.refusal(name, "it is true or false")
        return _BOOLEANS[value.strip().lower()]

    def count(self, name: str, *, least: int = 1, most: int = MOST) -> int | None:
        """A number."""
        value = self.take(name)
        if value is None:
            return None
        if not (value.isascii() and value.isdecimal() and len(value) <= len(str(most)) and least <= int(value) <= most):
            raise self.refusal(name, f"it is a number from {least} to {most}")
        return int(value)

    def numbered(self, name: str, most: int) -> dict[int, str]:
        """The values of `name.0`, `name.1` … by their number."""
        values = {}
        for number in range(most):
            value = self.take(f"{name}.{number}")
            if value is not None:
                values[number] = value
        return values

    def ignore(self, names: Iterable[str]) -> None:
        """These are known and without effect here."""
        self._left.difference_update(names)

    def refusal(self, name: str, what: str) -> core.errors.Invalid:
        """The error that says what the value may be."""
        return core.errors.Invalid(f"The {self._kind} {name} cannot be {self._values.get(name)!r}; {what}", field=name)

    def refuse_the_rest(self) -> None:
        """
        Raises:
            Invalid: something was asked for that nobody has read.
        """
        if self._left:
            name = min(self._left)
            raise core.errors.Invalid(f"This hypervisor does not know the {self._kind} {name}", field=name)


class FlavorAndImageOptions:
    """The same question to flavor (`hw:NAME`) and image (`hw_NAME`): both answers must make sense, the flavor's
    holds."""

    def __init__(self, flavor: Options, image: Options) -> None:
        self.flavor = flavor
        self.image = image

    def choice(self, name: str, choices: Iterable[str]) -> str | None:
        """One of these."""
        theirs = self.image.choice(f"hw_{name}", choices)
        return self.flavor.choice(f"hw:{name}", choices) or theirs

    def flag(self, name: str) -> bool | None:
        """Yes or no."""
        ours, theirs = self.flavor.flag(f"hw:{name}"), self.image.flag(f"hw_{name}")
        return theirs if ours is None else ours

    def count(self, name: str, *, most: int = MOST) -> int | None:
        """A number from 1 on."""
        theirs = self.image.count(f"hw_{name}", most=most)
        return self.flavor.count(f"hw:{name}", most=most) or theirs

    def numbered(self, name: str, most: int) -> dict[int, str]:
        """Numbered values; the flavor's, if it has any."""
        theirs = self.image.numbered(f"hw_{name}", most)
        return self.flavor.numbered(f"hw:{name}", most) or theirs

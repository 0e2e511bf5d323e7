"""The admin password of a new server: told once in the response, kept nowhere."""

import secrets

LENGTH = 12
# No characters that are easily taken for another: the same three groups as the field's other clouds.
_GROUPS = ("23456789", "ABCDEFGHJKLMNPQRSTUVWXYZ", "abcdefghijkmnopqrstuvwxyz")


def generate() -> str:
    """A password with at least one character of each group."""
    characters = [secrets.choice(group) for group in _GROUPS]
    characters += [secrets.choice("".join(_GROUPS)) for _ in range(LENGTH - len(characters))]
    secrets.SystemRandom().shuffle(characters)
    return "".join(characters)

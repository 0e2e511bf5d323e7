"""How a request is refused whose fields are well formed but ask for something that cannot be."""

import core.errors


def invalid(field: str, why: str) -> core.errors.Invalid:
    """The error that names the field."""
    return core.errors.Invalid(f"Invalid input for field/attribute {field}. {why}", field=field)

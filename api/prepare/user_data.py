"""What the user hands to the guest's first boot."""

import base64
import binascii

from api.http.schema import Type, fixed

LONGEST = 65535


def _checked(encoded: str) -> str:
    try:
        base64.b64decode("".join(encoded.split()), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("It must be Base64.") from None
    return encoded


# Base64 text; the limit is on the text, as clients know it.
USER_DATA: Type = fixed({"type": "string", "maxLength": LONGEST}, _checked)

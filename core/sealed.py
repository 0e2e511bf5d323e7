"""Secrets that only one program can open: sealed to its public key, readable nowhere on the way.

X25519 with a fresh key for each box, HKDF-SHA256, ChaCha20-Poly1305. A box is bound to what it is about (`about`):
taken from its place and put into another it cannot be opened. Keys and boxes travel as base64 text.
"""

import base64
import binascii
import os
import pathlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

import core.errors

_KEY_BYTES = 32
_NO_NONCE = bytes(12)  # Each box has a key of its own.


def seal(secret: str, *, key: str, about: str) -> str:
    """The secret in a box for the owner of this public key.

    Raises:
        Invalid: it is no key.
    """
    theirs = _public(_bytes(key))
    once = X25519PrivateKey.generate()
    shown = once.public_key().public_bytes_raw()
    shared = _shared(once.exchange(theirs), shown + theirs.public_bytes_raw())
    return base64.b64encode(
        shown + ChaCha20Poly1305(shared).encrypt(_NO_NONCE, secret.encode(), about.encode())
    ).decode()


class Opener:
    """The owner of a key, which lies in a file that only its owner may read; made by the first call that needs it."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path

    def public_key(self) -> str:
        """To which others seal.

        Raises:
            Unavailable: the disk does not let us.
        """
        return base64.b64encode(self._private().public_key().public_bytes_raw()).decode()

    def open(self, box: str, *, about: str) -> str:
        """The secret.

        Raises:
            Invalid: the box is damaged, about something else, or sealed to another key.
            Unavailable: the disk does not let us.
        """
        content = _bytes(box)
        shown, sealed = content[:_KEY_BYTES], content[_KEY_BYTES:]
        private = self._private()
        try:
            shared = _shared(private.exchange(_public(shown)), shown + private.public_key().public_bytes_raw())
            return ChaCha20Poly1305(shared).decrypt(_NO_NONCE, sealed, about.encode()).decode()
        except (InvalidTag, ValueError) as error:
            raise core.errors.Invalid("The secret was not sealed for this host", field="sealed") from error

    def _private(self) -> X25519PrivateKey:
        try:
            if not self._path.exists():
                self._make()
            return X25519PrivateKey.from_private_bytes(self._path.read_bytes())
        except (OSError, ValueError) as error:
            raise core.errors.Unavailable(f"The key of this host cannot be read: {error}") from error

    def _make(self) -> None:
        fresh = self._path.with_suffix(".new")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(X25519PrivateKey.generate().private_bytes_raw())
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(self._path)


def _public(key: bytes) -> X25519PublicKey:
    try:
        return X25519PublicKey.from_public_bytes(key)
    except ValueError as error:
        raise core.errors.Invalid("This is no public key", field="key") from error


def _shared(exchanged: bytes, salt: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=_KEY_BYTES, salt=salt, info=b"cellplane sealed 1").derive(exchanged)


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise core.errors.Invalid("This is no base64 text", field="sealed") from error

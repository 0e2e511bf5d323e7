"""SSH keys: what a public one must look like, its fingerprint, new pairs."""

import base64
import binascii
import hashlib

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

# As Nova generated them: every client and every guest of the time reads RSA in this form.
RSA_BITS = 2048
RSA_EXPONENT = 65537

# Keys that live in a hardware token are good for a guest although the library has no code for them.
TOKEN_KEYS = ("sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com")


def fingerprint(public_key: str) -> str:
    """MD5 of the key itself in pairs of digits, as `ssh-keygen -l -E md5` shows it.

    Raises:
        ValueError: this is no public key; the text says why.
    """
    line = public_key.strip()
    if "\n" in line or "\r" in line:
        raise ValueError("an SSH public key is one line")
    kind, _, rest = line.partition(" ")
    blob = _blob(rest)
    if _inner_kind(blob) != kind:
        raise ValueError("failed to generate fingerprint: it is no SSH public key")
    try:
        serialization.load_ssh_public_key(line.encode())
    except UnsupportedAlgorithm:
        if kind not in TOKEN_KEYS:
            raise ValueError(f"SSH keys of type {kind[:64]} are not supported") from None
    except Exception:
        # Of what it does not like the library raises ValueError, NotImplementedError (a compressed point), and others
        # in other releases.
        raise ValueError("failed to generate fingerprint: it is no SSH public key") from None
    digest = hashlib.md5(blob, usedforsecurity=False).hexdigest()
    return ":".join(digest[at : at + 2] for at in range(0, len(digest), 2))


def generate(user_id: str) -> tuple[str, str]:
    """A new private key (PEM) and its public key; whose they are does not show in them."""
    private = rsa.generate_private_key(public_exponent=RSA_EXPONENT, key_size=RSA_BITS)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    public = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return pem.decode(), f"{public.decode()} generated-by-cellplane"


def _blob(rest: str) -> bytes:
    """The key itself, which stands between its type and a comment."""
    encoded = rest.strip().partition(" ")[0]
    try:
        return base64.b64decode(encoded.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ValueError("failed to generate fingerprint: it is no SSH public key") from None


def _inner_kind(blob: bytes) -> str:
    """The type that the key itself says; each part is preceded by its length in four bytes."""
    return blob[4 : 4 + int.from_bytes(blob[:4])].decode("ascii", "replace")

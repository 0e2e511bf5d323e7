"""Certificates as key pairs, for guests that log in with them (Windows): their fingerprint, new ones."""

import binascii
import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from core.clock import utcnow

RSA_BITS = 2048
RSA_EXPONENT = 65537
VALID_FOR = datetime.timedelta(days=3650)

# Microsoft's user principal name, by which WinRM knows the user of a certificate.
USER_PRINCIPAL_NAME = ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")
_MAX_COMMON_NAME_BYTES = 64


def fingerprint(public_key: str) -> str:
    """SHA-1 of the certificate in pairs of digits.

    Raises:
        ValueError: this is no certificate in PEM form.
    """
    try:
        printed = x509.load_pem_x509_certificate(public_key.encode()).fingerprint(hashes.SHA1())
    except Exception:
        # Whatever the library raises of text that it does not like.
        raise ValueError("failed to generate fingerprint: it is no X.509 certificate in PEM form") from None
    return binascii.hexlify(printed, ":").decode()


def generate(user_id: str) -> tuple[str, str]:
    """A new private key (PEM) and a certificate for it, signed by itself, that names the user."""
    private = rsa.generate_private_key(public_exponent=RSA_EXPONENT, key_size=RSA_BITS)
    common_name = user_id.encode()[:_MAX_COMMON_NAME_BYTES].decode(errors="ignore")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    principal = f"{user_id}@localhost".encode()
    now = utcnow()
    certificate = (
        x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number(), now, now + VALID_FOR)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.OtherName(USER_PRINCIPAL_NAME, _utf8_string(principal))]), critical=False
        )
        .sign(private, hashes.SHA256())
    )
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem.decode(), certificate.public_bytes(serialization.Encoding.PEM).decode()


def _utf8_string(value: bytes) -> bytes:
    """The value as ASN.1 has it (DER): type 12, the length, the bytes."""
    length = len(value)
    if length < 0x80:
        return bytes((0x0C, length)) + value
    size = (length.bit_length() + 7) // 8
    return bytes((0x0C, 0x80 | size)) + length.to_bytes(size) + value

"""A key that opens nothing, for SDKs that insist on signing before they ask for a token."""

from __future__ import annotations

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

MARK = "<throw-away RSA key>"
"""Stands for the key in the text of a file."""


def rsa_key() -> str:
    """A new private key, PKCS #8 in PEM. RSA of 2048 bits is the least that SDKs take (NIST SP 800-131A)."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return encoded.decode()

"""Ed25519 (RFC 8032) for the audit journal's chain.

Safe here: signatures are deterministic, so no random number can leak the key; verification by ``cryptography``
(OpenSSL) refuses non-canonical S, so a signature cannot be changed into another valid one.
"""

from __future__ import annotations

from typing import NoReturn, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from keyhole.core.errors import IntegrityError, InvalidRequest

KEY_SIZE = 32


class SigningKey:
    """One Ed25519 private key. Made by ``generate`` or ``from_bytes``.

    Attributes:
        public: the 32 bytes of the public key.
    """

    __slots__ = ("_key", "public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public: bytes = key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> Self:
        """A new random key."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_bytes(cls, seed: bytes) -> Self:
        """The key that ``to_bytes`` wrote: the 32-byte seed of RFC 8032.

        Raises:
            InvalidRequest: the seed has another size.
        """
        if len(seed) != KEY_SIZE:
            raise InvalidRequest("an Ed25519 key has 32 bytes")
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    def to_bytes(self) -> bytes:
        """Key material in clear: the caller seals it under the root key."""
        return self._key.private_bytes_raw()

    def sign(self, data: bytes) -> bytes:
        """The signature of the data, 64 bytes."""
        return self._key.sign(data)

    def __repr__(self) -> str:
        return f"SigningKey(public={self.public.hex()}, ***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is never serialised but by to_bytes")


def verify(public: bytes, data: bytes, signature: bytes) -> None:
    """Return if ``signature`` is that of ``data`` by the owner of ``public`` (32 bytes).

    Raises:
        IntegrityError: anything else.
    """
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        raise IntegrityError(
            "a signature does not match: the signed bytes were changed, or another key signed them",
            "compare the public key with a copy that was kept elsewhere",
        ) from None

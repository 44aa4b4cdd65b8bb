"""AES-256-GCM (NIST SP 800-38D) with a random 96-bit nonce.

Safe here: a nonce comes from ``os.urandom`` for every message, never from a counter, so neither a fork, a restored
snapshot nor two nodes can repeat one. Random nonces are sound for 2**32 messages a key (SP 800-38D, section 8.3): an
entry's data key seals one message, and the number of messages under longer-lived keys is counted by the vault. Tags are
always 16 bytes; there is no way to ask for a shorter one. GCM does not commit to its key, so nothing here tries several
keys on one ciphertext: the key is named (by its term) beside it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keyhole.core.errors import IntegrityError, InvalidRequest

KEY_SIZE = 32
NONCE_SIZE = 12
TAG_SIZE = 16
OVERHEAD = NONCE_SIZE + TAG_SIZE
MAX_PLAINTEXT = 2**31 - 1 - OVERHEAD


def does_not_open() -> IntegrityError:
    """The one error for a wrong key, a wrong place, damage and tampering: it never says which."""
    return IntegrityError(
        "these bytes do not open: the key is not theirs, or they were damaged or changed",
        "check that this is the right vault and key; restore a backup if the store is damaged",
    )


class AeadKey:
    """One AES-256-GCM key. The key schedule is kept, the key itself cannot be read back, printed or pickled.

    Args:
        key: 32 random bytes.

    Raises:
        InvalidRequest: the key has another size.
    """

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_SIZE:
            raise InvalidRequest("an AES-256-GCM key has 32 bytes")
        self._cipher = AESGCM(key)

    def seal(self, plaintext: bytes, aad: bytes) -> bytes:
        """Nonce (12 bytes), ciphertext and tag (16 bytes) of the plaintext, bound to ``aad``."""
        if len(plaintext) > MAX_PLAINTEXT:
            raise InvalidRequest("the plaintext is larger than 2 GiB")
        nonce = os.urandom(NONCE_SIZE)
        return nonce + self._cipher.encrypt(nonce, plaintext, aad)

    def seal_each(self, messages: Sequence[tuple[bytes, bytes]], prefix: bytes = b"") -> list[bytes]:
        """``seal`` for many short messages at once: each a plaintext and its ``aad``.

        Args:
            messages: what to seal; each gets random bytes of its own for its nonce.
            prefix: stands in clear before every result, and every result is bound to it.
        """
        nonces = os.urandom(NONCE_SIZE * len(messages))
        encrypt = self._cipher.encrypt
        sealed = []
        at = 0
        for plaintext, aad in messages:
            nonce = nonces[at : at + NONCE_SIZE]
            at += NONCE_SIZE
            sealed.append(b"%b%b%b" % (prefix, nonce, encrypt(nonce, plaintext, prefix + aad)))
        return sealed

    def open(self, blob: bytes | memoryview, aad: bytes) -> bytes:
        """The plaintext of what ``seal`` made with the same key and ``aad``.

        Raises:
            IntegrityError: wrong key or ``aad``, or the blob was changed, truncated or extended.
        """
        if len(blob) < OVERHEAD:
            raise does_not_open()
        try:
            return self._cipher.decrypt(blob[:NONCE_SIZE], blob[NONCE_SIZE:], aad)
        except (InvalidTag, OverflowError):
            raise does_not_open() from None

    def __repr__(self) -> str:
        return "AeadKey(***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is never serialised")

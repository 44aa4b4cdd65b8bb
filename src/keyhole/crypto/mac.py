"""HMAC-SHA256 (RFC 2104, FIPS 198-1) under one key for many short messages."""

from __future__ import annotations

import hashlib
from typing import NoReturn

_BLOCK = 64
_INNER = bytes(code ^ 0x36 for code in range(256))
_OUTER = bytes(code ^ 0x5C for code in range(256))


class MacKey:
    """A key that is worked into both hashes once, which is most of the work for a message of one block.

    Safe here: it is the textbook construction over hashlib's SHA-256; a test compares it with ``hmac``.

    Args:
        key: 32 random bytes, or any other number up to 64.
    """

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        padded = key.ljust(_BLOCK, b"\0")
        if len(padded) != _BLOCK:
            raise ValueError("the key is longer than a block of SHA-256")
        self._inner = hashlib.sha256(padded.translate(_INNER))
        self._outer = hashlib.sha256(padded.translate(_OUTER))

    def hexdigest(self, message: bytes) -> str:
        """The code of a message as 64 hexadecimal digits."""
        inner = self._inner.copy()
        inner.update(message)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.hexdigest()

    def __repr__(self) -> str:
        return "MacKey(***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is never serialised")

"""The journal key of one term. It seals nothing itself: it derives keys that each seal a bounded number of records.

    record key = HKDF-SHA256( journal key, salt, "keyhole record key 1" )

Under one AES-GCM key with random nonces at most 2**32 messages may be sealed (NIST SP 800-38D, 8.3). A journal gets
there, and must not stop, nor ask a store before each record how many there were. So a process draws a random salt,
counts what it seals under the key that belongs to it, and draws another one long before the limit. What a failed
commit sealed in vain counts too. Salts of 128 random bits do not meet within any number of processes that there
could be.
"""

from __future__ import annotations

import os
from typing import NoReturn

from keyhole.crypto.aead import AeadKey
from keyhole.crypto.kdf import hkdf

SALT_SIZE = 16
RECORDS_PER_KEY = 2**20
_PURPOSE = b"keyhole record key 1"
_OPENED = 256  # keys of other processes that are kept ready for reading


class JournalKey:
    """Gives the keys for records.

    Args:
        key: 32 random bytes.
    """

    __slots__ = ("_current", "_key", "_left", "_opened", "_salt")

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._salt = b""
        self._left = 0
        self._current: AeadKey | None = None
        self._opened: dict[bytes, AeadKey] = {}

    def sealer(self, count: int = 1) -> tuple[AeadKey, bytes]:
        """A key for so many further records, and the salt that stands before each."""
        if self._current is None or self._left < count:
            self._salt = os.urandom(SALT_SIZE)
            self._current = self._derive(self._salt)
            self._left = RECORDS_PER_KEY
        self._left -= count
        return self._current, self._salt

    def opener(self, salt: bytes) -> AeadKey:
        """The key of records that have this salt."""
        if salt == self._salt and self._current is not None:
            return self._current
        key = self._opened.get(salt)
        if key is None:
            if len(self._opened) >= _OPENED:
                self._opened.clear()
            key = self._opened[salt] = self._derive(salt)
        return key

    def _derive(self, salt: bytes) -> AeadKey:
        return AeadKey(hkdf(self._key, _PURPOSE, salt=salt))

    def __repr__(self) -> str:
        return "JournalKey(***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is never serialised")

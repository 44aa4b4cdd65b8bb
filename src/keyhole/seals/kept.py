"""What the seals have in common whose key somebody else keeps (a token, a cloud, another vault), and age with them.

The root key is not sent there. Each blob has 32 random bytes of its own, which that key wraps, and the root key is
sealed under them: so nobody there learns it, one exchange of a few bytes is enough, and the blob has the same form
whoever was asked.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from urllib.parse import parse_qsl

from keyhole.core.errors import InvalidRequest
from keyhole.crypto.aead import KEY_SIZE, does_not_open
from keyhole.seals import MEMBERS
from keyhole.seals.blob import Header, close, disclose, from_random_key, read_own_header

TIMEOUT = 10.0
"""Seconds that whoever keeps the key gets to answer."""


class KeptSeal(ABC):
    """A seal whose key somebody else keeps.

    Args:
        vault_id: blobs open for this vault only.
    """

    name = ""
    unattended = True

    def __init__(self, vault_id: str) -> None:
        self.vault_id = vault_id

    @abstractmethod
    def lock(self, key: bytes) -> bytes:
        """32 random bytes, wrapped. Raises ``Sealed`` when nobody answers or the key may not be used."""

    @abstractmethod
    def unlock(self, wrapped: bytes) -> bytes:
        """What ``lock`` wrapped. Raises ``Sealed`` likewise, and ``IntegrityError`` for what the key did not wrap."""

    def wrap(self, key: bytes) -> bytes:
        """The root key under a new random key, and that under the one which somebody else keeps."""
        if len(key) != KEY_SIZE:
            raise InvalidRequest(f"a root key has {KEY_SIZE} bytes")
        own = os.urandom(KEY_SIZE)
        header = Header.around(self.name, self.lock(own))
        return close(header, from_random_key(header, own), self.vault_id, key)

    def unwrap(self, blob: bytes) -> bytes:
        """The root key."""
        header = self._header(blob)
        own = self.unlock(header.wrapped)
        if len(own) != KEY_SIZE:
            raise does_not_open()
        return disclose(blob, from_random_key(header, own), self.vault_id)

    def needs_rewrap(self, blob: bytes) -> bool:
        """Never: there is one derivation."""
        self._header(blob)
        return False

    def _header(self, blob: bytes) -> Header:
        header = read_own_header(blob, self.name, MEMBERS)
        if not header.wrapped:
            raise does_not_open()
        return header


def settings(seal: str, rest: str, known: tuple[str, ...], example: str) -> tuple[str, dict[str, str]]:
    """What stands after a seal's name: which key, and ``?name=value&name=value``.

    Raises:
        InvalidRequest: no key is named, or an option is not known, or stands twice.
    """
    target, _, query = rest.partition("?")
    if not target:
        raise InvalidRequest(f"the seal {seal} needs a key", f"write --seal '{seal}:{example}'")
    options: dict[str, str] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known or name in options or not value:
            # What was given may be a secret that does not belong here, and is not repeated.
            raise InvalidRequest(
                f"the seal {seal} has an option that is not known, is empty or stands twice",
                f"options are: {', '.join(known)}",
            )
        options[name] = value
    return target, options

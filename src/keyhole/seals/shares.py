"""The seal of several people: 32 random bytes, of which each holds a share (``crypto.shamir``).

The key exists while the vault is made and while it is unsealed, and is kept nowhere.
"""

from __future__ import annotations

import base64
import binascii
import os

from keyhole.core.errors import IntegrityError, InvalidRequest, Sealed
from keyhole.core.value import Secret
from keyhole.crypto.aead import KEY_SIZE, does_not_open
from keyhole.crypto.shamir import Share, combine, split
from keyhole.seals import MEMBERS, quorum
from keyhole.seals.blob import HKDF, Header, close, disclose, from_random_key, read_own_header

NAME = "shares"


class SharesSeal:
    """A seal that opens with some of several shares.

    Args:
        vault_id: blobs open for this vault only.
        shares: how many there are.
        threshold: how many open it.
        entered: shares in base64, with space between them; ``None`` until they are entered.
        create: make a new key, to be dealt out by ``deal``.
    """

    name = NAME
    unattended = False

    def __init__(
        self, vault_id: str, shares: int, threshold: int, entered: Secret | None = None, *, create: bool = False
    ) -> None:
        self._vault_id = vault_id
        self._shares = shares
        self._threshold = threshold
        self._entered = entered
        self._new = os.urandom(KEY_SIZE) if create else b""

    def deal(self) -> list[Secret]:
        """The shares of a new key, in base64, each for another person.

        Raises:
            Sealed: the key is not new: who has it has shares already.
        """
        if not self._new:
            raise Sealed("the shares were dealt out when the vault was made", "ask those who hold them")
        return [Secret(base64.b64encode(share.encode())) for share in split(self._new, self._shares, self._threshold)]

    def wrap(self, key: bytes) -> bytes:
        """The root key under the shared key."""
        header = Header.new(NAME, HKDF)
        return close(header, from_random_key(header, self._key()), self._vault_id, key)

    def unwrap(self, blob: bytes) -> bytes:
        """The root key."""
        header = read_own_header(blob, NAME, MEMBERS)
        return disclose(blob, from_random_key(header, self._key()), self._vault_id)

    def needs_rewrap(self, blob: bytes) -> bool:
        """Never: there is one derivation."""
        read_own_header(blob, NAME, MEMBERS)
        return False

    def _key(self) -> bytes:
        if self._new:
            return self._new
        if self._entered is None:
            raise Sealed(
                f"this vault opens with {self._threshold} of {self._shares} shares",
                "start a server over it, and enter one share after the other: keyhole operator unseal",
            )
        try:
            texts = self._entered.reveal().split()
            return combine([Share.decode(base64.b64decode(text, validate=True)) for text in texts])
        except (binascii.Error, InvalidRequest, IntegrityError):
            raise does_not_open() from None


def open_seal(rest: str, *, passphrase: Secret | None, vault_id: str, create: bool, interactive: bool) -> SharesSeal:
    """See ``keyhole.seals.open_seal``."""
    del interactive
    shares, threshold = quorum(f"{NAME}:{rest}")
    return SharesSeal(vault_id, shares, threshold, None if create else passphrase, create=create)

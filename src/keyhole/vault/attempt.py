"""The shares that were entered so far, towards something that takes several people."""

from __future__ import annotations

import base64
import hmac
from typing import TYPE_CHECKING

from keyhole.core.errors import IntegrityError, InvalidRequest
from keyhole.core.value import Secret
from keyhole.vault.keys import new_request_id

if TYPE_CHECKING:
    from keyhole.crypto.shamir import Share


class Attempt:
    """One attempt. It holds at most ``threshold`` shares, whoever sends how many.

    Args:
        threshold: how many are needed.
        set_id: the set that they must be of, where that is known before they are put together.

    Attributes:
        nonce: names the attempt, so that those who enter shares see whether it is still the same.
    """

    def __init__(self, threshold: int, set_id: bytes = b"") -> None:
        self._threshold = threshold
        self._set_id = set_id
        self._shares: dict[int, Share] = {}
        self.nonce = new_request_id()

    @property
    def progress(self) -> int:
        """How many different shares were entered."""
        return len(self._shares)

    @property
    def complete(self) -> bool:
        """Are there enough?"""
        return len(self._shares) >= self._threshold

    def add(self, encoded: bytes) -> bool:
        """Take one share; whether it was not there yet. The same one a second time changes nothing.

        Raises:
            InvalidRequest: it is no share, or of a vault with another threshold, or not of the set that is known.
            IntegrityError: it does not belong to those that were entered before. Which of them is wrong is not known.
        """
        from keyhole.crypto.shamir import Share  # noqa: PLC0415  # few vaults have shares

        share = Share.decode(encoded)
        other_set = self._set_id and not hmac.compare_digest(share.set_id, self._set_id)
        if share.threshold != self._threshold or other_set:
            raise InvalidRequest(
                "this share is not one of this vault", "its holder may have one for another vault, or an older one"
            )
        for known in self._shares.values():
            if known.set_id != share.set_id or (known.number == share.number and not known.same_as(share)):
                raise IntegrityError(
                    "this share and those before it are not of one set, and all are forgotten",
                    "enter them again, each from its holder",
                )
        new = share.number not in self._shares
        self._shares[share.number] = share
        return new

    def prove(self) -> None:
        """Put the shares together; that gives the key of their set, or fails.

        Raises:
            IntegrityError: one of them is forged.
        """
        from keyhole.crypto.shamir import combine  # noqa: PLC0415  # as above

        combine(list(self._shares.values()))

    def is_of(self, set_id: bytes) -> bool:
        """Are the shares of this set?"""
        return all(hmac.compare_digest(share.set_id, set_id) for share in self._shares.values())

    def forget(self) -> None:
        """Begin anew, in the same attempt."""
        self._shares.clear()

    def joined(self) -> Secret:
        """The shares as the seal takes them."""
        return Secret(b" ".join(base64.b64encode(share.encode()) for share in self._shares.values()))

    def __repr__(self) -> str:
        return f"Attempt({self.progress} of {self._threshold})"

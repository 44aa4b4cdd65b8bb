"""The shares that were entered so far, towards unsealing."""

from __future__ import annotations

import base64

from keyhole.core.errors import IntegrityError, InvalidRequest
from keyhole.core.value import Secret
from keyhole.crypto.shamir import Share
from keyhole.vault.keys import new_request_id


class Attempt:
    """One attempt to unseal. It holds at most ``threshold`` shares, whoever sends how many.

    Args:
        threshold: how many are needed.

    Attributes:
        nonce: names the attempt, so that those who enter shares see whether it is still the same.
    """

    def __init__(self, threshold: int) -> None:
        self._threshold = threshold
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

    def add(self, encoded: bytes) -> None:
        """Take one share; the same one a second time changes nothing.

        Raises:
            InvalidRequest: it is no share, or of a vault with another threshold.
            IntegrityError: it does not belong to those that were entered before. Which of them is wrong is not known.
        """
        share = Share.decode(encoded)
        if share.threshold != self._threshold:
            raise InvalidRequest("this share is not one of this vault", "its holder may have one for another vault")
        for known in self._shares.values():
            if known.set_id != share.set_id or (known.number == share.number and not known.same_as(share)):
                raise IntegrityError(
                    "this share and those before it are not of one set, and all are forgotten",
                    "enter them again, each from its holder",
                )
        self._shares[share.number] = share

    def joined(self) -> Secret:
        """The shares as the seal takes them."""
        return Secret(b" ".join(base64.b64encode(share.encode()) for share in self._shares.values()))

    def __repr__(self) -> str:
        return f"Attempt({self.progress} of {self._threshold})"

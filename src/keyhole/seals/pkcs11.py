"""The seal of a hardware token: a key that never leaves it. What follows the name says which (``keepers.token``)."""

from __future__ import annotations

from keyhole.core.value import Secret
from keyhole.keepers.token import NAME, Token, open_token
from keyhole.seals.kept import KeptSeal


class Pkcs11Seal(KeptSeal):
    """A seal that opens with a key in a token.

    Args:
        token: the key, for the purpose of this vault.
        vault_id: blobs open for this vault only.
    """

    name = NAME

    def __init__(self, token: Token, vault_id: str) -> None:
        super().__init__(vault_id)
        self.unattended = token.unattended
        self._token = token

    def lock(self, key: bytes) -> bytes:
        """The random key of a blob, encrypted in the token."""
        return self._token.lock(key)

    def unlock(self, wrapped: bytes) -> bytes:
        """What was encrypted there."""
        return self._token.unlock(wrapped)


def open_seal(rest: str, *, passphrase: Secret | None, vault_id: str, create: bool, interactive: bool) -> Pkcs11Seal:
    """See ``keyhole.seals.open_seal``."""
    del interactive
    return Pkcs11Seal(open_token(rest, vault_id, passphrase, create=create), vault_id)

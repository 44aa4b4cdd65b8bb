"""The seal of a desktop: the operating system's keychain keeps 32 random bytes, unlocked with the user's session."""

from __future__ import annotations

import base64
import binascii
import os

from keyhole.core.errors import InvalidRequest, Sealed
from keyhole.core.value import Secret
from keyhole.crypto.aead import KEY_SIZE, does_not_open
from keyhole.keepers.keychain import Entries, Keychain
from keyhole.seals import MEMBERS
from keyhole.seals.blob import HKDF, Header, close, disclose, from_random_key, read_own_header

NAME = "keychain"
SERVICE = "keyhole"
_INSTEAD = "use --seal passphrase"


class KeychainSeal:
    """A seal that opens with an entry of the user's keychain: service ``keyhole``, user name the vault's id.

    Args:
        vault_id: id of the vault.
        create: make the entry if it is missing.
        interactive: the keychain may ask its user; otherwise a locked one is ``Sealed`` at once.
        timeout: seconds for each operation; by default 10, with ``interactive`` 120.
    """

    name = NAME
    unattended = True

    def __init__(
        self, vault_id: str, *, create: bool = False, interactive: bool = False, timeout: float | None = None
    ) -> None:
        self._vault_id = vault_id
        self._create = create
        self._keychain = Keychain(_INSTEAD, interactive, timeout)

    def wrap(self, key: bytes) -> bytes:
        """The root key under the entry's key; makes the entry if this seal may."""
        header = Header.new(NAME, HKDF)
        return close(header, from_random_key(header, self._entry(create=self._create)), self._vault_id, key)

    def unwrap(self, blob: bytes) -> bytes:
        """The root key."""
        header = read_own_header(blob, NAME, MEMBERS)
        return disclose(blob, from_random_key(header, self._entry(create=False)), self._vault_id)

    def needs_rewrap(self, blob: bytes) -> bool:
        """Never: there is one derivation."""
        read_own_header(blob, NAME, MEMBERS)
        return False

    def _entry(self, *, create: bool) -> bytes:
        return self._keychain.run(lambda entries: _fetch(entries, self._vault_id, create=create))


def available(timeout: float = 2.0) -> bool:
    """Whether there is a keychain that is unlocked and answers within ``timeout`` seconds. Never prompts."""
    return Keychain(_INSTEAD, timeout=timeout).available()


def _fetch(entries: Entries, vault_id: str, *, create: bool) -> bytes:
    stored = entries.get_password(SERVICE, vault_id)
    if stored is None:
        if not create:
            raise Sealed(
                "the keychain holds no key for this vault",
                "open it as the user, and on the machine, that made it; or restore the keychain's entry",
            )
        entries.set_password(SERVICE, vault_id, base64.b64encode(os.urandom(KEY_SIZE)).decode("ascii"))
        # What counts is what will be found next time.
        stored = entries.get_password(SERVICE, vault_id)
    try:
        key = base64.b64decode(stored or "", validate=True)
    except (binascii.Error, ValueError):
        raise does_not_open() from None
    if len(key) != KEY_SIZE:
        raise does_not_open()
    return key


def open_seal(rest: str, *, passphrase: Secret | None, vault_id: str, create: bool, interactive: bool) -> KeychainSeal:
    """See ``keyhole.seals.open_seal``."""
    del passphrase
    if rest:
        raise InvalidRequest("the seal keychain takes nothing after its name", "write --seal keychain")
    return KeychainSeal(vault_id, create=create, interactive=interactive)

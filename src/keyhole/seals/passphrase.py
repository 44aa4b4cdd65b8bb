"""The seal of a person: a passphrase, stretched by Argon2id (RFC 9106).

Blobs of the weaker accepted profile (PBKDF2) open once more and ask to be rewrapped; below the floor nothing opens,
whatever the store says.
"""

from __future__ import annotations

import unicodedata

from keyhole.core.errors import InvalidRequest, Sealed
from keyhole.core.value import Secret
from keyhole.crypto import kdf
from keyhole.seals import MEMBERS
from keyhole.seals.blob import Header, close, disclose, read_own_header

NAME = "passphrase"
MIN_LENGTH = 8  # NIST SP 800-63B, section 5.1.1.2


class PassphraseSeal:
    """A seal that opens with a passphrase.

    Args:
        passphrase: UTF-8, compared in Unicode's form NFKC (NIST SP 800-63B), so that keyboards do not matter; other
            bytes are taken as they are. ``None`` until somebody enters it: then everything is ``Sealed``.
        vault_id: blobs open for this vault only.
        create: judge the passphrase now.
        profile: what ``wrap`` uses; ``kdf.TESTING`` makes this seal worthless and fast.

    Raises:
        InvalidRequest: with ``create``, a passphrase that is shorter than 8 characters.
    """

    name = NAME
    unattended = False

    def __init__(
        self, passphrase: Secret | None, vault_id: str, *, create: bool = False, profile: kdf.Profile = kdf.DEFAULT
    ) -> None:
        self._passphrase = passphrase
        self._vault_id = vault_id
        self._profile = profile
        self._testing = profile is kdf.TESTING
        if create:
            self._judged()

    def wrap(self, key: bytes) -> bytes:
        """The root key under the passphrase, with this seal's profile. Takes 0.1 s and 64 MiB."""
        header = Header.new(NAME, self._profile.name)
        wrapping_key = kdf.derive(self._profile, self._judged(), header.salt, testing=self._testing)
        return close(header, wrapping_key, self._vault_id, key)

    def unwrap(self, blob: bytes) -> bytes:
        """The root key. Takes 0.1 s and 64 MiB, also for a wrong passphrase."""
        header = read_own_header(blob, NAME, MEMBERS)
        profile = kdf.stored_profile(header.derivation, testing=self._testing)
        wrapping_key = kdf.derive(profile, self._normal(), header.salt, testing=self._testing)
        return disclose(blob, wrapping_key, self._vault_id)

    def needs_rewrap(self, blob: bytes) -> bool:
        """Whether the blob's profile is weaker than this seal's."""
        header = read_own_header(blob, NAME, MEMBERS)
        stored = kdf.stored_profile(header.derivation, testing=self._testing)
        return stored.strength < self._profile.strength

    def _normal(self) -> bytes:
        if self._passphrase is None:
            raise Sealed("no passphrase was given", "enter it on a terminal, or name it with --passphrase-file")
        given = self._passphrase.reveal()
        try:
            return unicodedata.normalize("NFKC", given.decode()).encode()
        except UnicodeDecodeError:
            return given

    def _judged(self) -> bytes:
        normal = self._normal()
        if len(normal.decode(errors="replace")) < MIN_LENGTH:
            raise InvalidRequest(
                f"the passphrase is shorter than {MIN_LENGTH} characters", "choose several words that nobody can guess"
            )
        return normal


def open_seal(
    rest: str, *, passphrase: Secret | None, vault_id: str, create: bool, interactive: bool
) -> PassphraseSeal:
    """See ``keyhole.seals.open_seal``."""
    del interactive
    if rest:
        raise InvalidRequest(
            "the passphrase does not belong into the seal's name, where everybody can read it",
            "use --seal passphrase, and enter it on a terminal or with --passphrase-file",
        )
    return PassphraseSeal(passphrase, vault_id, create=create)

"""The seal of a machine without a keychain: a key in a file that the operator brings.

Whoever can read the file can open the vault, so the file belongs on another medium than the store (a mounted secret, a
TPM-unlocked credential). Keyhole reads such a file and never makes one, except by ``make_keyfile``.
"""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path

from keyhole.core.errors import Conflict, InvalidRequest
from keyhole.core.value import Secret
from keyhole.crypto.aead import KEY_SIZE
from keyhole.seals import MEMBERS
from keyhole.seals.blob import HKDF, Header, close, disclose, from_random_key, read_own_header
from keyhole.seals.private_file import read_private

NAME = "keyfile"
MODE = 0o600
_MAX_SIZE = 128
_MIN_DISTINCT = 12  # of 32 random bytes fewer are distinct once in 10**25 files
_TEXT = frozenset(range(0x20, 0x7F)) | frozenset(b"\t\r\n")


class KeyfileSeal:
    """A seal that opens with a file of 32 random bytes: raw, as 64 hexadecimal digits, or in base64.

    Args:
        path: the file; read anew at each use.
        vault_id: blobs open for this vault only.
    """

    name = NAME
    unattended = True

    def __init__(self, path: Path, vault_id: str) -> None:
        self._path = path
        self._vault_id = vault_id

    def wrap(self, key: bytes) -> bytes:
        """The root key under the file's key."""
        header = Header.new(NAME, HKDF)
        return close(header, from_random_key(header, read_keyfile(self._path)), self._vault_id, key)

    def unwrap(self, blob: bytes) -> bytes:
        """The root key."""
        header = read_own_header(blob, NAME, MEMBERS)
        return disclose(blob, from_random_key(header, read_keyfile(self._path)), self._vault_id)

    def needs_rewrap(self, blob: bytes) -> bool:
        """Never: there is one derivation."""
        read_own_header(blob, NAME, MEMBERS)
        return False


def read_keyfile(path: Path) -> bytes:
    """The 32 bytes of a key file.

    Raises:
        Sealed: it is not there, or the medium does not give it.
        InvalidRequest: somebody else may read or replace it, or its content is no key.
    """
    content = read_private(path, "key file", "name a file that holds 32 random bytes", _MAX_SIZE)
    return _decode(path, content)


def make_keyfile(path: Path) -> None:
    """Write a new random key (base64, one line) to a file that does not exist yet, readable by its owner only.

    Raises:
        Conflict: something is there already.
        InvalidRequest: the file cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, MODE)
    except FileExistsError:
        raise Conflict(f"{path} is there already", "a key file is never overwritten: name another one") from None
    except OSError as error:
        raise InvalidRequest(
            f"the key file {path} cannot be made: {error.strerror}", "name another place: keyfile:PATH"
        ) from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, MODE)  # whatever the umask left of it
            file.write(base64.b64encode(os.urandom(KEY_SIZE)) + b"\n")
            file.flush()
            os.fsync(descriptor)
        _sync_folder(path.parent)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise InvalidRequest(
            f"the key file {path} cannot be written: {error.strerror}", "name another place: keyfile:PATH"
        ) from None


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _decode(path: Path, content: bytes) -> bytes:
    if len(content) == KEY_SIZE and not _TEXT.issuperset(content):
        key = content
    else:
        text = content.strip()
        try:
            if len(text) == 2 * KEY_SIZE:
                key = binascii.unhexlify(text)
            else:
                standard = text.translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
                key = base64.b64decode(standard + b"=" * (-len(standard) % 4), validate=True)
        except binascii.Error:
            key = b""
    if len(key) != KEY_SIZE or len(set(key)) < _MIN_DISTINCT:
        raise InvalidRequest(
            f"the key file {path} does not hold 32 random bytes",
            "it may hold them raw, as 64 hexadecimal digits, or in base64; try: openssl rand -base64 32",
        )
    return key


def open_seal(rest: str, *, passphrase: Secret | None, vault_id: str, create: bool, interactive: bool) -> KeyfileSeal:
    """See ``keyhole.seals.open_seal``."""
    del passphrase, create, interactive
    if not rest:
        raise InvalidRequest("the seal keyfile needs a path", "write --seal keyfile:/path/to/key")
    return KeyfileSeal(Path(rest), vault_id)

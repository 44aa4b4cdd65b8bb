"""The bytes that every seal writes.

    format 0x01 | size u8, seal's name | size u8, derivation | size u8, salt | nonce 12, ciphertext 32, tag 16
    format 0x02 | the same three       | size u16, wrapped                   | nonce 12, ciphertext 32, tag 16

The derivation names how the wrapping key comes from what the seal holds: a profile of ``crypto.kdf``, or
``hkdf-sha256`` for a seal that holds 32 random bytes. All that stands before the nonce, and the vault's id, is
associated data. The salt is fresh for each blob, so a wrapping key wraps one root key.

The second format is that of keys which somebody else keeps and never gives away, and of age (``seals.kept``): 32 random
bytes of this blob, wrapped by such a key. There the salt is a digest of what it wrapped, so that damage is seen before
anybody is asked.
"""

from __future__ import annotations

import hashlib
import os
from typing import NamedTuple

from keyhole.core.errors import InvalidRequest
from keyhole.crypto.aead import KEY_SIZE, OVERHEAD, AeadKey, does_not_open
from keyhole.crypto.kdf import SALT_SIZE, hkdf

FORMAT = 1
FORMAT_KEPT = 2
HKDF = "hkdf-sha256"
_MAX_WRAPPED = 6144  # more than the services that are known wrap 32 bytes in
_SEALED_SIZE = OVERHEAD + KEY_SIZE


class Header(NamedTuple):
    """The clear part of a blob.

    Attributes:
        seal: name of the member that made it.
        derivation: name of a KDF profile, or ``hkdf-sha256``.
        salt: random bytes of this blob.
        wrapped: the key of this blob, as somebody else has wrapped it; empty where nobody else is asked.
    """

    seal: str
    derivation: str
    salt: bytes
    wrapped: bytes = b""

    @classmethod
    def new(cls, seal: str, derivation: str) -> Header:
        """A header with a fresh salt."""
        return cls(seal, derivation, os.urandom(SALT_SIZE))

    @classmethod
    def around(cls, seal: str, wrapped: bytes) -> Header:
        """A header with a key that somebody else has wrapped. Raises ``InvalidRequest`` for one of no sensible size."""
        if not 0 < len(wrapped) <= _MAX_WRAPPED:
            raise InvalidRequest(f"what wraps keys for the seal {seal} gave an answer of no sensible size")
        return cls(seal, HKDF, _digest(wrapped), wrapped)

    def encode(self) -> bytes:
        """The header as it stands in the blob."""
        fields = (self.seal.encode(), self.derivation.encode(), self.salt)
        clear = b"".join(bytes((len(field),)) + field for field in fields)
        if not self.wrapped:
            return bytes((FORMAT,)) + clear
        return bytes((FORMAT_KEPT,)) + clear + len(self.wrapped).to_bytes(2, "big") + self.wrapped


def read_header(blob: bytes) -> Header:
    """The header of a blob, not yet proved.

    Raises:
        IntegrityError: these bytes are no blob of a format that this version knows.
    """
    fields = []
    position = 1
    for _ in range(3):
        end = position + 1 + blob[position] if position < len(blob) else 0
        fields.append(blob[position + 1 : end])
        position = end or len(blob)
    kept = blob[:1] == bytes((FORMAT_KEPT,))
    wrapped = b""
    if kept:
        start = position + 2
        position = start + int.from_bytes(blob[position:start], "big")
        wrapped = blob[start:position]
    sound = kept == bool(wrapped) and (not kept or fields[2] == _digest(wrapped))
    known = blob[:1] in {bytes((FORMAT,)), bytes((FORMAT_KEPT,))}
    if not known or not sound or len(blob) != position + _SEALED_SIZE or len(fields[2]) != SALT_SIZE:
        raise does_not_open()
    try:
        return Header(fields[0].decode("ascii"), fields[1].decode("ascii"), fields[2], wrapped)
    except UnicodeDecodeError:
        raise does_not_open() from None


def _digest(wrapped: bytes) -> bytes:
    return hashlib.sha256(wrapped).digest()[:SALT_SIZE]


def read_own_header(blob: bytes, seal: str, others: tuple[str, ...]) -> Header:
    """The header of a blob that ``seal`` made.

    Raises:
        IntegrityError: these bytes are no blob.
        InvalidRequest: another seal of this shelf made it.
    """
    header = read_header(blob)
    if header.seal != seal:
        if header.seal in others:
            raise InvalidRequest(
                f"this vault is sealed with {header.seal!r}, not with {seal!r}", f"open it with --seal {header.seal}"
            )
        raise does_not_open()
    return header


def close(header: Header, wrapping_key: bytes, vault_id: str, key: bytes) -> bytes:
    """A blob with the root key in it.

    Raises:
        InvalidRequest: the root key has not 32 bytes.
    """
    if len(key) != KEY_SIZE:
        raise InvalidRequest(f"a root key has {KEY_SIZE} bytes")
    clear = header.encode()
    return clear + AeadKey(wrapping_key).seal(key, clear + vault_id.encode())


def disclose(blob: bytes, wrapping_key: bytes, vault_id: str) -> bytes:
    """The root key in a blob whose header was read before.

    Raises:
        IntegrityError: wrong wrapping key or vault, or the blob was changed.
    """
    clear, sealed = blob[:-_SEALED_SIZE], blob[-_SEALED_SIZE:]
    return AeadKey(wrapping_key).open(sealed, clear + vault_id.encode())


def from_random_key(header: Header, key: bytes) -> bytes:
    """The wrapping key of a seal that holds 32 random bytes.

    Raises:
        IntegrityError: the blob asks for another derivation.
    """
    if header.derivation != HKDF:
        raise does_not_open()
    return hkdf(key, b"keyhole seal " + header.seal.encode(), salt=header.salt)

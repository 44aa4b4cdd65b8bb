"""Bitwarden's exports with a password of their own: AES-256-CBC, then HMAC-SHA-256 (their type 2).

The key is stretched by PBKDF2-HMAC-SHA256 or Argon2id with the parameters that the file names: they are bounded here,
since the file may be anybody's. Source: Bitwarden's "Security whitepaper" and the documentation of encrypted exports.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from keyhole.core.errors import IntegrityError, InvalidRequest
from keyhole.crypto.kdf import pbkdf2_sha256

PBKDF2, ARGON2ID = 0, 1
SOUND_ITERATIONS = 600_000
"""Below this a password is guessed cheaply (OWASP Password Storage Cheat Sheet, 2023)."""
_MOST = {"iterations": 2_000_000, "passes": 10, "memory": 1024, "lanes": 16}
_TYPE = "2."
_SEALED = re.compile(r"2\.([A-Za-z0-9+/=]+)\|([A-Za-z0-9+/=]+)\|([A-Za-z0-9+/=]+)")
_BLOCK = 16
_TAG = 32


@dataclass(frozen=True, slots=True)
class Stretching:
    """How the password of a file becomes its key.

    Attributes:
        salt: as the file has it, as text.
        kind: ``PBKDF2`` or ``ARGON2ID``.
        iterations: of PBKDF2, or passes of Argon2id.
        memory: MiB, for Argon2id.
        lanes: for Argon2id.
    """

    salt: str
    kind: int = PBKDF2
    iterations: int = SOUND_ITERATIONS
    memory: int = 64
    lanes: int = 4

    @classmethod
    def fresh(cls) -> Stretching:
        """For a new file."""
        return cls(base64.b64encode(os.urandom(16)).decode())

    @property
    def weak(self) -> bool:
        """Whether guessing is cheap."""
        if self.kind == PBKDF2:
            return self.iterations < SOUND_ITERATIONS
        return self.memory < 19 or self.memory * self.iterations < 38  # OWASP: 19 MiB, two passes

    def key(self, password: bytes) -> FileKey:
        """The keys of the file. Takes as long as it says.

        Raises:
            InvalidRequest: its parameters are none, or more than Bitwarden's own programs allow.
        """
        most = _MOST["iterations"] if self.kind == PBKDF2 else _MOST["passes"]
        if self.kind not in {PBKDF2, ARGON2ID} or not 1 <= self.iterations <= most or not self.salt:
            raise InvalidRequest("the export names a key derivation that is not known, or has no bound", "export again")
        if self.kind == PBKDF2:
            master = pbkdf2_sha256(password, self.salt.encode(), self.iterations)
        elif (
            not 1 <= self.lanes <= _MOST["lanes"] or not 8 * self.lanes <= self.memory * 1024 <= _MOST["memory"] * 1024
        ):
            raise InvalidRequest("the export names more memory or lanes than Bitwarden allows", "export again")
        else:
            salt = hashlib.sha256(self.salt.encode()).digest()
            stretch = Argon2id(
                salt=salt,
                length=32,
                iterations=self.iterations,
                lanes=self.lanes,
                memory_cost=self.memory * 1024,
            )
            master = stretch.derive(password)
        seal, tag = (HKDFExpand(algorithm=SHA256(), length=32, info=info).derive(master) for info in (b"enc", b"mac"))
        return FileKey(seal, tag)


@dataclass(frozen=True, slots=True)
class FileKey:
    """The two keys of a file."""

    _seal: bytes = field(repr=False)
    _tag: bytes = field(repr=False)

    def open(self, text: str) -> bytes:
        """What ``2.iv|data|mac`` says. Raises ``IntegrityError``."""
        match = _SEALED.fullmatch(text)
        try:
            iv, data, tag = (base64.b64decode(part, validate=True) for part in match.groups()) if match else (b"",) * 3
        except (binascii.Error, ValueError):
            iv = data = tag = b""
        if len(iv) != _BLOCK or not data or len(data) % _BLOCK or len(tag) != _TAG:
            raise IntegrityError("the export is not sealed as Bitwarden seals it", "export again")
        if not hmac.compare_digest(tag, hmac.digest(self._tag, iv + data, "sha256")):
            raise IntegrityError(
                "the export does not open: the password is another, or it was changed", "use the file's own password"
            )
        opened = Cipher(algorithms.AES(self._seal), modes.CBC(iv)).decryptor()
        unpadded = padding.PKCS7(128).unpadder()
        try:
            return unpadded.update(opened.update(data) + opened.finalize()) + unpadded.finalize()
        except ValueError:  # after a right MAC only whoever has the password can have made this
            raise IntegrityError("the export is not padded as Bitwarden pads it", "export again") from None

    def seal(self, content: bytes) -> str:
        """``2.iv|data|mac`` of a content."""
        iv = os.urandom(_BLOCK)
        padded = padding.PKCS7(128).padder()
        sealing = Cipher(algorithms.AES(self._seal), modes.CBC(iv)).encryptor()
        data = sealing.update(padded.update(content) + padded.finalize()) + sealing.finalize()
        parts = (iv, data, hmac.digest(self._tag, iv + data, "sha256"))
        return _TYPE + "|".join(base64.b64encode(part).decode() for part in parts)

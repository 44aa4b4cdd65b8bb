"""AES-SIV (RFC 5297, AES-256) for names: deterministic, so that an encrypted name can be looked up.

Safe here: equal inputs give equal tokens by design, and that is all that a reader of the store learns: under one parent
every name is unique, and the parent is associated data, so the same name under two parents looks unrelated. SIV needs
no nonce, and is both authenticated and misuse resistant. The token's length shows the name's length in bytes.
"""

from __future__ import annotations

from typing import NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from keyhole.core import base64url
from keyhole.core.errors import InvalidRequest
from keyhole.crypto.aead import does_not_open

KEY_SIZE = 64
TAG_SIZE = 16


class NameKey:
    """Encrypts path segments, one at a time, each bound to its parent path.

    Args:
        key: 64 random bytes: 32 for S2V, 32 for CTR.

    Raises:
        InvalidRequest: the key has another size.
    """

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_SIZE:
            raise InvalidRequest("an AES-SIV key has 64 bytes")
        self._cipher = AESSIV(key)

    def encrypt(self, segment: str, parent: str) -> str:
        """The token of a segment: base64url without padding, ASCII, no ``/``; 4 characters for 3 of 16 + n bytes.

        Args:
            segment: the clear name, not empty.
            parent: the whole path above it in clear, exactly as ``decrypt`` will get it.

        Raises:
            InvalidRequest: the segment is empty, or a name is not valid Unicode.
        """
        if not segment:
            raise InvalidRequest("a name cannot be empty")
        try:
            sealed = self._cipher.encrypt(segment.encode(), [parent.encode()])
        except UnicodeEncodeError:
            raise InvalidRequest("a name holds characters that are not valid Unicode") from None
        return base64url.encode(sealed)

    def decrypt(self, token: str, parent: str) -> str:
        """The segment whose token below ``parent`` this is.

        Raises:
            IntegrityError: wrong key or parent, or not exactly a token as ``encrypt`` writes it.
        """
        try:
            sealed = base64url.decode(token)
            if len(sealed) <= TAG_SIZE:
                raise does_not_open()
            return self._cipher.decrypt(sealed, [parent.encode()]).decode()
        except (InvalidTag, ValueError):
            raise does_not_open() from None

    def __repr__(self) -> str:
        return "NameKey(***)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is never serialised")

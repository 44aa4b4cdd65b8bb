"""Values of sops files: AES-256-GCM with a nonce of 256 bits for each value, and one data key that age seals.

The associated data of a value are the keys that lead to it, so that no value can stand in another's place, but items of
one list can. What holds the whole together is a digest (SHA-512 over the values in their order), sealed like a value
with the time of the last change: it is verified before anything is given out. Masters other than age are not asked.
Source: the documentation of sops, "Encryption protocol" and "Message Authentication Code".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from keyhole.core.errors import IntegrityError, InvalidRequest
from keyhole.crypto import age
from keyhole.crypto.age import Identity, Recipient

KEY_SIZE = 32
_NONCE = 32
_TAG = 16
_SEALED = re.compile(
    r"ENC\[AES256_GCM,data:([A-Za-z0-9+/=]*),iv:([A-Za-z0-9+/=]+),tag:([A-Za-z0-9+/]{22}==),type:([a-z]+)\]"
)
_BEGIN, _END = "-----BEGIN AGE ENCRYPTED FILE-----", "-----END AGE ENCRYPTED FILE-----"
_WIDTH = 64


class DataKey:
    """The key of one file.

    Args:
        key: 32 bytes.

    Raises:
        IntegrityError: it has another size.
    """

    __slots__ = ("_cipher", "_key")

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_SIZE:
            raise IntegrityError("the data key of the file has not 32 bytes", "encrypt the file again with sops")
        self._key = key
        self._cipher = AESGCM(key)

    @classmethod
    def fresh(cls) -> DataKey:
        """A new one, for one file."""
        return cls(os.urandom(KEY_SIZE))

    @classmethod
    def open(cls, armored: str, identities: Sequence[Identity]) -> DataKey:
        """The key that an age file has, as text in the form of PEM.

        Raises:
            NotFound: it is not for these identities.
            IntegrityError: it is no such file.
        """
        return cls(age.decrypt(_unarmored(armored), identities))

    def seal_for(self, recipient: Recipient) -> str:
        """The key for one recipient, as text in the form of PEM."""
        body = base64.b64encode(age.encrypt(self._key, [recipient])).decode()
        lines = [body[at : at + _WIDTH] for at in range(0, len(body), _WIDTH)]
        return "\n".join([_BEGIN, *lines, _END, ""])

    def open_value(self, text: str, place: str) -> tuple[bytes, str]:
        """What a value says, and its type.

        Args:
            text: ``ENC[…]``.
            place: the associated data: the keys that lead to it, each with a colon after it.

        Raises:
            IntegrityError: it is no sealed value, is of another place, or was changed.
        """
        match = _SEALED.fullmatch(text)
        if match is None:
            raise IntegrityError("a value is not sealed as sops seals it", "sops decrypt FILE says more")
        try:
            data, nonce, tag = (base64.b64decode(match[number], validate=True) for number in (1, 2, 3))
            return self._cipher.decrypt(nonce, data + tag, place.encode()), match[4]
        except (InvalidTag, ValueError, binascii.Error, OverflowError):
            raise IntegrityError(
                "a value does not open: it was changed, or stands in another's place",
                "restore the file from its history",
            ) from None

    def seal_value(self, value: bytes, kind: str, place: str) -> str:
        """``ENC[…]`` of a value; see ``open_value``."""
        nonce = os.urandom(_NONCE)
        sealed = self._cipher.encrypt(nonce, value, place.encode())
        data, iv, tag = (base64.b64encode(part).decode() for part in (sealed[:-_TAG], nonce, sealed[-_TAG:]))
        return f"ENC[AES256_GCM,data:{data},iv:{iv},tag:{tag},type:{kind}]"

    def __repr__(self) -> str:
        return "DataKey(***)"


class Digest:
    """What holds the values of a file together.

    Args:
        sealed_only: only sealed values count. The digest then begins with another word, so that the two differ.
    """

    def __init__(self, *, sealed_only: bool = False) -> None:
        self._hash = hashlib.sha512(hashlib.sha256(b"sops").digest() if sealed_only else b"")
        self._sealed_only = sealed_only

    def add(self, value: bytes, *, sealed: bool) -> None:
        """The next value, in the order of the file."""
        if sealed or not self._sealed_only:
            self._hash.update(value)

    def seal(self, key: DataKey, changed: str) -> str:
        """As it stands in the file; ``changed`` is the time there."""
        return key.seal_value(self._hash.hexdigest().upper().encode(), "str", changed)

    def verify(self, key: DataKey, sealed: str, changed: str) -> None:
        """Raises ``IntegrityError`` where the file says another one."""
        said, _ = key.open_value(sealed, changed)
        if not hmac.compare_digest(said, self._hash.hexdigest().upper().encode()):
            raise IntegrityError(
                "the MAC of the file is not that of its values: something in it was changed, moved or taken out",
                "restore the file from its history; nothing of it was taken",
            )


def is_sealed(text: str) -> bool:
    """Whether a text is a sealed value."""
    return _SEALED.fullmatch(text) is not None


def _unarmored(text: str) -> bytes:
    lines = [line.strip() for line in text.strip().splitlines()]
    if len(lines) < 3 or lines[0] != _BEGIN or lines[-1] != _END:  # two marks and a line
        raise IntegrityError("the data key is not in an age file", "encrypt the file again with sops")
    try:
        return base64.b64decode("".join(lines[1:-1]), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("the age file of the data key is not base64", "encrypt the file again with sops") from None

"""Files for several readers: age (age-encryption.org/v1), by the library rage.

Safe here: a file is opened in memory or not at all, and nothing of it is given out before its end was authenticated.
age has no associated data and no sender: whoever knows the recipients can make such a file. That a file stands in its
place and comes from a member is what the signed documents beside it say (``repo.sidecar``).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import pyrage

from keyhole.core.errors import IntegrityError, InvalidRequest, NotFound
from keyhole.crypto.kdf import hkdf
from keyhole.crypto.signing import SigningKey

NATIVE = "age1"
PRIVATE = "AGE-SECRET-KEY-1"
MAX_FILE = 16 * 1024 * 1024  # bytes of one file, in clear or sealed
MAX_STANZAS = 256
_SIGNING = b"keyhole repo signing v1"
_RECIPIENT = re.compile(r"age1[02-9ac-hj-np-z]{58}")
_IDENTITY = re.compile(r"AGE-SECRET-KEY-1[02-9AC-HJ-NP-Z]{58}")
_SSH = ("ssh-ed25519 ", "ssh-rsa ")
_HEAD = b"age-encryption.org/v1\n"
_MAX_HEADER = 512 * 1024  # bytes
_FULL_LINE = 64  # characters of a body, but of its last line
_STANZA = re.compile(rb"->( [\x21-\x7e]+)+")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]*")


@dataclass(frozen=True, slots=True)
class Recipient:
    """Who can open a file.

    Attributes:
        text: ``age1…``, or a public SSH key without its comment.
    """

    text: str
    _key: Any = field(repr=False, compare=False)

    @property
    def native(self) -> bool:
        """Whether it is an X25519 recipient, which every reader of the format knows."""
        return self.text.startswith(NATIVE)


@dataclass(frozen=True, slots=True)
class Identity:
    """A private key that opens files, and the signing key that derives from it.

    Attributes:
        recipient: who is meant by it.
        signing: Ed25519, derived by HKDF-SHA-256 from the private key, so that there is one key to keep.
    """

    recipient: Recipient
    signing: SigningKey = field(repr=False)
    _key: Any = field(repr=False, compare=False)
    _text: str = field(default="", repr=False, compare=False)

    def to_text(self) -> str:
        """The private key in clear, in the form of age: the caller writes it where only its owner reads."""
        return self._text

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is never serialised but by to_text")


def generate() -> Identity:
    """A new X25519 identity."""
    return parse_identity(str(pyrage.x25519.Identity.generate()))


def parse_identity(text: str) -> Identity:
    """An identity from ``AGE-SECRET-KEY-1…`` or from an unencrypted private SSH key.

    Raises:
        InvalidRequest: it is neither.
    """
    text = text.strip()
    try:
        if text.startswith("-----BEGIN"):
            key = pyrage.ssh.Identity.from_buffer(text.encode())
            return Identity(parse_recipient(_public_of_ssh(text)), _signing(text), key, text)
        key = pyrage.x25519.Identity.from_str(text if _IDENTITY.fullmatch(text) else "")
    except (ValueError, TypeError, pyrage.IdentityError, pyrage.RecipientError):
        raise InvalidRequest(
            "this is no private key of age", "it begins with AGE-SECRET-KEY-1, and has 74 characters"
        ) from None
    return Identity(parse_recipient(str(key.to_public())), _signing(text), key, text)


def find_identity(text: str) -> Identity:
    """The first identity in the text of a key file, whose other lines are comments. Raises ``InvalidRequest``."""
    if text.lstrip().startswith("-----BEGIN"):
        return parse_identity(text)
    line = next((line for line in text.splitlines() if line.startswith(PRIVATE)), text)
    return parse_identity(line)


def parse_recipient(text: str) -> Recipient:
    """A recipient from ``age1…`` or a public SSH key (``ssh-ed25519``, ``ssh-rsa``). Raises ``InvalidRequest``."""
    text = text.strip()
    try:
        if text.startswith(_SSH) and "\n" not in text:
            bare = " ".join(text.split()[:2])
            return Recipient(bare, pyrage.ssh.Recipient.from_str(bare))
        return Recipient(text, pyrage.x25519.Recipient.from_str(text if _RECIPIENT.fullmatch(text) else ""))
    except (ValueError, pyrage.RecipientError):
        raise InvalidRequest(
            "this is no public key of age", "it begins with age1 and has 62 characters, or is an SSH key in one line"
        ) from None


def encrypt(plaintext: bytes, recipients: Sequence[Recipient]) -> bytes:
    """Seal for these recipients, in the order given, as a binary age file.

    Raises:
        InvalidRequest: there is no recipient, or there are too many, or it is too long.
    """
    if not 0 < len(recipients) <= MAX_STANZAS:
        raise InvalidRequest(f"a file has 1 to {MAX_STANZAS} recipients", "grant it to fewer")
    if len(plaintext) > MAX_FILE:
        raise InvalidRequest(f"a secret has at most {MAX_FILE} bytes", "keep large files elsewhere, and their key here")
    return bytes(pyrage.encrypt(plaintext, [recipient._key for recipient in recipients]))  # noqa: SLF001 - of this file


def decrypt(ciphertext: bytes, identities: Sequence[Identity]) -> bytes:
    """What a binary age file has, for one of these identities.

    Raises:
        NotFound: it is not for any of them.
        IntegrityError: it is no such file, or was changed.
    """
    require_file(ciphertext)
    try:
        return bytes(pyrage.decrypt(ciphertext, [identity._key for identity in identities]))  # noqa: SLF001
    except pyrage.DecryptError as error:
        if "matching keys" in str(error):
            raise NotFound("the file is not for this key", "ask an owner to grant it, or use another key") from None
        raise _damaged() from None


def stanza_count(ciphertext: bytes) -> int:
    """How many recipients a file says that it has. Raises ``IntegrityError`` when it is none."""
    return require_file(ciphertext)


def require_file(ciphertext: bytes) -> int:
    """See that this is a binary age file of version 1 with a bounded, well-formed header.

    The library takes a stanza without its body, which the format does not have; other readers refuse such a file.

    Returns:
        How many stanzas it has.

    Raises:
        IntegrityError: it is none.
    """
    if len(ciphertext) > MAX_FILE + 64 * 1024 or not ciphertext.startswith(_HEAD):
        raise _damaged()
    head, mark, _ = ciphertext[len(_HEAD) : _MAX_HEADER].partition(b"\n--- ")
    lines = head.split(b"\n")
    count = position = 0
    while position < len(lines):
        count += 1
        if not _STANZA.fullmatch(lines[position]):
            raise _damaged()
        position += 1
        while position < len(lines) and len(lines[position]) == _FULL_LINE and _BASE64.fullmatch(lines[position]):
            position += 1
        if position == len(lines) or len(lines[position]) >= _FULL_LINE or not _BASE64.fullmatch(lines[position]):
            raise _damaged()  # the last line of a body is a short one, or empty
        position += 1
    if not mark or not 0 < count <= MAX_STANZAS:
        raise _damaged()
    return count


def _damaged() -> IntegrityError:
    return IntegrityError("this is no file of age, or it was changed", "look at its history, and restore it from there")


def _signing(text: str) -> SigningKey:
    return SigningKey.from_bytes(hkdf("".join(text.split()).encode(), _SIGNING))


def _public_of_ssh(text: str) -> str:
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 - SSH keys are rare
        Encoding,
        PublicFormat,
        load_ssh_private_key,
    )

    key = load_ssh_private_key(text.encode(), None)
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()

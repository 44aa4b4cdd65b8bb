"""Headers of binary age files (age-encryption.org/v1), read strictly before a library sees them.

The library takes some that the format does not have, such as a stanza without its body. What is known of the three
kinds of stanzas that Keyhole writes is demanded here: numbers of arguments and sizes, as the format's specification and
the age test kit have them. A stanza of another name is somebody's plugin, or the grease that keeps readers tolerant; it
is bounded and well-formed, and who opens the file decides what it means.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final

from keyhole.core.errors import IntegrityError

HEAD: Final = b"age-encryption.org/v1\n"
MAX_FILE = 16 * 1024 * 1024  # bytes of one file, in clear or sealed
MAX_STANZAS = 256
MAX_WORK = 20  # log2 of scrypt's N that is computed for anybody: 1 GiB, several seconds
MIN_WORK = 1
_MAX_HEADER = 512 * 1024  # bytes
_FULL_LINE = 64  # characters of a body, but of its last line
_STANZA = re.compile(rb"->( [\x21-\x7e]+)+")
_BASE64 = re.compile(rb"[A-Za-z0-9+/]*")
_NUMBER = re.compile(rb"[1-9][0-9]?")
_SCRYPT = b"scrypt"
_SEALED_KEY = 32  # bytes: a file's key of 16, and a tag
_RSA_BYTES = range(256, 2049)  # of a modulus from 2048 to 16384 bits


@dataclass(frozen=True, slots=True)
class Stanza:
    """How one recipient gets the key of a file.

    Attributes:
        kind: ``X25519``, ``ssh-ed25519``, ``ssh-rsa``, ``scrypt``, or the name that a plugin chose.
        arguments: after the kind.
        body: decoded.
    """

    kind: bytes
    arguments: tuple[bytes, ...]
    body: bytes


def read_header(ciphertext: bytes) -> list[Stanza]:
    """The stanzas of a file for recipients.

    Raises:
        IntegrityError: it is no such file, or one that a passphrase opens.
    """
    stanzas = _stanzas(ciphertext)
    if any(stanza.kind == _SCRYPT for stanza in stanzas):
        raise damaged()
    return stanzas


def require_passphrase_file(ciphertext: bytes) -> None:
    """See that a file opens with a passphrase alone, for a bounded amount of work.

    Raises:
        IntegrityError: it is none, or asks for more work than that.
    """
    stanzas = _stanzas(ciphertext)
    if len(stanzas) != 1 or stanzas[0].kind != _SCRYPT:
        raise damaged()


def damaged() -> IntegrityError:
    """What is said of every file that is none."""
    return IntegrityError("this is no file of age, or it was changed", "look at its history, and restore it from there")


def _stanzas(ciphertext: bytes) -> list[Stanza]:
    if len(ciphertext) > MAX_FILE + 64 * 1024 or not ciphertext.startswith(HEAD):
        raise damaged()
    head, mark, _ = ciphertext[len(HEAD) : _MAX_HEADER].partition(b"\n--- ")
    lines = head.split(b"\n")
    found: list[Stanza] = []
    position = 0
    while position < len(lines):
        first = lines[position]
        if not _STANZA.fullmatch(first) or len(found) == MAX_STANZAS:
            raise damaged()
        position += 1
        body = b""
        while position < len(lines) and len(lines[position]) == _FULL_LINE and _BASE64.fullmatch(lines[position]):
            body += lines[position]
            position += 1
        if position == len(lines) or len(lines[position]) >= _FULL_LINE or not _BASE64.fullmatch(lines[position]):
            raise damaged()  # the last line of a body is a short one, or empty
        kind, *arguments = first[3:].split(b" ")
        stanza = Stanza(kind, tuple(arguments), _decoded(body + lines[position]))
        if not _is_sound(stanza):
            raise damaged()
        found.append(stanza)
        position += 1
    if not mark or not found:
        raise damaged()
    return found


def _is_sound(stanza: Stanza) -> bool:
    """Whether a stanza of a known kind has the shape that its kind has."""
    match stanza.kind, stanza.arguments:
        case b"X25519", [share]:
            return _size(share) == 32 and len(stanza.body) == _SEALED_KEY
        case b"ssh-ed25519", [tag, share]:
            return _size(tag) == 4 and _size(share) == 32 and len(stanza.body) == _SEALED_KEY
        case b"ssh-rsa", [tag]:
            return _size(tag) == 4 and len(stanza.body) in _RSA_BYTES
        case b"scrypt", [salt, work]:
            return (
                _size(salt) == 16
                and _NUMBER.fullmatch(work) is not None
                and MIN_WORK <= int(work) <= MAX_WORK
                and len(stanza.body) == _SEALED_KEY
            )
        case ((b"X25519" | b"ssh-ed25519" | b"ssh-rsa" | b"scrypt"), _):
            return False
    return True


def _size(argument: bytes) -> int:
    return len(_decoded(argument)) if _BASE64.fullmatch(argument) else -1


def _decoded(text: bytes) -> bytes:
    """Base64 without padding, in its only form (RFC 4648, section 3.5)."""
    try:
        data = base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        raise damaged() from None
    if base64.b64encode(data).rstrip(b"=") != text:
        raise damaged()
    return data

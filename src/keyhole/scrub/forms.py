"""The byte strings in which a secret value shows up: every encoding that is worth an exact pattern.

Escapes that can be mixed freely (percent, JSON, HTML) are no forms: they are undone by a decoded view
(`keyhole.scrub.escapes`) and the result is compared with the forms made here.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .escapes import misread, undone

MIN_SECRET = 8
"""Bytes. A shorter value would be found by chance in unrelated data, so it is never searched for."""

MIN_PREFIX = 12
"""Bytes of a value that a prefix must show before it is masked; below that, prefixes are ordinary display."""

_EXOTIC_MAX = 512
"""Bytes. Byte lists and twice encoded base64 of longer values are not searched: nobody prints them."""

_URL_SAFE = bytes.maketrans(b"+/", b"-_")


class Meant(NamedTuple):
    """What a value that itself looks escaped stands for, where that is too short to be a form.

    Attributes:
        data: the text that it stands for.
        least: bytes that its spelling has at least: an occurrence in fewer is that text, and not the value.
    """

    data: bytes
    least: int


class Form(NamedTuple):
    """One pattern.

    Attributes:
        data: the bytes to find.
        need: how many of its leading bytes must be there before anything is masked.
        wraps: whether it is base64 or hexadecimal, which may be broken into lines.
    """

    data: bytes
    need: int
    wraps: bool = False


def too_short(value: bytes) -> bool:
    """Whether a value is too short to be scrubbed (fewer than 8 bytes without surrounding white space).

    Ask this when a secret is stored: such a value is refused or warned about, because answers cannot be cleaned of
    it without damage to unrelated data.
    """
    return len(value.strip()) < MIN_SECRET


def derive(value: bytes) -> list[Form]:
    """All forms of a value; none when it is too short. White space around it does not count."""
    value = value.strip()
    if len(value) < MIN_SECRET:
        return []
    need = min(len(value), max(MIN_PREFIX, len(value) * 3 // 4))
    forms: dict[bytes, Form] = {}
    for data, wraps in _encodings(value):
        if len(data) >= MIN_SECRET:
            # A prefix of base64 owns up to one character less than its share.
            forms.setdefault(data, Form(data, len(data) * need // len(value) - wraps, wraps))
    return list(forms.values())


def meant(value: bytes) -> Meant | None:
    """What all layers of escapes around a value leave of it, its own undone too; None where a form says it."""
    value = value.strip()
    data, _ = undone(value)
    return Meant(data, len(value)) if len(value) >= MIN_SECRET and 0 < len(data) < MIN_SECRET else None


def derive_wire(form: bytes) -> list[Form]:
    """Forms of something that an injection put on the wire, such as the base64 of Basic credentials.

    Only whole occurrences count: its beginning may be public (a user name), and the secret part of it has prefixes
    of its own.
    """
    form = form.strip()
    if len(form) < MIN_SECRET:
        return []
    found = dict((*_plain(form), *_base64(form), (form.hex().encode(), False)))
    return [Form(data, len(data), wraps) for data, wraps in found.items() if len(data) >= MIN_SECRET]


def _encodings(value: bytes) -> Iterator[tuple[bytes, bool]]:
    yield from _plain(value)
    yield from ((data, False) for data in misread(value))
    yield from _base64(value)
    lower = value.hex().encode()
    yield lower, True  # as xxd -p prints it
    yield lower.upper(), True
    yield from ((data, False) for data in _wide(value))
    if len(value) <= _EXOTIC_MAX:
        yield value.upper(), False
        yield value.lower(), False
        yield from ((data, False) for data in _byte_lists(value))
        for inner, _ in _base64_std(value):
            yield from _base64_std(inner)
        yield from _base64_std(next(iter(_wide(value))))  # as PowerShell's -EncodedCommand


def _plain(value: bytes) -> Iterator[tuple[bytes, bool]]:
    yield value, False
    decoded, _ = undone(value)
    if decoded != value:
        yield decoded, False
    if b" " in value:
        yield value.replace(b" ", b"+"), False
    if b"\n" in value:
        unix = value.replace(b"\r\n", b"\n")
        yield unix, False
        yield unix.replace(b"\n", b"\r\n"), False


def _base64(value: bytes) -> Iterator[tuple[bytes, bool]]:
    """Base64 with the spellings of its two special characters that are met so often that a view would be slow."""
    for data, wraps in _base64_std(value):
        yield data, wraps
        if b"+" in data or b"/" in data:
            yield data.translate(_URL_SAFE), wraps
            yield data.replace(b"/", rb"\/"), wraps
            yield data.replace(b"/", b"%2F").replace(b"+", b"%2B"), False
            yield data.replace(b"/", b"%2f").replace(b"+", b"%2b"), False


def _base64_std(value: bytes) -> Iterator[tuple[bytes, bool]]:
    """The characters of base64 that depend on the value alone, for each of its three places in a group of 3 bytes.

    RFC 4648, section 4: 6 bits a character, so a value that starts at byte k of a group owns the characters from
    bit 8k rounded up to 6 until the last whole character.
    """
    for shift, first in ((0, 0), (1, 2), (2, 3)):
        encoded = base64.b64encode(b"\0" * shift + value)
        yield encoded[first : (shift + len(value)) * 8 // 6], True


def _wide(value: bytes) -> Iterable[bytes]:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        text = value.decode("latin-1")
    return [text.encode(name) for name in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")]


def _byte_lists(value: bytes) -> Iterator[bytes]:
    for separator in (":", " ", "-"):
        lower = value.hex(separator).encode()
        yield lower
        yield lower.upper()
    for joint in (", ", ","):
        yield joint.join([f"0x{byte:02x}" for byte in value]).encode()
        yield joint.join(map(str, value)).encode()

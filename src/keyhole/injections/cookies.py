"""The pairs of ``Cookie`` headers (RFC 6265, section 4.2). What is not meant stays as it is."""

from __future__ import annotations

import re
from collections.abc import Callable

from keyhole.core.errors import InvalidRequest
from keyhole.core.message import Headers
from keyhole.injections import header_value

COOKIE = b"cookie"
_OCTETS = re.compile(rb"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]+")  # cookie-octet


def cookie_value(value: bytes) -> bytes:
    """A secret that is about to stand in a cookie, unchanged, when it can.

    Raises:
        InvalidRequest: it has a byte that no cookie may have, or that would begin another one.
    """
    if _OCTETS.fullmatch(header_value(value)) is None:
        raise InvalidRequest(
            "the secret has a space, a comma, a semicolon, a quote or a backslash, and cannot stand in a cookie",
            "store it as the API expects to receive it, often percent-encoded: keyhole set NAME",
        )
    return value


def set_cookie(headers: Headers, name: bytes, value: bytes) -> Headers:
    """Set one cookie where the first of its name stood, or behind the others; others of its name are gone."""
    own = name + b"=" + value
    placed = False

    def keep(part: bytes) -> bytes | None:
        nonlocal placed
        if part.partition(b"=")[0].strip() != name:
            return part
        if placed:
            return None
        placed = True
        return part[: len(part) - len(part.lstrip())] + own

    changed = _each(headers, keep)
    if placed:
        return changed
    for place, (header, content) in enumerate(changed):
        if header == COOKIE:
            joint = b"; " if content.strip() else b""
            return [*changed[:place], (header, content.rstrip(b"; ") + joint + own), *changed[place + 1 :]]
    return [*changed, (COOKIE, own)]


def without(content: bytes, shown: bytes) -> bytes:
    """The cookies of one header but for those that show a text."""
    return b";".join([part for part in content.split(b";") if shown not in part]).lstrip()


def _each(headers: Headers, keep: Callable[[bytes], bytes | None]) -> Headers:
    changed: Headers = []
    for name, content in headers:
        if name != COOKIE:
            changed.append((name, content))
            continue
        parts = [kept for part in content.split(b";") if (kept := keep(part)) is not None]
        if parts:
            changed.append((name, b";".join(parts).lstrip()))
    return changed

"""Placeholders that belong to one session: in the shape of the service's own, and recognisable by whoever has the key.

A service's placeholder ends in letters and digits. For a session they are replaced by as many of base32: a body that is
drawn for this token, service and field, and a tag over it, so that a text can be told to be one of ours without a list
of them, and cannot be made up. Nothing about a placeholder is secret: it opens nothing, and only shows where it came
from.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Iterator

MARK = b"keyhole"
_TAG = 8  # characters: 40 bits, more than enough for an alarm that a stranger might want to raise
_END = re.compile(r"(.*keyhole(?:\S*[^a-z0-9\s])?)([a-z0-9]{16,})")
# A run that has a mark in it is none: it begins behind that mark.
_RUN = rb"((?:(?!keyhole)[a-z2-7]){16,})"
_SEEN = re.compile(rb"keyhole(?:%b|[!-~]{0,40}?[^a-z0-9]%b)" % (_RUN, _RUN))


def session_placeholder(text: str, key: bytes, *whose: str) -> str:
    """The session's own form of a service's placeholder.

    Args:
        text: the service's placeholder.
        key: of the org.
        whose: what it is bound to: token, service, field.

    Returns:
        A text of the same length and beginning; ``text`` itself when it has no room for a tag, as one that a person
        chose may have none.
    """
    match = _END.fullmatch(text)
    if match is None:
        return text
    body = _letters(key, "body", *whose)[: len(match[2]) - _TAG]
    body += "a" * (len(match[2]) - _TAG - len(body))
    return match[1] + body + _tag(key, body)


def marked(text: bytes, key: bytes) -> Iterator[bytes]:
    """The ends of all placeholders in a text that were made with this key."""
    if MARK not in text:
        return
    for match in _SEEN.finditer(text):
        run = match[1] or match[2]
        if hmac.compare_digest(_tag(key, run[:-_TAG].decode()).encode(), run[-_TAG:]):
            yield run


def end_of(text: str) -> bytes:
    """The part of a placeholder by which ``marked`` names it; empty for one without a tag's room."""
    match = _END.fullmatch(text)
    return match[2].encode() if match else b""


def _tag(key: bytes, body: str) -> str:
    return _letters(key, "tag", body)[:_TAG]


def _letters(key: bytes, *parts: str) -> str:
    digest = hmac.digest(key, "\0".join(parts).encode(), "sha256")
    return base64.b32encode(digest).decode().lower().rstrip("=")

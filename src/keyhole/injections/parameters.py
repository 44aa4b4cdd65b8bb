"""Parameters between ``&``, as queries and urlencoded forms have them. What is not meant stays as it is.

Names are compared decoded, so that no spelling of a name survives beside ours.
"""

from __future__ import annotations

from urllib.parse import quote_from_bytes, unquote_to_bytes

from keyhole.core.errors import InvalidRequest
from keyhole.core.message import Message

FORM = b"application/x-www-form-urlencoded"
MOST = 10_000  # parameters of a body; more would keep others waiting
LONGEST = 8 * 1024  # bytes of a secret in a request target; common servers take no more of the whole of it


def encode(value: bytes) -> bytes:
    """A value of which nothing can be taken for syntax: everything but unreserved characters is encoded."""
    return quote_from_bytes(value, safe="").encode()


def decoded(text: bytes) -> bytes:
    """A name or a value as it is meant, where a plus sign is a space."""
    return unquote_to_bytes(text.replace(b"+", b" "))


def is_form(message: Message) -> bool:
    """Whether the body says to be parameters."""
    return (message.get(b"content-type") or b"").partition(b";")[0].strip().lower() == FORM


def require_few(text: bytes) -> None:
    """Raises ``InvalidRequest`` for a form with more parameters than can be looked at one by one."""
    if text.count(b"&") >= MOST:
        raise InvalidRequest(f"the form has more than {MOST} fields", "send fewer at once")


def target_value(value: bytes) -> bytes:
    """A secret that is about to stand in a request target, unchanged, when it can.

    Raises:
        InvalidRequest: it is empty, too long, or has a control character.
    """
    if not value or len(value) > LONGEST:
        raise InvalidRequest("the secret is empty or longer than a URL can carry", "look at it: keyhole show NAME")
    if any(byte < 0x20 or byte == 0x7F for byte in value):
        raise InvalidRequest(
            "the secret has a line break or a control character, and cannot stand in a URL",
            "store it again without them: keyhole set NAME",
        )
    return value


def set_parameter(text: bytes, name: str, value: bytes) -> bytes:
    """Set one parameter where the first of its name stood, or at the end; others of its name are gone.

    Args:
        text: parameters between ``&``.
        name: decoded.
        value: not yet encoded.
    """
    wanted = name.encode()
    own = encode(wanted) + b"=" + encode(value)
    kept: list[bytes] = []
    placed = False
    for part in text.split(b"&") if text else ():
        if decoded(part.partition(b"=")[0]) != wanted:
            kept.append(part)
        elif not placed:
            kept.append(own)
            placed = True
    return b"&".join(kept if placed else [*kept, own])


def without(text: bytes, shown: bytes) -> bytes:
    """The parameters but for those that show a text in any spelling."""
    return b"&".join([part for part in text.split(b"&") if shown not in part and shown not in decoded(part)])

"""What a body is, by its headers, and what its headers say of it that is no longer so once it was changed."""

from __future__ import annotations

import re

from keyhole.core.errors import InvalidRequest
from keyhole.core.message import Message
from keyhole.core.placed import BODY_METHODS

_TYPE = re.compile(rb"\s*([A-Za-z0-9!#$&^_.+-]{1,127}/[A-Za-z0-9!#$&^_.+-]{1,127})\s*")
_PARAMETER = re.compile(
    rb";\s*(?:([A-Za-z0-9!#$%&'*+.^_`|~-]+)=(?:([A-Za-z0-9!#$%&'*+.^_`|~-]+)|\"((?:[^\"\\]|\\[\x20-\x7e])*)\"))?\s*"
)
_DIGESTS = frozenset({b"content-md5", b"digest", b"content-digest", b"repr-digest"})


def media_type(message: Message) -> tuple[bytes, dict[bytes, bytes]]:
    """The content type in lower case, with its parameters (RFC 9110, section 8.3). Empty where there is none.

    Raises:
        InvalidRequest: there are several, or it is malformed, so that the body could be read in two ways.
    """
    values = [value for name, value in message.headers if name == b"content-type"]
    if not values:
        return b"", {}
    match = _TYPE.match(values[0])
    if len(values) > 1 or match is None:
        raise _malformed()
    parameters: dict[bytes, bytes] = {}
    at = match.end()
    while at < len(values[0]):
        found = _PARAMETER.match(values[0], at)
        if found is None:
            raise _malformed()
        at = found.end()
        name, token, quoted = found.groups()
        if name is not None:
            if name.lower() in parameters:
                raise _malformed()
            parameters[name.lower()] = token if token is not None else re.sub(rb"\\(.)", rb"\1", quoted)
    return match[1].lower(), parameters


def _malformed() -> InvalidRequest:
    return InvalidRequest("the content type is malformed or stands twice", "send one Content-Type (RFC 9110)")


def is_encoded(message: Message) -> bool:
    """Whether the body is compressed or the like, so that what is in it cannot be seen."""
    codings = [value.strip().lower() for name, value in message.headers if name == b"content-encoding"]
    return any(coding not in {b"", b"identity"} for coding in codings)


def require_plain(message: Message) -> None:
    """Refuse a body that is encoded, for kinds that set a field of it. Raises ``InvalidRequest``."""
    if is_encoded(message):
        raise InvalidRequest(
            "the body has a Content-Encoding, and a field of it is to be set",
            "send it without compression, or bind the secret in another way, such as a header",
        )


def require_body(message: Message) -> None:
    """Refuse a request without a body whose method is not one to make a body for. Raises ``InvalidRequest``."""
    if not message.content and message.method not in BODY_METHODS:
        raise InvalidRequest(
            f"the secret is bound to a field of the body, and this {message.method[:16]} has none",
            f"use {', '.join(BODY_METHODS)}, or bind the secret in another way, such as a header",
        )


def change(message: Message, content: bytes) -> None:
    """Send this body in place of the client's; digests of it that the client made are left out (RFC 9530)."""
    message.content = content
    message.headers = [pair for pair in message.headers if pair[0] not in _DIGESTS]

"""``WHEN``: a date or a duration from now, as commands about expiry take it."""

from __future__ import annotations

from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.lease import parse_duration
from keyhole.core.times import parse_time

NEVER = "never"


def expiry_of(text: str) -> dict[str, Any]:
    """The fields of a request that set an expiry: from ``90d``, ``2027-01-31``, seconds since the epoch, or ``never``.

    Raises:
        InvalidRequest: it is none of these.
    """
    text = text.strip()
    if text.lower() == NEVER:
        return {"expires_at": ""}
    if text.isascii() and text.isdecimal():
        return {"expires_at": int(text)}
    try:
        return {"expires_in": parse_duration(text)} if text else {"expires_at": parse_time(text)}
    except InvalidRequest:
        pass
    try:
        parse_time(text)
    except InvalidRequest:
        raise InvalidRequest("this is neither a date nor a duration", "write 90d, 2027-01-31, or never") from None
    return {"expires_at": text}

"""The proxy's own answers: machine-readable, and never with a value in them."""

from __future__ import annotations

import json
import uuid

from keyhole.core.errors import KeyholeError, Unauthenticated
from keyhole.core.message import Headers
from keyhole.net.http1.serialise import serialise_answer

_REASONS = {
    400: b"Bad Request",
    403: b"Forbidden",
    404: b"Not Found",
    407: b"Proxy Authentication Required",
    408: b"Request Timeout",
    409: b"Conflict",
    413: b"Content Too Large",
    417: b"Expectation Failed",
    429: b"Too Many Requests",
    500: b"Internal Server Error",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    508: b"Loop Detected",
}

ESTABLISHED = b"HTTP/1.1 200 Connection Established\r\n\r\n"


def render_refusal(error: KeyholeError, *, close: bool, head_only: bool = False) -> bytes:
    """A whole answer for a refused request.

    Args:
        error: why. Its ``request_id`` is used when it has one.
        close: whether the connection ends with this answer.
        head_only: the request was a HEAD.
    """
    request_id = getattr(error, "request_id", "") or uuid.uuid4().hex
    body = json.dumps(
        {
            "errors": [str(error)],
            "error": {"code": error.code, "reason": error.reason, "hint": error.hint, "request_id": request_id},
        }
    ).encode()
    headers: Headers = [
        (b"content-type", b"application/json"),
        (b"cache-control", b"no-store"),
        (b"x-keyhole-error", error.code.encode()),
        (b"x-keyhole-request-id", request_id.encode()),
    ]
    extra = b"Content-Length: %d\r\n" % len(body)
    status = 407 if isinstance(error, Unauthenticated) else error.status
    if status == 407:
        extra += b'Proxy-Authenticate: Basic realm="keyhole"\r\n'
    if close:
        extra += b"Connection: close\r\n"
    head = serialise_answer(status, _REASONS.get(status, b"Refused"), headers, extra)
    return head if head_only else head + body

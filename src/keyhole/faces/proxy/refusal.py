"""The proxy's own answers: machine-readable, and never with a value in them."""

from __future__ import annotations

import json
import uuid

from keyhole.core import grpc
from keyhole.core.errors import KeyholeError, RateLimited, Unauthenticated
from keyhole.core.message import Headers

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


def refusal(error: KeyholeError) -> tuple[int, Headers, bytes]:
    """Status, headers and body of a refusal. The ``request_id`` of the error is used when it has one."""
    request_id = getattr(error, "request_id", "") or uuid.uuid4().hex
    body = json.dumps(
        {
            "errors": [str(error)],
            "error": {"code": error.code, "reason": error.reason, "hint": error.hint, "request_id": request_id},
        }
    ).encode()
    status = 407 if isinstance(error, Unauthenticated) else error.status
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
        (b"x-keyhole-error", error.code.encode()),
        (b"x-keyhole-request-id", _printable(request_id)),
    ]
    if status == 407:
        headers.append((b"proxy-authenticate", b'Basic realm="keyhole"'))
    if error.retry_after:
        headers.append((b"retry-after", b"%d" % error.retry_after))
    return status, headers, body


def grpc_refusal(error: KeyholeError) -> Headers:
    """The same in the words of gRPC: the header section of an answer that ends with it, under a status of 200."""
    known = {b"x-keyhole-error", b"x-keyhole-request-id"}
    said = [pair for pair in refusal(error)[1] if pair[0] in known]
    return [(b"content-type", b"application/grpc"), *grpc.refusal(error), *said]


def render_refusal(error: KeyholeError, *, close: bool, head_only: bool = False) -> bytes:
    """The same for HTTP/1.1, whole.

    Args:
        error: why.
        close: whether the connection ends with this answer.
        head_only: the request was a HEAD.
    """
    status, headers, body = refusal(error)
    lines = [b"HTTP/1.1 %d %b" % (status, _REASONS.get(status, b"Refused"))]
    lines += [b"%b: %b" % (name.title(), value) for name, value in headers]
    if close:
        lines.append(b"Connection: close")
    head = b"\r\n".join([*lines, b"", b""])
    return head if head_only else head + body


def _printable(text: str) -> bytes:
    return "".join(char for char in text if char.isascii() and char.isprintable()).encode()


class ListenerFull(RateLimited):
    """There is no room for a connection, whosever it is."""

    status = 503


FULL = render_refusal(
    ListenerFull("the proxy has as many connections as may be", "try again later", retry_after=1), close=True
)
"""What a client is told that there is no room for; it is not known yet what it would have said."""

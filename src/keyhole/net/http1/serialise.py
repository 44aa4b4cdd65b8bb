"""Heads written to the wire: one form, and nothing in it that could end a line early."""

from __future__ import annotations

import functools
import re

from keyhole.core.errors import InvalidRequest
from keyhole.core.message import Headers
from keyhole.net.http1.grammar import is_token

# About one connection, not about the message (RFC 9110 section 7.6.1), or rewritten by whoever forwards.
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-authentication-info",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)
# Framing and routing are written from what is known about the message, never copied.
REQUEST_DROPPED = HOP_BY_HOP | {b"host", b"content-length", b"expect"}
# An alternative service (RFC 7838) would lead around us.
_OWN_ANSWER_DROPPED = HOP_BY_HOP | {b"content-length", b"alt-svc"}
# Only our own refusals may call themselves so.
_ANSWER_DROPPED = _OWN_ANSWER_DROPPED | {b"x-keyhole-error", b"x-keyhole-request-id"}

_METHOD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Z]+")
_TARGET = re.compile(rb"/[\x21\x22\x24-\x7e]*")

_KNOWN = (
    "Accept Accept-Charset Accept-Encoding Accept-Language Accept-Ranges Access-Control-Allow-Credentials "
    "Access-Control-Allow-Headers Access-Control-Allow-Methods Access-Control-Allow-Origin "
    "Access-Control-Expose-Headers Access-Control-Max-Age Access-Control-Request-Headers "
    "Access-Control-Request-Method Age Allow Authorization Cache-Control Connection Content-Disposition "
    "Content-Encoding Content-Language Content-Length Content-Location Content-MD5 Content-Range "
    "Content-Security-Policy Content-Type Cookie Date ETag Expect Expires From Host If-Match If-Modified-Since "
    "If-None-Match If-Range If-Unmodified-Since Last-Modified Link Location Max-Forwards Origin Pragma "
    "Proxy-Authenticate Range Referer Referrer-Policy Retry-After Server Set-Cookie Strict-Transport-Security "
    "Sec-WebSocket-Accept Sec-WebSocket-Key Sec-WebSocket-Protocol Sec-WebSocket-Version "
    "Transfer-Encoding User-Agent Vary Via Warning WWW-Authenticate X-Api-Key X-Content-Type-Options "
    "X-Frame-Options X-Request-Id"
)
# Names are compared without case (RFC 9110 section 5.1), but some old servers look for the usual spelling.
_SPELLING = {name.lower().encode(): name.encode() + b": " for name in _KNOWN.split()}


@functools.lru_cache(maxsize=256)
def _field(name: bytes) -> bytes:
    if not is_token(name):
        raise InvalidRequest("a header name is not a token", "use letters, digits and hyphens only")
    return name + b": "


def _join(lines: list[bytes], headers: Headers, dropped: frozenset[bytes], extra: bytes) -> bytes:
    """Put a head together; ``extra`` is complete lines of our own, each with its CRLF."""
    spelling = _SPELLING
    for name, value in headers:
        if name not in dropped:
            lines.append((spelling.get(name) or _field(name)) + value)
    head = b"\r\n".join(lines)
    ends = len(lines) - 1
    if head.count(b"\n") != ends or head.count(b"\r") != ends or head.find(b"\0") >= 0:
        raise InvalidRequest(
            "a header value has a line end or a NUL, which would change the message",
            "store the value without its final newline",
        )
    return b"%b\r\n%b\r\n" % (head, extra)


def serialise_request(method: str, target: bytes, host: bytes, headers: Headers, framing: bytes) -> bytes:
    """A request head in origin-form, ``Host`` first.

    Args:
        method: a token without lower-case letters.
        target: canonical path and query.
        host: value of ``Host``.
        headers: end-to-end headers, names lower-cased; hop-by-hop and framing headers among them are left out.
        framing: complete framing lines, each with its CRLF, or nothing.

    Raises:
        InvalidRequest: a part would change the message's structure.
    """
    if _METHOD.fullmatch(method) is None:
        raise InvalidRequest("the method is not an upper-case token")
    if _TARGET.fullmatch(target) is None:
        raise InvalidRequest("the request target has bytes that no request line may have", "percent-encode them")
    start = b"%b %b HTTP/1.1" % (method.encode("ascii"), target)
    return _join([start, b"Host: " + host], headers, REQUEST_DROPPED, framing)


def serialise_trailers(trailers: Headers) -> bytes:
    """The end of a chunked body (RFC 9112 section 7.1): its last chunk, and fields after it that were judged.

    Raises:
        InvalidRequest: a field would change the message's structure.
    """
    return _join([b"0"], trailers, HOP_BY_HOP, b"") if trailers else b"0\r\n\r\n"


def answer_fields(headers: Headers) -> Headers:
    """The header fields of an upstream's answer as HTTP/2 has them, without framing and hop-by-hop headers.

    Args:
        headers: end-to-end headers, names lower-cased.

    Raises:
        InvalidRequest: a value has a line end or a NUL, or a name is no token.
    """
    fields = [pair for pair in headers if pair[0] not in _ANSWER_DROPPED]
    for name, value in fields:
        _field(name)
        if b"\n" in value or b"\r" in value or b"\0" in value:
            raise InvalidRequest("a header value has a line end or a NUL, which would change the message")
    return fields


def serialise_answer(status: int, reason: bytes, headers: Headers, extra: bytes, *, own: bool = False) -> bytes:
    """An answer's head for HTTP/1.1.

    Args:
        status: 200 to 599.
        reason: reason phrase.
        headers: end-to-end headers, names lower-cased; hop-by-hop and framing headers among them are left out.
        extra: complete lines that say framing and connection.
        own: the answer is ours and may carry the headers of our refusals.

    Raises:
        InvalidRequest: a part would change the message's structure.
    """
    dropped = _OWN_ANSWER_DROPPED if own else _ANSWER_DROPPED
    return _join([b"HTTP/1.1 %d %b" % (status, reason)], headers, dropped, extra)

"""A request as the header block of HTTP/2 that begins a stream.

Every field is a literal that no table keeps, and all but plain ones say so to whoever passes the block on (RFC 7541
section 7.1): a credential never stands in a compression context beside what a caller may guess.
"""

from __future__ import annotations

import functools
import re

from keyhole.core.errors import InvalidRequest
from keyhole.core.message import Headers, Message
from keyhole.net.http1.client import Stale
from keyhole.net.http1.grammar import is_token
from keyhole.net.http1.serialise import REQUEST_DROPPED
from keyhole.net.http2.fields import integer

_TARGET = re.compile(rb"/[\x21\x22\x24-\x7e]*")
_METHOD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Z]+")
_BROKEN = re.compile(rb"[\x00\r\n]")
_METHODS = {b"GET": b"\x82", b"POST": b"\x83"}
_SCHEMES = {b"http": b"\x86", b"https": b"\x87"}
_AUTHORITY, _METHOD_NAME, _PATH = 1, 2, 4  # in the static table (appendix A)
_NAMES = {
    b"accept": 19,
    b"accept-charset": 15,
    b"accept-encoding": 16,
    b"accept-language": 17,
    b"authorization": 23,
    b"cache-control": 24,
    b"content-disposition": 25,
    b"content-encoding": 26,
    b"content-language": 27,
    b"content-length": 28,
    b"content-type": 31,
    b"cookie": 32,
    b"date": 33,
    b"from": 37,
    b"if-match": 39,
    b"if-modified-since": 40,
    b"if-none-match": 41,
    b"if-range": 42,
    b"if-unmodified-since": 43,
    b"range": 50,
    b"referer": 51,
    b"user-agent": 58,
    b"via": 60,
}
_NEVER = 0x10  # never indexed (section 6.2.3)


class NotTaken(Stale):
    """The upstream said that it did not look at a request, which may be sent again whatever it is (section 8.7)."""


def encode_request(message: Message, authority: bytes, length: int | None) -> bytes:
    """The header block of a request.

    Args:
        message: the head; hop-by-hop and framing headers among its headers are left out.
        authority: of the origin, which every request of a connection has.
        length: bytes of the body where they are known.

    Raises:
        InvalidRequest: a part would change the message's structure.
    """
    if _METHOD.fullmatch(message.method) is None:
        raise InvalidRequest("the method is not an upper-case token")
    if _TARGET.fullmatch(message.target) is None:
        raise InvalidRequest("the request target has bytes that no request line may have", "percent-encode them")
    method = message.method.encode("ascii")
    parts = [
        _METHODS.get(method) or _indexed(_METHOD_NAME) + _text(method),
        _SCHEMES[message.scheme.encode("ascii")],
        _indexed(_AUTHORITY) + _text(authority),
        _indexed(_PATH) + _text(message.target),
    ]
    _append(parts, message.headers, REQUEST_DROPPED)
    if length is not None:
        parts.append(_name(b"content-length") + _text(b"%d" % length))
    if message.trailers:
        parts.append(_name(b"te") + _text(b"trailers"))
    return b"".join(parts)


def encode_trailers(trailers: Headers) -> bytes:
    """The header block of a trailer section. Raises ``InvalidRequest`` as for a request."""
    parts: list[bytes] = []
    _append(parts, trailers, REQUEST_DROPPED)
    return b"".join(parts)


def _append(parts: list[bytes], headers: Headers, dropped: frozenset[bytes]) -> None:
    for name, value in headers:
        if name in dropped:
            continue
        if _BROKEN.search(value) is not None:
            raise InvalidRequest(
                "a header value has a line end or a NUL, which would change the message",
                "store the value without its final newline",
            )
        parts.append(_name(name) + _text(value.strip(b" \t")))


@functools.lru_cache(maxsize=256)
def _name(name: bytes) -> bytes:
    if not is_token(name):
        raise InvalidRequest("a header name is not a token", "use letters, digits and hyphens only")
    index = _NAMES.get(name)
    return integer(0, 4, _NEVER) + _text(name.lower()) if index is None else _indexed(index)


@functools.lru_cache(maxsize=64)
def _indexed(index: int) -> bytes:
    return integer(index, 4, _NEVER)


def _text(value: bytes) -> bytes:
    size = len(value)
    return (bytes((size,)) if size < 127 else integer(size, 7)) + value

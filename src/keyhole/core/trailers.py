"""Which fields may follow a body, in either direction (RFC 9110 section 6.5.1). Pure.

A trailer comes when its message has been judged, and some recipients merge it into the header section. So nothing may
stand in one that says where a message goes, where it ends, who sends it, or how it is to be read; such fields are left
out, which every recipient of trailers has to expect.
"""

from __future__ import annotations

from keyhole.core.message import Headers
from keyhole.core.names import OVERRIDES, OVERRIDING, plain_name

_BOTH = frozenset(
    {
        b"connection",
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-type",
        b"http2-settings",
        b"keep-alive",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"via",
    }
)
_REQUEST = (
    _BOTH
    | OVERRIDES
    | {
        b"authentication",
        b"authorization",
        b"cache-control",
        b"cookie",
        b"expect",
        b"host",
        b"max-forwards",
        b"origin",
        b"pragma",
        b"range",
        b"referer",
        b"request-range",
    }
)
_ANSWER = _BOTH | {
    b"age",
    b"alt-svc",
    b"authentication-info",
    b"cache-control",
    b"date",
    b"expires",
    b"location",
    b"retry-after",
    b"set-cookie",
    b"strict-transport-security",
    b"vary",
    b"www-authenticate",
}
_PREFIXES = (b"proxy-", b"x-keyhole-")
_REQUEST_PREFIXES = (*_PREFIXES, OVERRIDING, b"if-", b"accept", b"sec-")
_ANSWER_PREFIXES = (*_PREFIXES, b"access-control-", b"content-security-")


def of_request(trailers: Headers, head: Headers) -> Headers:
    """What of a request's trailers may go upstream.

    Args:
        trailers: names lower-cased.
        head: the headers that are sent; what stands there, such as a credential that was attached, is not said again.
    """
    taken = {plain_name(name) for name, _ in head}
    return [
        pair
        for pair in trailers
        if _may(plain_name(pair[0]), _REQUEST, _REQUEST_PREFIXES) and plain_name(pair[0]) not in taken
    ]


def of_answer(trailers: Headers) -> Headers:
    """What of an answer's trailers a client may get; names lower-cased."""
    return [pair for pair in trailers if _may(plain_name(pair[0]), _ANSWER, _ANSWER_PREFIXES)]


def _may(name: bytes, names: frozenset[bytes], prefixes: tuple[bytes, ...]) -> bool:
    return name not in names and not name.startswith(prefixes)

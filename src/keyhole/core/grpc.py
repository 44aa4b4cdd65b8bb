"""What is known of gRPC and its kin wherever a call is judged, refused or answered. Pure.

Its protocol over HTTP/2, gRPC-Web (``PROTOCOL-WEB.md`` of grpc), and the streams of Connect
(``connectrpc.com/docs/protocol``), whose messages have the same form.
"""

from __future__ import annotations

from collections.abc import Callable

from keyhole.core.errors import KeyholeError
from keyhole.core.message import Headers

CODINGS = (b"identity", b"gzip")
"""Codings of messages that can be looked into."""
_TYPE = b"application/grpc"
_WEB = b"application/grpc-web"
_WEB_TEXT = b"application/grpc-web-text"
_CONNECT = b"application/connect+"
_KIN = (_TYPE, _CONNECT)
_OFFERS = (b"grpc-accept-encoding", b"connect-accept-encoding")
_INTERNAL, _UNAVAILABLE = 13, 14
# Codes of gRPC by the status that HTTP would have.
_CODES = {400: 3, 403: 7, 404: 5, 408: 4, 409: 10, 413: 8, 429: 8, 500: _INTERNAL, 503: _UNAVAILABLE, 504: 4}
_UNAUTHENTICATED = 16
_PLAIN = frozenset(range(0x20, 0x7F)) - {0x25}  # of grpc-message; others are percent-encoded


def _kind(headers: Headers) -> bytes:
    for name, value in headers:
        if name == b"content-type":
            return value.strip().lower()
    return b""


def _is(kind: bytes, name: bytes) -> bool:
    return kind.startswith(name) and kind[len(name) : len(name) + 1] in {b"", b"+", b";", b" "}


def is_grpc(headers: Headers) -> bool:
    """Is this a message of gRPC over HTTP/2?"""
    return _is(_kind(headers), _TYPE)


def has_messages(headers: Headers) -> bool:
    """Is the body made of messages with a length before each: gRPC, gRPC-Web as binary, or a stream of Connect?"""
    kind = _kind(headers)
    if not kind.startswith(_KIN):
        return False
    return _is(kind, _TYPE) or _is(kind, _WEB) or kind.startswith(_CONNECT)


def is_kin(headers: Headers) -> bool:
    """May the body be made of such messages, as they are or in base64?"""
    return _kind(headers).startswith(_KIN)


def is_text(headers: Headers) -> bool:
    """Is the body made of such messages in base64, gRPC-Web in its text form?"""
    return _kind(headers).startswith(_WEB_TEXT)


def coding(headers: Headers) -> bytes:
    """The coding of the messages that say that they are compressed; ``identity`` where none is named."""
    name = b"connect-content-encoding" if _kind(headers).startswith(_CONNECT) else b"grpc-encoding"
    return next((value for key, value in headers if key == name), b"").strip().lower() or CODINGS[0]


def last(headers: Headers) -> int:
    """The bit in the first byte of the message that ends a stream: of Connect, or of gRPC-Web, there with trailers."""
    return 0x02 if _kind(headers).startswith(_CONNECT) else 0x80


def narrow(headers: Headers, replace: Callable[[bytes, bytes], None]) -> None:
    """Let a request ask for messages only in codings that can be looked into.

    Args:
        headers: of the request.
        replace: puts one header of a name in place of all of that name.
    """
    offered: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _OFFERS:
            offered[name] = offered[name] + b"," + value if name in offered else value
    for name, value in offered.items():
        replace(name, CODINGS[0] if is_text(headers) else _accepted(value))


def _accepted(value: bytes) -> bytes:
    kept = [part for part in (part.strip().lower() for part in value.split(b",")) if part in CODINGS]
    return b",".join(kept) or CODINGS[0]


def refusal(error: KeyholeError) -> Headers:
    """The status that says in gRPC's own words why a call came to nothing, for its trailers."""
    if error.code == "unauthenticated":
        code = _UNAUTHENTICATED
    elif error.code in {"scrub_failed_closed", "upstream_tls"}:  # it would be the same again
        code = _INTERNAL
    else:
        code = _CODES.get(error.status, _UNAVAILABLE)
    message = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in str(error).encode())
    return [(b"grpc-status", b"%d" % code), (b"grpc-message", message.encode("ascii"))]

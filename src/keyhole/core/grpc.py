"""What is known of gRPC (its protocol over HTTP/2) wherever a call is judged, refused or answered. Pure."""

from __future__ import annotations

from keyhole.core.errors import KeyholeError
from keyhole.core.message import Headers

CODINGS = (b"identity", b"gzip")
"""Codings of messages that can be looked into."""
_TYPE = b"application/grpc"
_WEB = b"application/grpc-web"
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
    """Is the body made of messages with a length before each: gRPC, or gRPC-Web in its binary form?"""
    kind = _kind(headers)
    return kind.startswith(_TYPE) and (_is(kind, _TYPE) or _is(kind, _WEB))


def accept_encoding(value: bytes) -> bytes:
    """What to send upstream in place of a client's grpc-accept-encoding."""
    kept = [part for part in (part.strip().lower() for part in value.split(b",")) if part in CODINGS]
    return b",".join(kept) or b"identity"


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

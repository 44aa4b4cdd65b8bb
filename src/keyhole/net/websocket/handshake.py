"""The two halves of the handshake (RFC 6455 section 4), each judged as the server or the client of it would."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence

from keyhole.core.errors import InvalidRequest, UpstreamUnreachable
from keyhole.core.message import Headers
from keyhole.net.http1.grammar import RequestHead, is_token, list_tokens

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES = 16
_VERSION = b"13"
_THEIRS = "report the fault to who runs the API"


def check_request(head: RequestHead) -> None:
    """Judge a request that asks for a WebSocket (section 4.2.1).

    Raises:
        InvalidRequest: it is no handshake that one may answer with 101.
    """
    fields = head.fields
    keys = _values(head.headers, b"sec-websocket-key")
    if not keys:
        raise InvalidRequest("a WebSocket handshake without a key")
    if _values(head.headers, b"upgrade") != [fields[b"upgrade"]] or fields[b"upgrade"].lower() != b"websocket":
        raise InvalidRequest("the upgrade is to more than a WebSocket", "ask for websocket alone")
    if head.method != "GET" or not head.minor:
        raise InvalidRequest("a WebSocket handshake is a GET of HTTP/1.1")
    if b"upgrade" not in list_tokens(head.headers, b"connection"):
        raise InvalidRequest("a WebSocket handshake whose Connection does not name Upgrade")
    if len(keys) > 1 or not _is_key(keys[0]):
        raise InvalidRequest("the key of a WebSocket handshake is not 16 bytes in base64")
    if _values(head.headers, b"sec-websocket-version") != [_VERSION]:
        raise InvalidRequest("only version 13 of the WebSocket protocol is understood", "see RFC 6455")
    if b"transfer-encoding" in fields or fields.get(b"content-length", b"0") != b"0":
        raise InvalidRequest("a WebSocket handshake has no body")


def check_answer(asked: Headers, answered: Headers) -> None:
    """Judge a 101 (section 4.1, the steps of a client), of which ``Upgrade`` and ``Connection`` were judged already.

    Args:
        asked: the headers of the request as they were sent, with no extension offered.
        answered: the headers of the answer.

    Raises:
        UpstreamUnreachable: the upstream did not agree to what it was asked.
    """
    [key] = _values(asked, b"sec-websocket-key")
    if _values(answered, b"sec-websocket-accept") != [accept(key)]:
        raise UpstreamUnreachable("the upstream's WebSocket handshake has a wrong Sec-WebSocket-Accept", _THEIRS)
    if any(_values(answered, b"sec-websocket-extensions")):
        raise UpstreamUnreachable("the upstream uses a WebSocket extension that was not offered", _THEIRS)
    chosen = _values(answered, b"sec-websocket-protocol")
    offered = [part.strip() for value in _values(asked, b"sec-websocket-protocol") for part in value.split(b",")]
    if chosen and not _chose_one(chosen, offered):
        raise UpstreamUnreachable("the upstream chose a WebSocket subprotocol that was not offered", _THEIRS)


def accept(key: bytes) -> bytes:
    """What a server answers to a key (section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key + _MAGIC, usedforsecurity=False).digest())


def _values(headers: Headers, name: bytes) -> list[bytes]:
    return [value for key, value in headers if key == name]


def _is_key(value: bytes) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == _KEY_BYTES
    except binascii.Error:
        return False


def _chose_one(chosen: Sequence[bytes], offered: Sequence[bytes]) -> bool:
    return len(chosen) == 1 and is_token(chosen[0]) and chosen[0] in offered

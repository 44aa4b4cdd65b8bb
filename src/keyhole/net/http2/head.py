"""From a header section of HTTP/2 to the same ``RequestHead`` that HTTP/1.1 gives, or an error (RFC 9113 section 8).

Everything that could be read in two ways once it is written as HTTP/1.1 is refused, never mended. What is accepted has
the form that a request of HTTP/1.1 has: ``Host`` is the authority; an extended CONNECT is the handshake that it stands
for (RFC 8441 section 5); cookies are one header again.
"""

from __future__ import annotations

import base64
import re
import secrets
from typing import NamedTuple

from keyhole.core.message import Headers
from keyhole.net.http1.framing import declared_length
from keyhole.net.http1.grammar import Malformed, RequestHead, judged_fields
from keyhole.net.http1.limits import WireLimits

_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Z]{1,32}")
_PATH = re.compile(rb"/[\x21\x22\x24-\x7e\x80-\xff]*")
_AUTHORITY = re.compile(rb"[^\x00-\x20\x7f/?#@\\]+")
_SCHEMES = frozenset({b"http", b"https"})
_PSEUDO = frozenset({b":method", b":scheme", b":authority", b":path", b":protocol"})
# About the connection, which HTTP/2 has its own words for (section 8.2.2).
_CONNECTION_SPECIFIC = frozenset(
    {b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"http2-settings"}
)
_KEY_BYTES = 16


class Http2Head(NamedTuple):
    """A request as it came on a stream.

    Attributes:
        head: as HTTP/1.1 would have brought it; its target is origin-form, that of a CONNECT an authority.
        scheme: ``http`` or ``https``; empty for CONNECT.
        authority: as sent.
        length: bytes of the body where they were declared.
        extended: an extended CONNECT, which is answered in its own way.
    """

    head: RequestHead
    scheme: str
    authority: bytes
    length: int | None
    extended: bool


def read_request(section: Headers, limits: WireLimits) -> Http2Head:
    """Judge the header section that begins a stream. Raises ``Malformed``."""
    pseudo, headers = _split(section)
    check_fields(headers)
    method = pseudo.get(b":method", b"")
    if _METHOD.fullmatch(method) is None:
        raise Malformed("the method is not an upper-case token")
    authority = _authority(pseudo, headers)
    protocol = pseudo.get(b":protocol")
    if method == b"CONNECT" and protocol is None:
        return _connect(pseudo, headers, authority, limits)
    scheme, path = pseudo.get(b":scheme"), pseudo.get(b":path", b"")
    if scheme not in _SCHEMES:
        raise Malformed("the scheme is not http or https")
    if _PATH.fullmatch(path) is None:
        raise Malformed("the path is not origin-form", "send /path?query, with everything else percent-encoded")
    if len(path) > limits.target_bytes:
        raise Malformed(f"the request target is longer than {limits.target_bytes} bytes")
    headers = _rejoined([(b"host", authority), *(pair for pair in headers if pair[0] != b"host")])
    if protocol is not None:
        method, headers = _handshake(method, protocol, headers)
    fields = judged_fields(headers, limits)
    declared = fields.get(b"content-length")
    length = None if declared is None else declared_length(declared)
    head = RequestHead(method.decode("ascii"), path, 1, headers, fields, major=2)
    return Http2Head(head, scheme.decode("ascii"), authority, length, protocol is not None)


def check_fields(headers: Headers) -> None:
    """Judge fields that are no pseudo-header fields, in a header or a trailer section. Raises ``Malformed``."""
    for name, value in headers:
        if _NAME.fullmatch(name) is None:
            raise Malformed("a header name is not a token in lower case")
        if _VALUE.fullmatch(value) is None:
            raise Malformed("a header value has control characters, or spaces around it")
        if name in _CONNECTION_SPECIFIC:
            raise Malformed("a header is about the connection, which HTTP/2 does not know")
        if name == b"te" and value != b"trailers":
            raise Malformed("TE says something else than `trailers`")


def check_trailers(fields: Headers, limits: WireLimits, *, last: bool) -> None:
    """Judge the header section of a request that follows its first, which must be its end (section 8.1).

    Raises:
        Malformed: it is no trailer section.
    """
    if not last:
        raise Malformed("a second header section that does not end the request")
    if any(name[:1] == b":" for name, _ in fields):
        raise Malformed("a pseudo-header field in the trailers")
    check_fields(fields)
    judged_fields(fields, limits)


def _split(section: Headers) -> tuple[dict[bytes, bytes], Headers]:
    """The pseudo-header fields, each once and all before the others (section 8.3)."""
    pseudo: dict[bytes, bytes] = {}
    for place, (name, value) in enumerate(section):
        if name[:1] != b":":
            return pseudo, section[place:]
        if name not in _PSEUDO:
            raise Malformed("an unknown pseudo-header field")
        if name in pseudo:
            raise Malformed("a pseudo-header field is repeated")
        pseudo[name] = value
    return pseudo, []


def _authority(pseudo: dict[bytes, bytes], headers: Headers) -> bytes:
    """The authority, also where it is said by ``Host`` alone; the gate judges it as a host."""
    hosts = [value for name, value in headers if name == b"host"]
    authority = pseudo.get(b":authority", hosts[0] if hosts else b"")
    if _AUTHORITY.fullmatch(authority) is None:
        raise Malformed("the request has no authority, or one with something else in it", "send :authority host:port")
    if len(hosts) > 1 or any(host.lower() != authority.lower() for host in hosts):
        raise Malformed("Host differs from :authority", "send :authority alone")
    return authority


def _connect(pseudo: dict[bytes, bytes], headers: Headers, authority: bytes, limits: WireLimits) -> Http2Head:
    """A CONNECT (section 8.5)."""
    if b":scheme" in pseudo or b":path" in pseudo:
        raise Malformed("a CONNECT with a scheme or a path")
    headers = [(b"host", authority), *(pair for pair in headers if pair[0] != b"host")]
    head = RequestHead("CONNECT", authority, 1, headers, judged_fields(headers, limits), major=2)
    return Http2Head(head, "", authority, None, extended=False)


def _handshake(method: bytes, protocol: bytes, headers: Headers) -> tuple[bytes, Headers]:
    """The handshake of HTTP/1.1 that an extended CONNECT stands for; its key is made here."""
    if method != b"CONNECT":
        raise Malformed("a :protocol without CONNECT")
    if protocol != b"websocket":
        raise Malformed("an extended CONNECT to something else than a WebSocket")
    key = base64.b64encode(secrets.token_bytes(_KEY_BYTES))
    headers = [pair for pair in headers if pair[0] != b"sec-websocket-key"]
    return b"GET", [
        *headers,
        (b"connection", b"Upgrade"),
        (b"upgrade", b"websocket"),
        (b"sec-websocket-key", key),
    ]


def _rejoined(headers: Headers) -> Headers:
    """Cookies in one header, which HTTP/2 may have split (section 8.2.3)."""
    cookies = [value for name, value in headers if name == b"cookie"]
    if len(cookies) < 2:
        return headers
    return [*(pair for pair in headers if pair[0] != b"cookie"), (b"cookie", b"; ".join(cookies))]

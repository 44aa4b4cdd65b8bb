"""From a request head to a call: what the proxy accepts, and what it leaves out before anything is attached.

1. One authority: the host in the URL or of the tunnel, the ``Host`` header and the TLS server name are one host and one
   port in canonical form, or the request is refused. The call goes there and nowhere else.
2. Everything about the connection is removed, also what ``Connection`` names, *before* a credential is attached, so
   that no client can name the credential's header away.
3. Headers that ask a server to treat the request as another one (method, URL, host or client overrides) are removed:
   the rule judged the request as it stands.
4. A request that came through this proxy before is refused by its ``Via`` (RFC 9110 section 7.6.3).
"""

from __future__ import annotations

import base64
import binascii
import functools
import re
from dataclasses import dataclass
from typing import NamedTuple

from keyhole.core.errors import BadRequestFraming, InvalidRequest, LoopDetected
from keyhole.core.host import DEFAULT_PORTS, Authority, parse_authority
from keyhole.core.message import Call, Headers, Seat
from keyhole.core.names import OVERRIDES, OVERRIDING, plain_name
from keyhole.core.passthrough import PASSTHROUGH
from keyhole.core.stated import Stated
from keyhole.core.timing import Timing
from keyhole.core.url import split_url
from keyhole.net.http1.grammar import RequestHead, list_tokens, odd_names
from keyhole.net.http1.serialise import HOP_BY_HOP
from keyhole.net.websocket import check_request

_LEFT_OUT = HOP_BY_HOP | OVERRIDES | {b"host", b"content-length", b"expect", b"via"}
_LEFT_OUT_PREFIXES = (b"proxy-", OVERRIDING, b"x-keyhole-")
_DESCRIBING = frozenset({b"content-type", b"content-encoding"})  # by which conditions read a body
_FRAMING_NAMES = frozenset(
    {
        b"host",
        b"content-length",
        b"content-type",
        b"content-encoding",
        b"expect",
        b"sec-websocket-key",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
    }
)
_MOST_HOPS = 255
_TOKEN_SHAPE = re.compile(rb"[a-z]{1,8}\.[A-Za-z0-9_=-]{16,}")
_KEPT_HEAD = 4096  # bytes
_REFUSED_METHODS = frozenset({"TRACE", "TRACK", "PRI", "CONNECT"})


class ExpectationFailed(InvalidRequest):
    """An ``Expect`` other than ``100-continue`` (RFC 9110 section 10.1.1)."""

    status = 417


@dataclass(slots=True)
class Tunnel:
    """What a CONNECT fixed for every request inside. Connections may share one.

    Attributes:
        scheme: ``https``, or ``http`` when the client speaks plain HTTP inside the tunnel.
        credential: as presented with CONNECT; judged again for every request.
    """

    scheme: str
    host: str
    port: int
    credential: bytes


class Admitted(NamedTuple):
    """A request that passed the gate; its body is still to be attached.

    Attributes:
        persistent: the connection may serve another request afterwards.
        expects: the client waits for ``100 Continue`` before it sends the body.
    """

    call: Call
    persistent: bool
    expects: bool


class LastAdmitted:
    """The request without a body that a client sent last: many send the same one again and again."""

    __slots__ = ("_admitted", "_head", "_raw", "_tunnel")

    def __init__(self) -> None:
        self._raw = b""
        self._head: RequestHead | None = None
        self._admitted: Admitted | None = None
        self._tunnel: Tunnel | None = None

    def keep(self, raw: bytes, head: RequestHead, tunnel: Tunnel | None, admitted: Admitted) -> None:
        """Remember a request, unless it is long or changes the protocol.

        Args:
            raw: the bytes of its head.
            head: the same, read.
            tunnel: that it came through.
            admitted: what the gate made of it. All that this depends on stays as it is for connections in a tunnel.
        """
        if len(raw) <= _KEPT_HEAD and not admitted.call.upgrade:
            self._raw, self._head, self._tunnel, self._admitted = raw, head, tunnel, admitted

    def again(self, raw: bytes, tunnel: Tunnel | None, seat: Seat | None) -> tuple[RequestHead, Admitted] | None:
        """A call of its own for the same bytes through the same tunnel, from this seat; ``None`` for others."""
        head, admitted = self._head, self._admitted
        if raw != self._raw or tunnel is not self._tunnel or head is None or admitted is None:
            return None
        it = admitted.call
        call = Call(
            it.token,
            it.scheme,
            it.host,
            it.port,
            it.method,
            it.target,
            it.headers,
            None,
            it.remote,
            it.service,
            "",
            it.stated,
            it.http2,
            it.trailers,
            Timing(),
            seat,
            it.heading,
        )
        return head, Admitted(call, admitted.persistent, admitted.expects)


def admit(head: RequestHead, tunnel: Tunnel | None, credential: bytes, remote: str, pseudonym: bytes) -> Admitted:
    """Judge a head that is no CONNECT.

    Args:
        head: the request.
        tunnel: the tunnel that it came through, or ``None`` on the proxy's own port.
        credential: as presented with this request or with CONNECT.
        remote: the client's address, for the record.
        pseudonym: this proxy's name in ``Via``.

    Raises:
        BadRequestFraming, InvalidRequest: the request is refused; nothing about it may be sent on.
        LoopDetected: it has been here before.
    """
    fields = head.fields
    ours = (b"2.0 " if head.major == 2 else b"1.1 ") + pseudonym
    via = _extend_via(head.headers, pseudonym, ours) if b"via" in fields else ours
    if head.method in _REFUSED_METHODS:
        raise InvalidRequest(f"the method {head.method} is refused here", "use CONNECT on the proxy's own port only")
    host_header = fields.get(b"host")
    if host_header is None and head.minor:  # HTTP/1.0 knows none (RFC 9112 section 3.2)
        raise BadRequestFraming("the request has no Host header", "send exactly one")
    upgrade = _upgrade(head) if b"upgrade" in fields else ""
    if tunnel is None:
        scheme, host, port, target = _absolute_form(_as_http(head.target) if upgrade else head.target, host_header)
    else:
        scheme, host, port, target = tunnel.scheme, tunnel.host, tunnel.port, head.target
        if target[:1] != b"/":
            raise BadRequestFraming("the request target inside a tunnel is not a path", "send origin-form: /path?query")
        _require_host(host_header, scheme, host, port)
    persistent, named = _connection(head)
    expects = b"expect" in fields and _expects_continue(head)
    left_out = _LEFT_OUT | named if named else _LEFT_OUT
    headers = [pair for pair in head.headers if pair[0] not in left_out and not pair[0].startswith(_LEFT_OUT_PREFIXES)]
    if odd_names(fields):
        headers = [pair for pair in headers if not _imitates(pair[0])]
    if head.method == "OPTIONS" and b"max-forwards" in fields:
        headers = [(name, _one_less(value)) if name == b"max-forwards" else (name, value) for name, value in headers]
    headers.append((b"via", via))
    service = fields.get(b"x-keyhole-service", b"").decode("latin-1")
    call = Call(credential, scheme, host, port, head.method, target, headers, None, remote, service, upgrade)
    if b"traceparent" in fields or b"x-keyhole-context" in fields:
        call.stated = Stated.of_headers(head.headers)
    call.trailers = b"te" in fields and _takes_trailers(head.headers)
    return Admitted(call, persistent, expects)


def _imitates(name: bytes) -> bool:
    """Would a server that takes other characters for a hyphen (CGI, WSGI) read what is left out, or was judged?"""
    plain = plain_name(name)
    return plain != name and (plain in _LEFT_OUT or plain in _DESCRIBING or plain.startswith(_LEFT_OUT_PREFIXES))


def connect_authority(head: RequestHead) -> Authority:
    """The destination of a CONNECT (RFC 9110 section 9.3.6).

    Raises:
        BadRequestFraming, InvalidRequest: no port, a body, or a ``Host`` that says something else.
    """
    if b"content-length" in head.fields or b"transfer-encoding" in head.fields:
        raise BadRequestFraming("CONNECT has a body", "send the bytes inside the tunnel")
    authority = parse_authority(head.target, None)
    host_header = head.fields.get(b"host")
    if host_header is not None:
        _require_same(_authority(host_header, authority.port), authority.host, authority.port)
    elif head.minor:
        raise BadRequestFraming("the request has no Host header", "send exactly one")
    # HTTP/1.0 knows no Host (RFC 9112 section 3.2), and http.client of Python 3.11 opens its tunnels with that.
    return authority


def passing(credential: bytes, scheme: str, authority: Authority, remote: str, service: str) -> Call:
    """The call that a tunnel is which is passed on (``core.passthrough``)."""
    host, port = authority
    return Call(credential, scheme, host, port, "CONNECT", b"/", [], None, remote, service, PASSTHROUGH)


def _absolute_form(target: bytes, host_header: bytes | None) -> tuple[str, str, int, bytes]:
    slash = target.find(b"/", 8)
    prefix = target if slash < 0 else target[:slash]
    if slash < 0 or b"?" in prefix:
        if target[:1] == b"/" or target == b"*":
            raise BadRequestFraming(
                "this is a proxy, and the request is for an origin server", "set HTTPS_PROXY and HTTP_PROXY to use it"
            )
        scheme, authority, path = split_url(target)
        _require_host(host_header, scheme, authority.host, authority.port)
        return scheme, authority.host, authority.port, path
    scheme, host, port = _origin(prefix, host_header)
    return scheme, host, port, target[slash:]


@functools.lru_cache(maxsize=4096)
def _origin(prefix: bytes, host_header: bytes | None) -> tuple[str, str, int]:
    """Scheme, host and port of ``scheme://authority`` where ``Host`` says the same."""
    if prefix[:1] == b"/":
        raise BadRequestFraming(
            "this is a proxy, and the request is for an origin server", "set HTTPS_PROXY and HTTP_PROXY to use it"
        )
    scheme, authority, _ = split_url(prefix)
    _require_host(host_header, scheme, authority.host, authority.port)
    return scheme, authority.host, authority.port


@functools.lru_cache(maxsize=4096)
def _authority(value: bytes, default_port: int) -> tuple[str, int]:
    authority = parse_authority(value, default_port)
    return authority.host, authority.port


def _require_host(header: bytes | None, scheme: str, host: str, port: int) -> None:
    if header is not None:
        _require_same(_authority(header, DEFAULT_PORTS[scheme]), host, port)


def _require_same(said: tuple[str, int], host: str, port: int) -> None:
    if said != (host, port):
        raise BadRequestFraming("Host differs from the destination of the request", "send one and the same authority")


def _takes_trailers(headers: Headers) -> bool:
    """Does the client take trailers (RFC 9110 section 10.1.4)?"""
    members = b",".join(value for name, value in headers if name == b"te").lower().split(b",")
    return any(member.partition(b";")[0].strip(b" \t") == b"trailers" for member in members)


def _one_less(hops: bytes) -> bytes:
    """``Max-Forwards`` as the next one gets it (RFC 9110 section 7.6.2); what is no number says nothing."""
    if not hops.isdigit():
        return hops
    left = int(hops.lstrip(b"0")[:4] or b"0")
    if not left:
        raise LoopDetected("Max-Forwards is 0: the request may go no further", "send a larger one, or none")
    return b"%d" % min(left - 1, _MOST_HOPS)


def _extend_via(headers: Headers, pseudonym: bytes, ours: bytes) -> bytes:
    """The ``Via`` to send on, unless we are in it already."""
    values = [value for name, value in headers if name == b"via"]
    known = {part.split()[1] for value in values for part in value.split(b",") if len(part.split()) > 1}
    if pseudonym in known:
        raise LoopDetected(
            "the request has been through this proxy before", "do not send it to the proxy's own address"
        )
    return b", ".join([*values, ours])


def _connection(head: RequestHead) -> tuple[bool, frozenset[bytes]]:
    """Whether the connection persists (RFC 9112 section 9.3), and the headers that ``Connection`` names."""
    fields = head.fields
    persistent = head.minor == 1
    if b"upgrade" in fields:
        # An upgrade that is not taken up ends the connection: a client that believes in it would go on in another
        # protocol, and its bytes must not be read as requests.
        persistent = False
    named: frozenset[bytes] = frozenset()
    if b"connection" in fields:
        value = fields[b"connection"]
        if value != b"keep-alive" and value != b"Keep-Alive":  # noqa: PLR1714 - quicker than a set of two
            members = list_tokens(head.headers, b"connection")
            persistent = persistent and b"close" not in members
            named = frozenset(members) - _FRAMING_NAMES
    return persistent, named


def _upgrade(head: RequestHead) -> str:
    """The protocol that a request asks for, where it can be looked into; others are left out, as RFC 9110 allows."""
    if b"websocket" not in b",".join(value for name, value in head.headers if name == b"upgrade").lower():
        return ""
    check_request(head)
    return "websocket"


def _as_http(target: bytes) -> bytes:
    """A target of the schemes ws and wss, which some clients write, as it is called everywhere else (RFC 6455)."""
    return b"http" + target[2:] if target[:5].lower() in {b"ws://", b"wss:/"} else target


def _expects_continue(head: RequestHead) -> bool:
    if head.fields[b"expect"].lower() != b"100-continue":
        raise ExpectationFailed("the request expects something unknown", "only 100-continue is understood")
    return head.minor == 1


def read_credential(value: bytes | None) -> bytes:
    """The token in a ``Proxy-Authorization`` value; empty when there is none.

    ``Bearer TOKEN``, or ``Basic`` with the token as user name or as password: the part that has a token's shape, else
    the password, else the user name.
    """
    if value is None:
        return b""
    scheme, _, rest = value.partition(b" ")
    rest = rest.strip(b" ")
    if scheme.lower() == b"bearer":
        return rest
    if scheme.lower() != b"basic":
        return b""
    try:
        user, _, password = base64.b64decode(rest, validate=True).partition(b":")
    except binascii.Error:
        return b""
    return pick_token(user, password)


def pick_token(user: bytes, password: bytes) -> bytes:
    """The one of the two that has a token's shape, else the password, else the user name."""
    for part in (password, user):
        if _TOKEN_SHAPE.fullmatch(part):
            return part
    return password or user

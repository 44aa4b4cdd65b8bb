"""What a pool keeps: a connection of HTTP/1.1 for one request at a time, or one of HTTP/2 for several."""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
from collections.abc import Hashable
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from keyhole.core import grpc
from keyhole.core.host import Authority
from keyhole.core.identity import Caller
from keyhole.core.message import Call
from keyhole.net.http1.answer import ClientAnswer
from keyhole.net.http1.client import ClientConnection
from keyhole.net.http2.client import Http2Connection
from keyhole.net.http2.exchange import Http2Answer

if TYPE_CHECKING:
    from keyhole.broker.upstream import Pool


_LOGS_CONNECTIONS_IN = frozenset({b"ntlm", b"negotiate"})


class Origin(NamedTuple):
    """What pooled connections have in common.

    Attributes:
        key: whose they are: org, credential identity, and whatever else must not be mixed (such as the exceptions to
            the address guard and a client certificate).
    """

    key: Hashable
    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> bytes:
        """As it stands in every request."""
        return Authority(self.host, self.port).header(self.scheme)


def org_of(origin: Origin) -> str:
    """The org that a connection belongs to: its key begins with it."""
    key = origin.key
    return str(key[0]) if isinstance(key, tuple) and key else ""


class Speaks(Enum):
    """What may be spoken with an upstream.

    Attributes:
        HTTP1: HTTP/1.1, and HTTP/2 only with an upstream that has nothing else.
        EITHER: what the upstream chooses (RFC 7301); HTTP/1.1 where there is no TLS to ask.
        HTTP2: HTTP/2, known beforehand (RFC 9113 section 3.3), where there is no TLS to ask.
        UPGRADE: HTTP/1.1 alone, for what will change its protocol.
    """

    HTTP1 = "http1"
    EITHER = "either"
    HTTP2 = "http2"
    UPGRADE = "upgrade"


def spoken(call: Call) -> Speaks:
    """What may be spoken with the upstream of a call.

    gRPC has no HTTP/1.1, so that an upstream without TLS that is called by it speaks HTTP/2.
    """
    if call.upgrade:
        return Speaks.UPGRADE
    if not call.http2:
        return Speaks.HTTP1
    return Speaks.HTTP2 if call.scheme == "http" and grpc.is_grpc(call.headers) else Speaks.EITHER


def bound_to(call: Call, caller: Caller) -> tuple[str, ...]:
    """Whose alone the connection of a call is, for its key; nothing where others of the same key may use it too.

    NTLM and Negotiate log a whole connection in (RFC 4559 section 6): who came next on it would be taken for this one.
    """
    for name, value in call.headers:
        if name == b"authorization" and value.partition(b" ")[0].lower() in _LOGS_CONNECTIONS_IN:
            return (caller.token_id or caller.name,)
    return ()


class Single(ClientConnection):
    """A connection of HTTP/1.1 that knows where it belongs, and whether anything waits in its socket."""

    __slots__ = ("_poll", "context", "origin")

    def __init__(self, pool: Pool, origin: Origin, sock: socket.socket) -> None:
        super().__init__(pool.group(), origin.authority, pool.limits.wire, on_free=pool.put, on_lost=pool.forget)
        self.origin = origin
        self.context: ssl.SSLContext | None = None
        self._poll = poll_of(sock)

    async def sound(self) -> bool:
        """Whether the connection is open and not one byte waits, in our buffer or in the kernel's."""
        if self.lost or self.eof or self.buffer or self.transport.is_closing():
            return False
        return self._poll is None or not self._poll.poll(0)


class Multiple(Http2Connection):
    """A connection of HTTP/2 that knows where it belongs."""

    __slots__ = ("_poll", "context", "origin")

    def __init__(self, pool: Pool, before: Single) -> None:
        origin = before.origin
        super().__init__(
            pool.group(),
            origin.authority,
            pool.limits.wire,
            pool.limits.http2,
            on_free=pool.rest,
            on_lost=pool.forget,
        )
        self.origin = origin
        self.context = before.context
        self._poll = before._poll  # noqa: SLF001 - it is the same connection

    async def sound(self) -> bool:
        """Whether it takes requests still, once what waits in the kernel's buffer has been read: it may say goodbye."""
        if self.alive and self._poll is not None and self._poll.poll(0):
            await asyncio.sleep(0)
        return self.alive


Connection = Single | Multiple
UpstreamAnswer = ClientAnswer | Http2Answer


def poll_of(sock: socket.socket) -> select.poll | None:
    """What tells whether anything waits in a socket."""
    if not hasattr(select, "poll"):  # not on Windows, where the event loop alone notices
        return None
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLIN)
    return poll

"""The only outgoing connections of a call: pooled, checked before use, never used after doubt.

1. A connection belongs to one key (org and credential identity) and one origin; nobody else's request travels on it.
2. Before an idle connection is used, it must be open and silent: unread bytes are nobody's answer and end it.
3. A request is sent a second time only when its connection was used before, no byte of an answer came, and sending it
   twice means what sending it once means (RFC 9110 section 9.2.2), without a body.
4. Connecting may begin before the request may be sent: ``reserve`` now, ``Lease.send`` once the intent is recorded.
"""

from __future__ import annotations

import asyncio
import select
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import NamedTuple

from keyhole.core.errors import UpstreamTimeout, UpstreamUnreachable
from keyhole.core.host import Authority
from keyhole.core.message import Body, Message
from keyhole.net.dial import Dialer
from keyhole.net.guard import Guard
from keyhole.net.http1.client import ClientAnswer, ClientConnection, Stale
from keyhole.net.http1.limits import ANSWER_LIMITS, WireLimits
from keyhole.net.http1.tls import TlsChannel
from keyhole.net.http1.wire import NEVER, WireGroup
from keyhole.net.tls import upstream_error

UpstreamAnswer = ClientAnswer

_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})  # TRACE is never sent


@dataclass(frozen=True, slots=True)
class UpstreamTimeouts:
    """Seconds to wait for an upstream.

    Attributes:
        connect: name resolution and TCP together, and again TLS.
        answer: the whole head of the answer, once the request is sent; language models think for minutes.
        body: the next payload of a body; event streams are silent for minutes.
        write: an upstream that does not read.
        rate: bytes of a body a second, at least, on average over ``window``, unless it is an event stream; 0 for none.
        window: of waiting, over which that average is taken.
    """

    connect: float = 10.0
    answer: float = 300.0
    body: float = 600.0
    write: float = 60.0
    rate: float = 1.0
    window: float = 60.0


@dataclass(frozen=True, slots=True)
class UpstreamLimits:
    """Bounds on what the pool keeps.

    Attributes:
        wire: bounds on answers.
        timeouts: used where a call brings none of its own.
        idle: idle connections in all.
        idle_per_origin: idle connections for one key and origin.
        idle_seconds: how long a connection may be idle; shorter than the keep-alive time of common servers.
        age_seconds: how long a connection is used at all, so that a change of addresses is followed.
        sessions: TLS sessions kept for resumption.
    """

    wire: WireLimits = ANSWER_LIMITS
    timeouts: UpstreamTimeouts = UpstreamTimeouts()
    idle: int = 1024
    idle_per_origin: int = 128
    idle_seconds: float = 55.0
    age_seconds: float = 3600.0
    sessions: int = 1024


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


class _Connection(ClientConnection):
    """A connection that knows where it belongs and can be asked whether anything waits in its socket."""

    __slots__ = ("_poll", "context", "origin")

    def __init__(self, pool: Pool, origin: Origin, sock: socket.socket) -> None:
        super().__init__(
            pool.group(),
            Authority(origin.host, origin.port).header(origin.scheme),
            pool.limits.wire,
            on_free=pool.put,
            on_lost=pool.forget,
        )
        self.origin = origin
        self.context: ssl.SSLContext | None = None
        self._poll = None
        if hasattr(select, "poll"):  # not on Windows, where the event loop alone notices
            self._poll = select.poll()
            self._poll.register(sock.fileno(), select.POLLIN)

    def silent(self) -> bool:
        """Whether the connection is open and not one byte waits, in our buffer or in the kernel's."""
        if self.lost or self.eof or self.buffer or self.transport.is_closing():
            return False
        return self._poll is None or not self._poll.poll(0)


class Lease:
    """A connection reserved for one request, perhaps still being made.

    Exactly one of ``send`` and ``cancel`` is called; ``cancel`` after ``send`` does nothing.
    """

    __slots__ = ("_connection", "_context", "_dialling", "_guard", "_origin", "_pool")

    def __init__(
        self, pool: Pool, origin: Origin, guard: Guard, context: ssl.SSLContext | None, *, fresh: bool
    ) -> None:
        self._pool = pool
        self._origin = origin
        self._guard = guard
        self._context = context
        self._connection = None if fresh else pool.take(origin)
        self._dialling: asyncio.Task[_Connection] | None = None
        if self._connection is None:
            self._dialling = asyncio.get_running_loop().create_task(pool.dial(origin, guard, context))

    async def send(
        self, message: Message, body: Body | None, timeouts: UpstreamTimeouts | None = None
    ) -> UpstreamAnswer:
        """Send the request and wait for the head of its final answer.

        Nothing is sent before the first chunk of the body is there, so that a body that begins wrongly sends nothing.

        Raises:
            AddressDenied, UpstreamTls, UpstreamUnreachable, UpstreamTimeout: no answer came that can be used.
            InvalidRequest: a header or the body would break the message's framing.
            KeyholeError: whatever reading ``body`` raised.
        """
        timeouts = timeouts or self._pool.limits.timeouts
        try:
            first = b"" if body is None else await body.read()
            connection = await self._obtain()
        except BaseException:
            self.cancel()
            raise
        try:
            return await connection.exchange(message, body, first, timeouts)
        except Stale:
            if body is not None or message.method not in _REPEATABLE:
                raise
        connection = await self._pool.dial(self._origin, self._guard, self._context)
        return await connection.exchange(message, None, b"", timeouts)

    async def connect(self) -> ClientConnection:
        """The connection itself, for a tunnel; reserve it ``fresh``. Raises as ``send``."""
        try:
            return await self._obtain()
        except BaseException:
            self.cancel()
            raise

    async def _obtain(self) -> _Connection:
        connection, self._connection = self._connection, None
        while connection is not None:
            if connection.silent():
                return connection
            connection.abort()
            connection = self._pool.take(self._origin)
        if self._dialling is None:
            return await self._pool.dial(self._origin, self._guard, self._context)
        connection = await self._dialling
        self._dialling = None
        return connection

    def cancel(self) -> None:
        """Nothing will be sent: give the connection back, or stop making it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.put(connection)
        dialling, self._dialling = self._dialling, None
        if dialling is not None:
            dialling.add_done_callback(self._discard)
            dialling.cancel()

    def _discard(self, dialling: asyncio.Task[_Connection]) -> None:
        if not dialling.cancelled() and dialling.exception() is None:
            self._pool.put(dialling.result())


class Pool:
    """Connections to upstreams.

    Args:
        dialer: opens TCP connections.
        tls_context: gives the context for an origin: trust, versions, and a client certificate where its key asks for
            one. Equal origins get the same context, or sessions are not resumed.
        limits: bounds.
    """

    def __init__(
        self,
        dialer: Dialer,
        tls_context: Callable[[Origin], ssl.SSLContext],
        limits: UpstreamLimits | None = None,
    ) -> None:
        self.limits = limits or UpstreamLimits()
        self.lease: type[Lease] = Lease
        self._dialer = dialer
        self._tls_context = tls_context
        self._idle: dict[Origin, list[_Connection]] = {}
        self._idle_count = 0
        self._sessions: OrderedDict[Origin, tuple[ssl.SSLContext, ssl.SSLSession]] = OrderedDict()
        self._group: WireGroup | None = None
        self._closed = False
        self._trusted_since = 0.0

    @property
    def idle(self) -> int:
        """Idle connections now."""
        return self._idle_count

    def reserve(
        self,
        key: Hashable,
        scheme: str,
        host: str,
        port: int,
        guard: Guard,
        context: ssl.SSLContext | None = None,
        *,
        fresh: bool = False,
    ) -> Lease:
        """Take an idle connection or begin to make one, without sending anything but the TLS handshake.

        Args:
            key: see ``Origin``; names the ``context`` where there is one.
            scheme: ``http`` or ``https``.
            host: canonical.
            port: of the origin.
            guard: judges the address.
            context: of TLS, when it is not the usual one, such as one with a client's certificate.
            fresh: take none that was used before, for what will change its protocol.
        """
        return self.lease(self, Origin(key, scheme, host, port), guard, context, fresh=fresh)

    async def send(
        self,
        key: Hashable,
        message: Message,
        body: Body | None,
        *,
        guard: Guard,
        timeouts: UpstreamTimeouts | None = None,
    ) -> UpstreamAnswer:
        """``reserve`` and ``Lease.send`` in one step."""
        lease = self.reserve(key, message.scheme, message.host, message.port, guard)
        return await lease.send(message, body, timeouts)

    async def close(self) -> None:
        """Close idle connections now, and others when their exchange ends."""
        self._closed = True
        for connections in list(self._idle.values()):
            for connection in list(connections):
                connection.close()

    def distrust(self) -> None:
        """What upstreams are trusted by has changed: nobody is believed for what it proved before.

        Idle connections end now, others with their exchange; no TLS session is resumed.
        """
        self._sessions.clear()
        self._trusted_since = asyncio.get_running_loop().time()
        for connections in list(self._idle.values()):
            for connection in list(connections):
                connection.close()

    # What leases and connections call.

    def group(self) -> WireGroup:
        """What all connections share."""
        if self._group is None:
            self._group = WireGroup(asyncio.get_running_loop(), _tick(self.limits))
        return self._group

    def take(self, origin: Origin) -> _Connection | None:
        """The idle connection that was used last; whoever sends on it looks first whether it is ``silent``."""
        connections = self._idle.get(origin)
        if not connections:
            return None
        connection = connections.pop()
        self._idle_count -= 1
        connection.read_deadline = NEVER
        connection.busy = True
        return connection

    def put(self, connection: ClientConnection) -> None:
        """Keep a connection for the next request of its key, unless there are enough or it is old."""
        assert isinstance(connection, _Connection)  # noqa: S101 - the pool makes no others
        limits = self.limits
        now = connection.loop.time()
        connections = self._idle.setdefault(connection.origin, [])
        if (
            self._closed
            or len(connections) >= limits.idle_per_origin
            or self._idle_count >= limits.idle
            or now - connection.born > limits.age_seconds
            or connection.born < self._trusted_since
            or connection.eof
        ):
            connection.close()
            return
        if connection.used <= 1:
            self._remember(connection)
        connection.busy = False
        connection.read_deadline = now + limits.idle_seconds
        connections.append(connection)
        self._idle_count += 1

    def forget(self, connection: ClientConnection) -> None:
        """A connection is gone."""
        assert isinstance(connection, _Connection)  # noqa: S101 - the pool makes no others
        if self._group is not None:
            self._group.discard(connection)
        connections = self._idle.get(connection.origin)
        if connections is None:
            return
        if connection in connections:
            connections.remove(connection)
            self._idle_count -= 1
        if not connections:
            del self._idle[connection.origin]

    async def dial(self, origin: Origin, guard: Guard, context: ssl.SSLContext | None = None) -> _Connection:
        """Make a connection: resolve, judge, connect, verify the certificate."""
        timeout = self.limits.timeouts.connect
        sock = await self._dialer.dial(origin.host, origin.port, guard, timeout=timeout)
        try:
            connection = await self._adopt(origin, sock)
            if origin.scheme == "https":
                await self._secure(origin, connection, context or self._tls_context(origin), timeout)
        except TimeoutError:
            raise UpstreamTimeout("the TLS handshake with the upstream took too long", "try again later") from None
        except ssl.SSLError as error:
            raise upstream_error(error) from None
        except OSError:
            raise UpstreamUnreachable("the upstream closed the connection before it was used", "try again") from None
        return connection

    async def _adopt(self, origin: Origin, sock: socket.socket) -> _Connection:
        connection = _Connection(self, origin, sock)
        try:
            await connection.loop.create_connection(lambda: connection, sock=sock)
        except BaseException:
            sock.close()
            raise
        self.group().add(connection)
        return connection

    async def _secure(
        self,
        origin: Origin,
        connection: _Connection,
        context: ssl.SSLContext,
        timeout: float,  # noqa: ASYNC109 - the wire keeps time
    ) -> None:
        known = self._sessions.get(origin)
        session = known[1] if known is not None and known[0] is context else None
        connection.context = context
        try:
            channel = TlsChannel(context, server_side=False, server_hostname=origin.host, session=session)
            connection.start_tls(channel, client=True)
            connection.read_deadline = connection.loop.time() + timeout
            await connection.handshake()
            connection.read_deadline = NEVER
        except BaseException:
            connection.abort()
            raise

    def _remember(self, connection: _Connection) -> None:
        if connection.tls is None or connection.context is None:
            return
        session = connection.tls.session
        if session is not None and session.has_ticket:
            self._sessions[connection.origin] = (connection.context, session)
            self._sessions.move_to_end(connection.origin)
            while len(self._sessions) > self.limits.sessions:
                self._sessions.popitem(last=False)


def _tick(limits: UpstreamLimits) -> float:
    """How often to look at deadlines: often enough for the shortest, at most once in 20 ms."""
    times = limits.timeouts
    return min(1.0, max(0.02, min(times.answer, times.body, times.write, limits.idle_seconds) / 5))

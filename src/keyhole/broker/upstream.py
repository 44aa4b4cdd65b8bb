"""The only outgoing connections of a call: pooled, checked before use, never used after doubt.

1. A connection belongs to one key (org and credential identity) and one origin; nobody else's request travels on it.
2. Before an idle connection is used, it must be open and silent: unread bytes are nobody's answer and end it.
3. A request is sent a second time only when its connection was used before, no byte of an answer came, and sending it
   twice means what sending it once means (RFC 9110 section 9.2.2), without a body; or when an upstream of HTTP/2 says
   that it did not look at it, and what was read of its body is still there (RFC 9113 section 8.7).
4. Connecting may begin before the request may be sent: ``reserve`` now, ``Lease.send`` once the intent is recorded.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from keyhole.broker.connections import Connection, Multiple, Origin, Single, Speaks, UpstreamAnswer
from keyhole.broker.idle import Idle
from keyhole.broker.known import H2, KnownUpstreams, NothingInCommon, offers
from keyhole.broker.lease import Lease
from keyhole.core.errors import KeyholeError, UpstreamTimeout, UpstreamUnreachable
from keyhole.core.message import Body, Message
from keyhole.core.timing import Timing
from keyhole.net.dial import Dialer
from keyhole.net.guard import Guard
from keyhole.net.http1.client import ClientConnection
from keyhole.net.http1.limits import ANSWER_LIMITS, WireLimits
from keyhole.net.http1.tls import TlsChannel
from keyhole.net.http1.wire import NEVER, WireGroup
from keyhole.net.http2.client import Http2Connection
from keyhole.net.http2.limits import Http2Limits
from keyhole.net.tls import nothing_in_common, upstream_error
from keyhole.net.together import Together, awaited


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
        http2: bounds on an upstream of HTTP/2.
        timeouts: used where a call brings none of its own.
        idle: idle connections in all.
        idle_per_origin: idle connections for one key and origin.
        idle_seconds: how long a connection may be idle; shorter than the keep-alive time of common servers.
        age_seconds: how long a connection is used at all, so that a change of addresses is followed.
        sessions: TLS sessions kept for resumption.
    """

    wire: WireLimits = ANSWER_LIMITS
    http2: Http2Limits = field(default_factory=Http2Limits)
    timeouts: UpstreamTimeouts = UpstreamTimeouts()
    idle: int = 1024
    idle_per_origin: int = 128
    idle_seconds: float = 55.0
    age_seconds: float = 3600.0
    sessions: int = 1024


_GLOBAL = Guard()


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
        self._idle = Idle()
        self._multiple: dict[Origin, list[Multiple]] = {}
        self._multiple_count = 0
        self._opening: Together[Origin, Connection] = Together()
        self._known = KnownUpstreams(self.limits.sessions)
        self._group: WireGroup | None = None
        self._closed = False
        self._trusted_since = 0.0

    @property
    def idle(self) -> int:
        """Idle connections now."""
        return len(self._idle) + sum(not each.open for them in self._multiple.values() for each in them)

    @property
    def connections(self) -> int:
        """Connections now, idle or not."""
        return 0 if self._group is None else len(self._group)

    async def unfit(self, host: str, port: int) -> KeyholeError | None:
        """Why a canonical host cannot be dialled without an exemption, as far as its addresses say so."""
        try:
            await self._dialer.judged(host, port, _GLOBAL)
        except KeyholeError as error:
            return error
        return None

    def reserve(
        self,
        key: Hashable,
        scheme: str,
        host: str,
        port: int,
        guard: Guard,
        context: ssl.SSLContext | None = None,
        *,
        speaks: Speaks = Speaks.HTTP1,
        timing: Timing | None = None,
    ) -> Lease:
        """Take a connection or begin to make one, without sending anything but the TLS handshake.

        Args:
            key: see ``Origin``; names the ``context`` where there is one.
            scheme: ``http`` or ``https``.
            host: canonical.
            port: of the origin.
            guard: judges the address.
            context: of TLS, when it is not the usual one, such as one with a client's certificate.
            speaks: what may be spoken on it.
            timing: of the call that it is for.
        """
        return self.lease(self, Origin(key, scheme, host, port), guard, context, speaks=speaks, timing=timing)

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
        self._end()

    def distrust(self) -> None:
        """What upstreams are trusted by has changed: nobody is believed for what it proved before.

        Idle connections end now, others with their exchange; no TLS session is resumed.
        """
        self._known.forget_sessions()
        self._trusted_since = asyncio.get_running_loop().time()
        self._end()

    def _end(self) -> None:
        for connection in self._idle.all():
            connection.close()
        for several in list(self._multiple.values()):
            for multiple in list(several):
                multiple.leave()

    # What leases and connections call.

    def group(self) -> WireGroup:
        """What all connections share."""
        if self._group is None:
            self._group = WireGroup(asyncio.get_running_loop(), _tick(self.limits))
        return self._group

    def take(self, origin: Origin, speaks: Speaks) -> Connection | None:
        """A connection that is there already, reserved for one request; whoever sends on it asks whether it is sound.

        Of those of HTTP/1.1 it is the one that was used last. They serve a caller who would rather speak HTTP/2 where
        the upstream does not.
        """
        if speaks is Speaks.UPGRADE:
            return None
        known = self._known.get(origin)
        if speaks is not Speaks.HTTP1 or (known is not None and known.only_http2):
            for multiple in self._multiple.get(origin, ()):
                if multiple.usable:
                    multiple.reserved += 1
                    return multiple
            if known is None or known.http2 is not False or speaks is Speaks.HTTP2:
                return None
        connection = self._idle.take(origin)
        if connection is None:
            return None
        connection.read_deadline = NEVER
        connection.busy = True
        return connection

    async def open(self, origin: Origin, guard: Guard, context: ssl.SSLContext | None, speaks: Speaks) -> Connection:
        """Make a connection for one request. Several that would make one of HTTP/2 at once share it."""
        known = self._known.get(origin)
        if (
            known is None
            or not known.http2
            or speaks is Speaks.UPGRADE
            or (speaks is Speaks.HTTP1 and not known.only_http2)
        ):
            return _reserved(await self.dial(origin, guard, context, speaks))
        while (opening := self._opening.get(origin)) is not None:
            try:
                await awaited(opening)
            except KeyholeError:  # in one line, each who waits would wait for the failures of all before
                return _reserved(await self.dial(origin, guard, context, speaks))
            if (found := self.take(origin, speaks)) is not None:
                return found
        opening = self._opening.begin(origin, lambda: self.dial(origin, guard, context, speaks))
        try:
            connection = await awaited(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(self._unwanted)
            raise
        if isinstance(connection, Multiple) and not connection.usable:
            raise UpstreamUnreachable("the upstream takes no requests on a new connection", "try again later")
        return _reserved(connection)

    def _unwanted(self, opening: asyncio.Task[Connection]) -> None:
        """Whoever wanted a connection went away before it was there."""
        if not opening.cancelled() and opening.exception() is None and isinstance(opening.result(), Single):
            self.give_back(opening.result())

    def give_back(self, connection: Connection) -> None:
        """A connection that was reserved is not used."""
        if isinstance(connection, Single):
            self.put(connection)
        else:
            connection.release()

    def put(self, connection: ClientConnection) -> None:
        """Keep a connection for the next request of its key, unless there are enough or it is old."""
        assert isinstance(connection, Single)  # noqa: S101 - the pool makes no others
        limits = self.limits
        if self._old(connection) or self._idle.of(connection.origin) >= limits.idle_per_origin:
            connection.close()
            return
        if connection.used <= 1:
            self._known.remember_session(connection)
        connection.busy = False
        connection.read_deadline = connection.loop.time() + limits.idle_seconds
        self._idle.add(connection)
        if len(self._idle) > limits.idle and (spare := self._idle.spare()) is not None:
            self._idle.discard(spare)
            spare.close()

    def rest(self, connection: Http2Connection) -> None:
        """A connection of HTTP/2 has nothing to do: it stays for a while, unless there are enough or it is old."""
        assert isinstance(connection, Multiple)  # noqa: S101 - the pool makes no others
        if self._old(connection) or len(self._idle) + self._multiple_count > self.limits.idle:
            connection.leave()
            return
        if connection.used <= 1:
            self._known.remember_session(connection)
        connection.read_deadline = connection.loop.time() + self.limits.idle_seconds

    def _old(self, connection: Connection) -> bool:
        age = connection.loop.time() - connection.born
        untrusted = connection.born < self._trusted_since
        return self._closed or age > self.limits.age_seconds or untrusted or connection.eof

    def forget(self, connection: ClientConnection | Http2Connection) -> None:
        """A connection is gone."""
        assert isinstance(connection, Single | Multiple)  # noqa: S101 - the pool makes no others
        if self._group is not None:
            self._group.discard(connection)
        if isinstance(connection, Multiple):
            several = self._multiple.get(connection.origin, [])
            if connection in several:
                several.remove(connection)
                self._multiple_count -= 1
            if not several:
                self._multiple.pop(connection.origin, None)
            return
        self._idle.discard(connection)

    async def dial(
        self,
        origin: Origin,
        guard: Guard,
        context: ssl.SSLContext | None = None,
        speaks: Speaks = Speaks.HTTP1,
    ) -> Connection:
        """Make a connection: resolve, judge, connect, verify the certificate, agree on a protocol."""
        known = self._known.get(origin)
        only = known is not None and known.only_http2
        try:
            return await self._dial(origin, guard, context, speaks, alpn=offers(speaks, only=only))
        except NothingInCommon:
            if speaks is not Speaks.HTTP1 or only:
                raise
        connection = await self._dial(origin, guard, context, speaks, alpn=(H2,))
        self._known.of(origin).only_http2 = True
        return connection

    async def _dial(
        self,
        origin: Origin,
        guard: Guard,
        context: ssl.SSLContext | None,
        speaks: Speaks,
        *,
        alpn: tuple[str, ...],
    ) -> Connection:
        timeout = self.limits.timeouts.connect
        sock = await self._dialer.dial(origin.host, origin.port, guard, timeout=timeout)
        try:
            connection = await self._adopt(origin, sock)
            if origin.scheme == "https":
                await self._secure(origin, connection, context or self._tls_context(origin), timeout, alpn)
            elif speaks is Speaks.HTTP2:
                return self._several(connection)
        except TimeoutError:
            raise UpstreamTimeout("the TLS handshake with the upstream took too long", "try again later") from None
        except ssl.SSLError as error:
            if nothing_in_common(error):
                raise NothingInCommon(
                    "the upstream does not speak HTTP/1.1", "call it by HTTP/2, and without an upgrade"
                ) from None
            raise upstream_error(error) from None
        except OSError:
            raise UpstreamUnreachable("the upstream closed the connection before it was used", "try again") from None
        if connection.tls is not None and connection.tls.alpn == H2:
            return self._several(connection)
        if speaks is Speaks.EITHER:
            self._known.of(origin).http2 = False
        return connection

    def _several(self, connection: Single) -> Multiple:
        """Speak HTTP/2 on a connection that nothing was sent on."""
        origin, multiple = connection.origin, Multiple(self, connection)
        self.group().discard(connection)
        self.group().add(multiple)
        multiple.begin(connection)
        self._multiple.setdefault(origin, []).append(multiple)
        self._multiple_count += 1
        self._known.of(origin).http2 = True
        multiple.read_deadline = multiple.loop.time() + self.limits.idle_seconds
        return multiple

    async def _adopt(self, origin: Origin, sock: socket.socket) -> Single:
        connection = Single(self, origin, sock)
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
        connection: Single,
        context: ssl.SSLContext,
        timeout: float,  # noqa: ASYNC109 - the wire keeps time
        alpn: tuple[str, ...],
    ) -> None:
        session = self._known.session(origin, context)
        connection.context = context
        try:
            channel = TlsChannel(context, server_side=False, server_hostname=origin.host, session=session, alpn=alpn)
            connection.start_tls(channel, client=True)
            connection.read_deadline = connection.loop.time() + timeout
            await connection.handshake()
            connection.read_deadline = NEVER
        except BaseException:
            connection.abort()
            raise


def _reserved(connection: Connection) -> Connection:
    if isinstance(connection, Multiple):
        connection.reserved += 1
    return connection


def _tick(limits: UpstreamLimits) -> float:
    """How often to look at deadlines: often enough for the shortest, at most once in 20 ms."""
    times, http2 = limits.timeouts, limits.http2
    shortest = min(times.answer, times.body, times.write, limits.idle_seconds, http2.ping or NEVER, http2.ping_timeout)
    return min(1.0, max(0.02, shortest / 5))

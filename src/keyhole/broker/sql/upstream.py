"""The connection to a database: through the guard, under TLS that is verified, and logged in."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from keyhole.broker.sql.limits import SqlLimits
from keyhole.broker.sql.stream import Talk
from keyhole.config import is_loopback
from keyhole.core.errors import UpstreamTimeout, UpstreamTls, UpstreamUnreachable
from keyhole.core.host import Authority
from keyhole.core.sql import SqlCall
from keyhole.crypto.channel import end_point
from keyhole.net.dial import Dialer
from keyhole.net.guard import Guard
from keyhole.net.http1.tls import TlsChannel
from keyhole.net.http1.wire import Wire, WireGroup
from keyhole.net.postgres import messages
from keyhole.net.postgres.login import MAX_LOGIN_MESSAGE, Login, Message, Opened, log_in
from keyhole.net.postgres.talk import PostgresTalk
from keyhole.net.tls import upstream_error

_NONCE = 18  # bytes, as libpq's
_TICK = 0.5  # seconds between looks at deadlines
_GONE = ("the database closed the connection before the session began", "look at its log")


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a session goes.

    Attributes:
        authority: of the database.
        guard: judges its addresses.
        secure: TLS is asked for, and nothing is said without it.
    """

    authority: Authority
    guard: Guard
    secure: bool


@dataclass(frozen=True, slots=True)
class Account:
    """With what a session is opened.

    Attributes:
        user: name of the user.
        password: of that user.
        database: that is opened; empty for the server's choice.
    """

    user: bytes
    password: bytes = field(repr=False)
    database: str = ""


@dataclass(slots=True)
class Line:
    """A connection that is logged in.

    Attributes:
        wire: what is said from here on is the session's.
        talk: follows it.
        opening: what the client gets first.
        key: with which the server takes cancel requests, as it stands on the wire; empty where it gave none.
        ready: what begins the session, behind ``opening`` and the key.
    """

    wire: Wire
    talk: Talk
    opening: bytes
    key: bytes = field(default=b"", repr=False)
    ready: bytes = b""


def needs_tls(sslmode: str, host: str) -> bool:
    """Whether a login goes over TLS only: always, but to this machine, or where the service says otherwise."""
    return sslmode == "verify-full" or (sslmode != "disable" and not is_loopback(host))


class _Upstream(Wire):
    """A wire that its group forgets once it is lost."""

    __slots__ = ()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.group.discard(self)


class Databases:
    """Opens connections to databases.

    Args:
        dialer: opens TCP connections.
        tls: gives a context that verifies databases, without ALPN.
        limits: bounds.
    """

    def __init__(self, dialer: Dialer, tls: Callable[[], ssl.SSLContext], limits: SqlLimits | None = None) -> None:
        self.limits = limits or SqlLimits()
        self._dialer = dialer
        self._tls = tls
        self._group: WireGroup | None = None

    async def postgres(self, destination: Destination, account: Account, call: SqlCall) -> Line:
        """Open a session of PostgreSQL.

        Raises:
            AddressDenied, UpstreamTls, UpstreamUnreachable, UpstreamTimeout: it could not be opened.
        """
        async with self._connected(destination) as wire:
            if destination.secure:
                await self._ask_for_tls(wire, destination.authority.host)
            database = ((b"database", account.database.encode()),) if account.database else ()
            parameters = (*database, *call.parameters)
            nonce = os.urandom(_NONCE)
            login = Login(
                account.user, account.password, parameters, destination.secure, _certificate_hash(wire), nonce
            )
            conversation = log_in(login)
            wire.write(next(conversation))
            while isinstance(said := await _step(conversation, await _next_message(wire)), bytes):
                if said:
                    wire.write(said)
            return Line(wire, PostgresTalk(), said.opening, said.key, said.ready)

    async def cancel_postgres(self, destination: Destination, key: bytes) -> None:
        """Ask a server to stop what it does in a session. It answers nothing. Raises as ``postgres``."""
        async with self._connected(destination) as wire:
            if destination.secure:
                await self._ask_for_tls(wire, destination.authority.host)
            wire.write(messages.request(messages.CANCEL_REQUEST, key))
            while not wire.eof:  # it closes the connection when the request is done
                wire.buffer = b""
                await wire.wait()
            wire.close(self.limits.farewell)

    @asynccontextmanager
    async def _connected(self, destination: Destination) -> AsyncIterator[Wire]:
        """A connection that ends at once when what is done with it fails, or takes too long."""
        host, port = destination.authority
        sock = await self._dialer.dial(host, port, destination.guard, timeout=self.limits.connect)
        loop = asyncio.get_running_loop()
        if self._group is None:
            self._group = WireGroup(loop, _TICK)
        wire = _Upstream(self._group)
        try:
            await loop.create_connection(lambda: wire, sock=sock)
        except BaseException:
            sock.close()
            raise
        self._group.add(wire)
        try:
            async with asyncio.timeout(self.limits.login):
                yield wire
        except BaseException as error:
            wire.abort()
            if isinstance(error, TimeoutError):
                raise UpstreamTimeout("the database did not open the session in time", "try again later") from None
            if isinstance(error, ssl.SSLError):
                raise upstream_error(error) from None
            if isinstance(error, OSError):
                raise UpstreamUnreachable(*_GONE) from None
            raise

    async def _ask_for_tls(self, wire: Wire, host: str) -> None:
        wire.write(messages.request(messages.SSL_REQUEST))
        [answer] = await take(wire, 1)
        if answer != ord("S"):
            raise UpstreamTls(
                "the database offers no TLS",
                "let it have a certificate, or let the service say sslmode disable where nobody can listen",
            )
        await self._secure(wire, host)

    async def _secure(self, wire: Wire, host: str) -> None:
        if wire.buffer:  # said in clear by somebody between, to be taken for the database's own (CVE-2021-23222)
            raise UpstreamTls("the database said something before TLS began", "somebody may stand between")
        wire.start_tls(TlsChannel(self._tls(), server_side=False, server_hostname=host), client=True)
        await wire.handshake()


async def take(wire: Wire, size: int) -> bytes:
    """The next bytes of a database that has to say so many. Raises ``UpstreamUnreachable`` when it does not."""
    while len(wire.buffer) < size:
        if wire.eof:
            if isinstance(wire.failure, ssl.SSLError):
                raise wire.failure
            raise UpstreamUnreachable(*_GONE)
        await wire.wait()
    data, wire.buffer = wire.buffer[:size], wire.buffer[size:]
    return data


async def _next_message(wire: Wire) -> Message:
    head = await take(wire, 5)
    length = int.from_bytes(head[1:]) - 4
    if not 0 <= length <= MAX_LOGIN_MESSAGE:
        raise UpstreamUnreachable("what answers is no PostgreSQL", "check host and port of the service")
    return head[:1], await take(wire, length)


async def _step(conversation: Generator[bytes, Message, Opened], heard: Message) -> bytes | Opened:
    """The next bytes to send, or the end of the login. What takes time by design is not done on the loop."""

    def step() -> bytes | Opened:
        try:
            return conversation.send(heard)
        except StopIteration as end:
            opened: Opened = end.value
            return opened

    return await asyncio.to_thread(step) if heard[0] == b"R" else step()


def _certificate_hash(wire: Wire) -> bytes:
    certificate = wire.tls.handle.getpeercert(binary_form=True) if wire.tls is not None else None
    return end_point(certificate) if certificate else b""

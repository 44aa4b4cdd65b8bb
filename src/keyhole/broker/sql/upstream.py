"""The connection to a database: through the guard, under TLS that is verified, and logged in."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

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
from keyhole.net.mysql import packets
from keyhole.net.mysql.login import Login as MysqlLogin
from keyhole.net.mysql.login import log_in as log_in_to_mysql
from keyhole.net.mysql.packets import Greeting
from keyhole.net.mysql.talk import MysqlTalk
from keyhole.net.postgres import messages
from keyhole.net.postgres.login import MAX_LOGIN_MESSAGE, Login, Message, Opened, log_in
from keyhole.net.postgres.talk import PostgresTalk
from keyhole.net.refused import LoginRefused
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
        stop: stops, by another connection to the destination, what the database does in the session.
        cancels: clients of this protocol ask for that, with a key that they get between ``opening`` and ``ready``.
        opening: what the client gets first.
        ready: what begins the session.
    """

    wire: Wire
    talk: Talk
    stop: Callable[[Destination], Awaitable[None]]
    cancels: bool
    opening: bytes
    ready: bytes


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
            stop = partial(self._cancel_postgres, said.key)
            return Line(wire, PostgresTalk(), stop, bool(said.key), said.opening, said.ready)

    async def _cancel_postgres(self, key: bytes, destination: Destination) -> None:
        """Ask a server to stop what it does in a session. It answers nothing. Raises as ``postgres``."""
        if not key:
            return
        async with self._connected(destination) as wire:
            if destination.secure:
                await self._ask_for_tls(wire, destination.authority.host)
            wire.write(messages.request(messages.CANCEL_REQUEST, key))
            while not wire.eof:  # it closes the connection when the request is done
                wire.buffer = b""
                await wire.wait()
            wire.close(self.limits.farewell)

    async def mysql(self, destination: Destination, account: Account, call: SqlCall, talk: MysqlTalk) -> Line:
        """Open a session of MySQL or MariaDB. Raises as ``postgres``."""
        async with self._connected(destination) as wire:
            greeting, ready = await self._mysql_login(wire, destination, account, call)
            stop = partial(self._kill_mysql, account, greeting.thread)
            return Line(wire, talk, stop, False, b"", packets.packet(0, ready))  # noqa: FBT003 - as the field says

    async def _kill_mysql(self, account: Account, thread: int, destination: Destination) -> None:
        """End a session by another one of the same user. Raises as ``postgres``."""
        async with self._connected(destination) as wire:
            call = SqlCall(b"", "mysql", capabilities=packets.TRANSACTIONS, charset=packets.UTF8MB4)
            await self._mysql_login(wire, destination, account, call)
            wire.write(packets.packet(0, b"\x03KILL %d" % thread))
            await _next_packet(wire, 1)
            wire.close(self.limits.farewell)

    async def _mysql_login(
        self, wire: Wire, destination: Destination, account: Account, call: SqlCall
    ) -> tuple[Greeting, bytes]:
        greeting = packets.read_greeting(await _next_packet(wire, 0))
        login = MysqlLogin(
            account.user, account.password, account.database.encode(), call.capabilities, call.charset,
            call.attributes, destination.secure,
        )  # fmt: skip
        sequence = 1
        if destination.secure:
            if not greeting.capabilities & packets.SSL:
                raise _no_tls()
            wire.write(packets.packet(sequence, packets.ssl_request(login.flags(greeting), call.charset)))
            wire.flush()
            sequence += 1
            await self._secure(wire, destination.authority.host)
        conversation = log_in_to_mysql(login, greeting)
        said = next(conversation)
        while True:
            if said:
                wire.write(packets.packet(sequence, said))
                sequence += 1
            heard = await _next_packet(wire, sequence)
            sequence += 1
            try:
                said = conversation.send(heard)
            except StopIteration as end:
                return greeting, bytes(end.value)

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
            raise _no_tls()
        await self._secure(wire, host)

    async def _secure(self, wire: Wire, host: str) -> None:
        if wire.buffer:  # said in clear by somebody between, to be taken for the database's own (CVE-2021-23222)
            raise UpstreamTls("the database said something before TLS began", "somebody may stand between")
        wire.start_tls(TlsChannel(self._tls(), server_side=False, server_hostname=host), client=True)
        await wire.handshake()


def _no_tls() -> UpstreamTls:
    return UpstreamTls(
        "the database offers no TLS",
        "let it have a certificate, or let the service say sslmode disable where nobody can listen",
    )


def _no_mysql() -> UpstreamUnreachable:
    return UpstreamUnreachable("what answers is no server of MySQL or MariaDB", "check host and port of the service")


async def _next_packet(wire: Wire, sequence: int) -> bytes:
    head = await take(wire, packets.HEAD)
    length = int.from_bytes(head[:3], "little")
    if length > packets.MAX_LOGIN or head[3] != sequence:
        raise _no_mysql()
    first = await take(wire, min(length, 1))
    if not sequence and first not in {b"\x0a", b"\xff"}:  # a greeting or a refusal, or another protocol
        raise _no_mysql()
    payload = first + await take(wire, length - len(first))
    if payload[:1] == b"\xff":
        raise LoginRefused(packets.error_state(payload))
    return payload


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

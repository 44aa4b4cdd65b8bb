"""What this face needs of the broker, and what its protocols share."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from keyhole.core.message import Stream
from keyhole.core.sql import SqlCall
from keyhole.net.http1.tls import TlsChannel
from keyhole.net.http1.wire import Wire


class Session(Stream, Protocol):
    """A session that was opened.

    Attributes:
        opening: what the client gets first.
    """

    opening: bytes


class Sessions(Protocol):
    """What decides and acts. It refuses by raising ``KeyholeError``."""

    async def in_turn(self, remote: str) -> None:
        """Wait until a client from an address may have its handshake of TLS."""

    async def open(self, call: SqlCall) -> Session:
        """Open a session. The task is cancelled when the client goes away."""

    async def cancel(self, token: bytes | None, key: bytes, remote: str) -> None:
        """Stop what the database does in a session; ``None`` for a token where the key alone says whose it is."""


@dataclass(frozen=True, slots=True)
class SqlListenerLimits:
    """Bounds on clients.

    Attributes:
        connections: at once, of a listener.
        login: seconds from the first byte to the session.
        write: seconds for a client that does not read.
        linger: seconds for a client to read why it was turned away.
    """

    connections: int = 2_000
    login: float = 10.0
    write: float = 60.0
    linger: float = 2.0


@dataclass(slots=True)
class Guest:
    """A client before its session.

    Attributes:
        wire: its connection.
        call: what is known of what it wants; without a token it has to show one.
        tls: for a listener that offers TLS.
        begun: told when its session has begun.
        in_turn: as of ``Sessions``.
    """

    wire: Wire
    call: SqlCall
    in_turn: Callable[[str], Awaitable[None]]
    tls: ssl.SSLContext | None = None
    begun: Callable[[Stream], None] = lambda _: None

    async def take(self, size: int) -> bytes:
        """The next bytes. Raises ``ClientGoneError``."""
        wire = self.wire
        while len(wire.buffer) < size:
            if wire.eof:
                raise ClientGoneError
            await wire.wait()
        data, wire.buffer = wire.buffer[:size], wire.buffer[size:]
        return data

    async def secure(self, context: ssl.SSLContext) -> None:
        """Go on under TLS; what has come already is its first records."""
        await self.in_turn(self.call.remote)
        self.wire.start_tls(TlsChannel(context, server_side=True), client=False)
        await self.wire.handshake()


class ClientGoneError(Exception):
    """The client left before it had a session: nobody is there to be told."""

"""A connection reserved for one request, perhaps still being made, and the one way to send on it."""

from __future__ import annotations

import asyncio
import ssl
from time import monotonic
from typing import TYPE_CHECKING

from keyhole.broker.again import Again
from keyhole.broker.begun import BegunBody
from keyhole.broker.connections import Connection, Multiple, Origin, Single, Speaks, UpstreamAnswer
from keyhole.core.message import Body, Message
from keyhole.core.timing import Timing
from keyhole.net.guard import Guard
from keyhole.net.http1.client import ClientConnection, Stale
from keyhole.net.http1.pace import is_conversation
from keyhole.net.http2.requests import NotTaken

if TYPE_CHECKING:
    from keyhole.broker.upstream import Pool, UpstreamTimeouts

_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})  # TRACE is never sent


class Lease:
    """A connection reserved for one request, perhaps still being made.

    Exactly one of ``send`` and ``cancel`` is called; ``cancel`` after ``send`` does nothing.
    """

    __slots__ = ("_connection", "_context", "_dialling", "_guard", "_origin", "_pool", "_speaks", "_timing")

    def __init__(
        self,
        pool: Pool,
        origin: Origin,
        guard: Guard,
        context: ssl.SSLContext | None,
        *,
        speaks: Speaks,
        timing: Timing | None = None,
    ) -> None:
        self._timing = timing
        self._pool = pool
        self._origin = origin
        self._guard = guard
        self._context = context
        self._speaks = speaks
        self._connection = pool.take(origin, speaks)
        self._dialling: asyncio.Task[Connection] | None = None
        if self._connection is None:
            self._dialling = asyncio.get_running_loop().create_task(self._open())

    async def send(
        self, message: Message, body: Body | None, timeouts: UpstreamTimeouts | None = None
    ) -> UpstreamAnswer:
        """Send the request and wait for the head of its final answer.

        Nothing is sent before the first chunk of the body is there, so that a body that begins wrongly sends nothing;
        but where both sides talk as they like, the upstream may be the one that begins, and a client of HTTP/2 that
        says neither how long its body is nor how it begins wants to hear the upstream first.

        Raises:
            AddressDenied, UpstreamTls, UpstreamUnreachable, UpstreamTimeout: no answer came that can be used.
            InvalidRequest: a header or the body would break the message's framing.
            KeyholeError: whatever reading ``body`` raised.
        """
        timeouts = timeouts or self._pool.limits.timeouts
        if body is None:
            try:
                connection = await self._obtain()
            except BaseException:
                self.cancel()
                raise
            try:
                return await self._exchange(connection, message, None, b"", timeouts)
            except NotTaken:
                pass
            except Stale:
                if message.method not in _REPEATABLE:
                    raise
            return await self._exchange(await self._open(), message, None, b"", timeouts)
        first: bytes | None
        begun = None
        try:
            if message.http2 and is_conversation(message.headers):
                first = None
            elif message.http2 and body.length is None:
                body = begun = BegunBody(body)
                first = await begun.first()
            else:
                first = await body.read()
            return await self._send(message, body, first, timeouts)
        except BaseException:
            self.cancel()
            if begun is not None:
                begun.leave()
            raise

    async def _send(
        self, message: Message, body: Body, first: bytes | None, timeouts: UpstreamTimeouts
    ) -> UpstreamAnswer:
        """Send a request with a body; ``first`` is its first chunk, ``None`` where it was not waited for."""
        connection = await self._obtain()
        first = await self._begun(connection, body, first)
        again = None
        if isinstance(connection, Multiple):
            body = again = Again(body, first)
        try:
            answer = await self._exchange(connection, message, body, first, timeouts)
        except NotTaken:
            if again is not None and not again.rewind():
                raise
        else:
            if again is not None:
                again.settle()
            return answer
        connection = await self._open()
        first = await self._begun(connection, body, first)
        return await self._exchange(connection, message, body, first, timeouts)

    async def _begun(self, connection: Connection, body: Body, first: bytes | None) -> bytes | None:
        """The first chunk, which HTTP/1.1 sends with the head; where it does not come, the connection is given back."""
        if first is not None or not isinstance(connection, Single):
            return first
        try:
            return await body.read()
        except BaseException:
            self._pool.give_back(connection)
            raise

    async def connect(self) -> ClientConnection:
        """The connection itself, for a tunnel; reserve it for an ``UPGRADE``. Raises as ``send``."""
        try:
            connection = await self._obtain()
        except BaseException:
            self.cancel()
            raise
        assert isinstance(connection, Single)  # noqa: S101 - what an upgrade is made on
        return connection

    async def _obtain(self) -> Connection:
        connection, self._connection = self._connection, None
        while connection is not None:
            try:
                sound = await connection.sound()
            except BaseException:
                self._pool.give_back(connection)
                raise
            if sound:
                return connection
            if isinstance(connection, Single):
                connection.abort()
            else:
                connection.release()
            connection = self._pool.take(self._origin, self._speaks)
        if self._dialling is None:
            return await self._open()
        connection = await self._dialling
        self._dialling = None
        return connection

    async def _open(self) -> Connection:
        begun = monotonic()
        try:
            return await self._pool.open(self._origin, self._guard, self._context, self._speaks)
        finally:
            if self._timing is not None:
                self._timing.connect += monotonic() - begun

    async def _exchange(
        self,
        connection: Connection,
        message: Message,
        body: Body | None,
        first: bytes | None,
        timeouts: UpstreamTimeouts,
    ) -> UpstreamAnswer:
        begun = monotonic()
        try:
            if isinstance(connection, Multiple):
                return await connection.exchange(message, body, first, timeouts)
            return await connection.exchange(message, body, first or b"", timeouts)
        finally:
            if self._timing is not None:
                self._timing.upstream += monotonic() - begun

    def cancel(self) -> None:
        """Nothing will be sent: give the connection back, or stop making it."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.give_back(connection)
        dialling, self._dialling = self._dialling, None
        if dialling is not None:
            dialling.add_done_callback(self._discard)
            dialling.cancel()

    def _discard(self, dialling: asyncio.Task[Connection]) -> None:
        if not dialling.cancelled() and dialling.exception() is None:
            self._pool.give_back(dialling.result())

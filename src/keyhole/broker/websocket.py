"""A WebSocket through the broker: the handshake like every call, then frames in both directions until one side ends it.

1. The connection is the WebSocket's own: it comes from no pool and goes back to none.
2. A 101 is believed only when it agrees to what was asked, in every point (RFC 6455 section 4.1).
3. No extension is offered, so that every frame can be looked into.
4. Whoever breaks the protocol is told so by a close frame, and so is the other side; where a frame has begun that
   cannot be completed, the connection breaks off instead.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable

from keyhole.broker.frames import AnswerFrames, CallFrames
from keyhole.broker.live import Ended, StreamLimits
from keyhole.broker.loan import Loan
from keyhole.broker.watch import FrameWatch, Tripped
from keyhole.core.errors import KeyholeError, PolicyDenied, Unauthenticated, UpstreamTimeout, UpstreamUnreachable
from keyhole.core.message import Message
from keyhole.net.http1.client import ClientConnection
from keyhole.net.http1.wire import NEVER
from keyhole.net.websocket import CLOSE, FrameError, close_payload, encode
from keyhole.net.websocket.frames import BAD_GATEWAY, GOING_AWAY, INTERNAL_ERROR, POLICY_VIOLATION

WEBSOCKET = "websocket"
_EXTENSIONS = b"sec-websocket-extensions"
_SLICE = 64 * 1024  # bytes that are looked at between two waits


def prepare(message: Message, upgrade: str) -> None:
    """Make a handshake of a message, without what would let frames be changed in ways that cannot be looked into."""
    message.upgrade = upgrade
    message.remove(_EXTENSIONS)


class WebSocketStream:
    """``core.message.Stream`` over the connection of a 101.

    Args:
        connection: on which the upstream has answered.
        loan: what was lent for the handshake, if anything was.
        limits: bounds.
        ended: called once at the end.
        watch: looks at what the caller sends.
        in_turn: waits while it is others' turn.
    """

    __slots__ = (
        "_alarm",
        "_connection",
        "_ended",
        "_error",
        "_farewell",
        "_in_turn",
        "_inbound",
        "_limits",
        "_outbound",
        "_over",
        "_received",
        "_sent",
        "_unread",
        "touched",
    )

    def __init__(
        self,
        connection: ClientConnection,
        loan: Loan | None,
        limits: StreamLimits,
        ended: Ended,
        watch: FrameWatch | None = None,
        *,
        in_turn: Callable[[], Awaitable[None]],
    ) -> None:
        self._in_turn = in_turn
        self._connection = connection
        self._inbound = AnswerFrames(None if loan is None else loan.scrubber, limits.frames)
        self._outbound = CallFrames(
            limits.frames, None if loan is None else loan.change(), None if watch is None else watch.begin
        )
        self._alarm = None if watch is None else watch.alarm
        self._limits = limits
        self._ended = ended
        self._error: BaseException | None = None
        self._farewell: bytes | None = None  # what the caller gets last, once it was decided to end it
        self._over = False
        self._received = self._sent = 0
        self._unread = False
        self.touched = connection.loop.time()

    # To the caller.

    async def read(self) -> bytes:
        """The next frames, scrubbed; ``b""`` at the end."""
        connection = self._connection
        while self._farewell is None:
            if self._unread or connection.buffer:
                await self._in_turn()
                if self._farewell is not None:
                    break
            try:
                data = self._next()
            except FrameError as error:
                theirs = UpstreamUnreachable(f"the upstream broke the protocol: {error.reason}", "report it to the API")
                self._fail(theirs, to_caller=BAD_GATEWAY, to_upstream=error.close)
                break
            except KeyholeError as error:
                self._fail(error)
                break
            if data:
                return data
            if self._unread:
                await asyncio.sleep(0)  # a flood of small frames must not keep other connections waiting
            elif not connection.buffer:
                if connection.eof or (self._inbound.closed and self._outbound.closed):
                    self._conclude()
                    return b""
                await connection.wait()
        farewell, self._farewell = self._farewell or b"", b""
        return farewell

    def _next(self) -> bytes:
        connection = self._connection
        if not self._unread and connection.buffer:
            data, connection.buffer = connection.buffer[:_SLICE], connection.buffer[_SLICE:]
            self._received += len(data)
            self.touched = connection.loop.time()
            self._inbound.add(data)
            self._unread = True
        if not self._unread:
            return b""
        data, self._unread = self._inbound.take()
        return data

    def _conclude(self) -> None:
        """The upstream ended. Without a close frame before it, that was no proper end."""
        if self._error is None and not self._inbound.closed:
            self._error = UpstreamUnreachable("the upstream broke the WebSocket off", "connect again")

    # From the caller.

    async def write(self, data: bytes) -> None:
        """Send the caller's frames on, masked afresh."""
        self.touched = self._connection.loop.time()
        self._sent += len(data)
        for at in range(0, len(data), _SLICE):
            self._outbound.add(data[at : at + _SLICE])
            more = True
            while more and self._farewell is None:
                await self._in_turn()
                if self._farewell is not None:
                    return
                try:
                    frames, more = self._outbound.take()
                except Tripped as error:
                    if self._alarm is not None:
                        await self._alarm(error)
                    self._fail(error, to_caller=POLICY_VIOLATION, to_upstream=GOING_AWAY)
                    return
                except KeyholeError as error:
                    self._fail(error, to_upstream=GOING_AWAY)
                    return
                await self._send(frames)
                if more:
                    await asyncio.sleep(0)

    async def _send(self, frames: bytes) -> None:
        connection = self._connection
        if frames and not connection.lost:
            connection.write(frames)
            if connection.clogged:
                connection.write_deadline = connection.loop.time() + self._limits.write
                try:
                    await connection.drain()
                except TimeoutError:
                    self._fail(UpstreamTimeout("the upstream stopped reading"), to_caller=BAD_GATEWAY)
                except ConnectionResetError:
                    return  # whoever reads sees it too, after what the upstream still had to say
                finally:
                    connection.write_deadline = NEVER
        if self._inbound.closed and self._outbound.closed:
            self._connection.wake()

    def end(self) -> None:
        """The caller's connection ended."""
        if not (self._outbound.closed and not self._inbound.closed):  # else the upstream's close frame is still awaited
            self._stop(b"")

    # The end, decided here.

    def leave(self) -> None:
        """Tell both sides that this end goes away."""
        self._over = True
        self._part(GOING_AWAY, GOING_AWAY, "Keyhole is shutting down")

    def cut(self, error: KeyholeError) -> None:
        """End it for a reason that neither side gave."""
        code = POLICY_VIOLATION if isinstance(error, Unauthenticated | PolicyDenied) else GOING_AWAY
        self._fail(error, to_caller=code, to_upstream=code)

    def overdue(self, now: float) -> KeyholeError | None:
        """Why it has to end although nobody ended it."""
        if now - self.touched <= self._limits.idle:
            return None
        return UpstreamTimeout(
            "the WebSocket was idle for too long", "send pings, or raise the setting websocket_idle_timeout"
        )

    def _fail(self, error: KeyholeError, *, to_caller: int = 0, to_upstream: int = 0) -> None:
        if self._error is None:
            self._error = error
        theirs = error.close if isinstance(error, FrameError) else INTERNAL_ERROR
        self._part(to_caller or theirs, to_upstream or theirs, error.code)

    def _part(self, to_caller: int, to_upstream: int, reason: str) -> None:
        if self._farewell is not None:
            return
        connection = self._connection
        if not (self._outbound.closed or self._outbound.partial or connection.lost):
            connection.write(encode(CLOSE, close_payload(to_upstream, reason), mask=os.urandom(4)))
            connection.flush()
        told = self._inbound.closed or self._inbound.partial
        self._stop(b"" if told else encode(CLOSE, close_payload(to_caller, reason)))

    def _stop(self, farewell: bytes) -> None:
        if self._farewell is None:
            self._farewell = farewell
            self._connection.wake()

    async def close(self) -> None:
        """Record how it ended, and end the upstream's connection; a close frame on its way there is not reset away."""
        connection = self._connection
        goodbye = self._inbound.closed or self._outbound.closed
        error = self._error
        if error is None and not goodbye and not self._over:
            error = asyncio.CancelledError()
        masked = self._inbound.masked
        self._ended(error, status=101, received=self._received, sent=self._sent, masked=masked)
        if connection.lost:
            return
        if connection.eof or self._inbound.partial:
            connection.close(self._limits.farewell)
            return
        try:
            async with asyncio.timeout(self._limits.farewell):
                connection.end()
                while not connection.eof:
                    connection.buffer = b""
                    await connection.wait()
        except TimeoutError:
            connection.abort()
        else:
            connection.close(self._limits.farewell)

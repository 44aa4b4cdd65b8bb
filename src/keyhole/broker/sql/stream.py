"""What passes by in a session with a database, from its login to its end.

1. Both directions are followed message by message, and neither is kept: a slow reader holds back the sender.
2. What the database says goes through the scrubber. Masks keep the length, so the messages stay right, and a piece is
   held back only within a message that has not ended.
3. Who breaks the protocol ends the session, before anything of it is passed on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from keyhole.broker.sql.limits import SqlLimits
from keyhole.core.errors import KeyholeError, Sealed, UpstreamTimeout, UpstreamUnreachable
from keyhole.net.http1.wire import NEVER, Wire
from keyhole.scrub import Scrubber, Stream


class Talk(Protocol):
    """A session of one protocol as it passes by. Pure; keeps no more than the head of a message.

    Attributes:
        goodbye: what ends a session at the database.
    """

    goodbye: bytes

    @property
    def statements(self) -> int:
        """How many statements the client has sent."""

    @property
    def parting(self) -> bool:
        """Whether the client has said goodbye."""

    @property
    def busy(self) -> bool:
        """Whether the database may still be working for the client."""

    @property
    def sending(self) -> bool:
        """Whether a message of the client has begun and not ended."""

    def of_server(self, data: bytes) -> int:
        """Follow the database: the offset behind its last message that is complete. Raises ``BadRequestFraming``."""

    def of_client(self, data: bytes) -> None:
        """Follow the client. Raises ``BadRequestFraming``, or ``PolicyDenied`` for what a session may not do."""

    def farewell(self, error: KeyholeError) -> bytes:
        """What tells the client why the session ends; empty where it would stand within a message."""


class Ended(Protocol):
    """What is told at the end."""

    def __call__(self, error: BaseException | None, *, received: int, sent: int, statements: int, masked: bool) -> None:
        """Record why it ended (``None`` when it was said goodbye), and how much was said."""


class SqlStream:
    """``core.message.Stream`` over a connection that is logged in.

    Args:
        wire: to the database.
        talk: follows it.
        scrubber: what its answers go through.
        limits: bounds.
        ended: called once at the end.
        opening: what the client gets first, in full.
        in_turn: waits while it is others' turn.

    Attributes:
        opening: the same.
    """

    __slots__ = (
        "_born",
        "_ended",
        "_error",
        "_farewell",
        "_in_turn",
        "_limits",
        "_masked",
        "_over",
        "_received",
        "_scrub",
        "_scrubber",
        "_sent",
        "_talk",
        "_wire",
        "opening",
        "touched",
    )

    def __init__(
        self,
        wire: Wire,
        talk: Talk,
        scrubber: Scrubber,
        limits: SqlLimits,
        ended: Ended,
        opening: bytes,
        in_turn: Callable[[], Awaitable[None]],
    ) -> None:
        self._in_turn = in_turn
        self._wire = wire
        self._talk = talk
        self._scrubber = scrubber
        self._scrub = Stream(scrubber)
        self._limits = limits
        self._ended = ended
        self._error: BaseException | None = None
        self._farewell: bytes | None = None  # what the client gets last, once it was decided to end it
        self._masked = self._over = False
        self._received = self._sent = 0
        self._born = self.touched = wire.loop.time()
        self.opening = opening

    @property
    def busy(self) -> bool:
        """Whether the database may still be working for the client."""
        return self._talk.busy

    # To the client.

    async def read(self) -> bytes:
        """The next bytes for the client, scrubbed; ``b""`` at the end."""
        wire = self._wire
        while self._farewell is None:
            if wire.buffer:
                await self._in_turn()
                if self._farewell is not None:
                    break
                data, wire.buffer = wire.buffer, b""
                self._received += len(data)
                self.touched = wire.loop.time()
                try:
                    clean = self._clean(data)
                except KeyholeError as error:
                    self._fail(UpstreamUnreachable(f"the database broke its protocol: {error.reason}", "look at it"))
                    break
                if clean:
                    return clean
            elif wire.eof:
                if self._error is None and not self._talk.parting:
                    self._error = UpstreamUnreachable("the database ended the session", "connect again")
                self._farewell = self._scrub.finish()
            else:
                await wire.wait()
        farewell, self._farewell = self._farewell or b"", b""
        return farewell

    def _clean(self, data: bytes) -> bytes:
        end = self._talk.of_server(data)
        clean = b""
        if end:
            clean = self._scrub.feed(data[:end]) + self._scrub.finish()
            self._masked = self._masked or self._scrub.masked
            self._scrub = Stream(self._scrubber)
        return clean + self._scrub.feed(data[end:]) if end < len(data) else clean

    # From the client.

    async def write(self, data: bytes) -> None:
        """Send the client's messages on."""
        await self._in_turn()
        if self._farewell is not None:
            return
        wire = self._wire
        self.touched = wire.loop.time()
        self._sent += len(data)
        try:
            self._talk.of_client(data)
        except KeyholeError as error:
            self._fail(error)
            return
        if wire.lost:
            return
        wire.write(data)
        if wire.clogged:
            wire.write_deadline = wire.loop.time() + self._limits.write
            try:
                await wire.drain()
            except TimeoutError:
                self._fail(UpstreamTimeout("the database stopped reading", "look at its log"))
            except ConnectionResetError:
                return  # whoever reads sees it too, after what the database still had to say
            finally:
                wire.write_deadline = NEVER

    def end(self) -> None:
        """The client's connection ended."""
        self._stop(b"")

    # The end, decided here.

    def leave(self) -> None:
        """Tell the client that this end goes away."""
        self._over = True
        error = Sealed("Keyhole is shutting down", "connect again later")
        self._stop(self._talk.farewell(error))

    def cut(self, error: KeyholeError) -> None:
        """End it for a reason that neither side gave."""
        self._fail(error)

    def overdue(self, now: float) -> KeyholeError | None:
        """Why it has to end although nobody ended it."""
        if now - self.touched > self._limits.idle:
            return UpstreamTimeout("the session was idle for too long", "connect again, or raise sql_idle_timeout")
        if self._limits.longest and now - self._born > self._limits.longest:
            return UpstreamTimeout(
                "the session has lasted as long as a session may", "connect again, or raise sql_session_timeout"
            )
        return None

    def _fail(self, error: KeyholeError) -> None:
        if self._error is None:
            self._error = error
        self._stop(self._talk.farewell(error))

    def _stop(self, farewell: bytes) -> None:
        if self._farewell is None:
            self._farewell = farewell
            self._wire.wake()

    async def close(self) -> None:
        """Record how it ended, and end it at the database."""
        wire, talk = self._wire, self._talk
        error = self._error
        if error is None and not talk.parting and not self._over:
            error = asyncio.CancelledError()
        if not (talk.parting or talk.sending or wire.lost):
            wire.write(talk.goodbye)
        wire.close(self._limits.farewell)
        self._ended(
            error,
            received=self._received,
            sent=self._sent,
            statements=talk.statements,
            masked=self._masked or self._scrub.masked,
        )

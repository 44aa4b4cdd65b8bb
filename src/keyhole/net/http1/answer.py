"""The answer to one request of HTTP/1.1, and its body: pulled, or handed on as it comes.

A body that was pulled wakes a task for each piece. One that goes on for hours in small pieces, such as a stream of
events, hands them on where they arrive, as long as whoever gets them has room; all else is pulled: the first piece, the
last one, what is large, and what comes while there is no room.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from keyhole.core.errors import UpstreamTimeout, UpstreamUnreachable
from keyhole.core.message import Headers, Taker
from keyhole.core.trailers import of_answer
from keyhole.net.http1.framing import CloseDecoder, Decoder
from keyhole.net.http1.grammar import AnswerHead, Malformed
from keyhole.net.http1.pace import Pace, TooSlow, window_for
from keyhole.net.http1.wire import NEVER

if TYPE_CHECKING:
    from keyhole.net.http1.client import ClientConnection, Timeouts

LATER = "try again later; if it goes on, ask who runs the API"


class ClientAnswer:
    """The final answer to one request; also its body.

    Attributes:
        status: 200 to 599, or 101 when an upgrade was asked for; then ``take_over`` gives the connection.
        reason: reason phrase.
        headers: end-to-end headers with lower-cased names, ``content-length`` as declared.
        length: declared bytes of the body.
    """

    __slots__ = (
        "_came",
        "_connection",
        "_deadline",
        "_decoder",
        "_failed",
        "_pace",
        "_paced",
        "_persistent",
        "_pump",
        "_received",
        "_taker",
        "_timeouts",
        "headers",
        "length",
        "reason",
        "status",
    )

    def __init__(
        self,
        connection: ClientConnection,
        head: AnswerHead,
        headers: Headers,
        decoder: Decoder | None,
        persistent: bool,  # noqa: FBT001 - made in one place
        pump: asyncio.Task[None] | None,
        timeouts: Timeouts,
    ) -> None:
        self.status = head.status
        self.reason = head.reason
        self.headers = headers
        self.length = None if decoder is None else decoder.length
        self._connection: ClientConnection | None = connection
        self._decoder = decoder
        self._persistent = persistent
        self._pump = pump
        self._timeouts = timeouts
        self._received = 0
        self._deadline = 0.0
        self._paced = False
        self._pace: Pace | None = None
        self._taker: Taker | None = None
        self._came: bytes | None = None
        self._failed: Exception | None = None
        connection.read_deadline = NEVER
        if (decoder is None or decoder.done) and head.status != 101:
            self._finish()

    @property
    def body(self) -> ClientAnswer | None:
        """Pulls the body; ``None`` when there is none."""
        return None if self._decoder is None else self  # if it pointed at itself, the collector would have to come

    def take_over(self) -> ClientConnection:
        """The connection of a 101, for whoever speaks the new protocol on it. It never serves a request again."""
        connection, self._connection = self._connection, None
        assert connection is not None  # noqa: S101 - asked once, for an answer that nobody closed
        return connection

    def hand_on(self, taker: Taker) -> None:
        """While ``read`` waits, give what comes to ``taker`` where the body is open-ended by its type.

        For what it has no room, ``read`` gives; what it raises, ``read`` raises.
        """
        self._taker = taker

    async def read(self) -> bytes:
        """The next bytes of the body as they arrive, unless they were handed on; ``b""`` at the end.

        Raises:
            UpstreamUnreachable: the body broke off, or its framing is broken.
            UpstreamTimeout: nothing came for too long, or too little.
        """
        connection, decoder = self._connection, self._decoder
        if connection is None or decoder is None:
            return b""
        self._deadline = 0.0
        try:
            while True:
                payload = self._came
                if payload is not None:
                    self._came = None
                elif connection.buffer:
                    data, connection.buffer = connection.buffer, b""
                    payload = decoder.feed(data)
                elif connection.eof:
                    self._read_eof(connection, decoder)
                    return b""
                else:
                    now = connection.loop.time()
                    self._deadline = self._deadline or now + self._timeouts.body  # framing alone is no progress
                    await self._wait(connection, now)
                    continue
                if decoder.done:
                    connection.buffer = decoder.surplus + connection.buffer
                    self._finish()
                    return payload
                if payload:
                    self._received += len(payload)
                    return payload
        except BaseException as error:  # noqa: BLE001 - cancelled or not, the connection is in doubt; always raised on
            await self.close()
            raise self._explain(connection, error) from None

    async def _wait(self, connection: ClientConnection, now: float) -> None:
        if self._received and not self._paced:
            self._paced = True
            self._pace = self._make_pace()
            if self._pace is None and self._taker is not None:
                connection.taker = self._arrived
        pace = self._pace
        if pace is not None:
            pace.check(self._received)
        connection.read_deadline = self._deadline
        await connection.wait()
        connection.read_deadline = NEVER
        if self._failed is not None:
            raise self._failed
        if pace is not None:
            pace.waited(connection.loop.time() - now)

    def _make_pace(self) -> Pace | None:
        """What judges the rate of the body; ``None`` where it is open-ended by its type."""
        timeouts = self._timeouts
        window = window_for(dict(self.headers), timeouts.window, declared=self.length is not None)
        return Pace(timeouts.rate, window, self._received) if window != NEVER else None

    def _arrived(self) -> bool:
        """Bytes came for ``read``, which waits. Whether they were handed on, so that it may go on waiting."""
        connection, decoder, taker = self._connection, self._decoder, self._taker
        if connection is None or decoder is None or taker is None:
            return False
        data, connection.buffer = connection.buffer, b""
        try:
            payload = decoder.feed(data)
            if payload and not decoder.done and taker.has_room(len(payload)):
                taker.take(payload)
                self._received += len(payload)
                connection.read_deadline = self._deadline = connection.loop.time() + self._timeouts.body
                return True
            self._came = payload
        except Exception as error:  # noqa: BLE001 - raised by ``read``, where what comes of it is decided
            self._failed = error
        return False

    @property
    def trailers(self) -> Headers:
        """What followed the body, as far as a client may get it."""
        decoder = self._decoder
        return of_answer(decoder.trailers) if decoder is not None and decoder.trailers else []

    @property
    def ended(self) -> bool:
        """Whether the whole body has been read, or the answer was given up."""
        return self._connection is None

    def _read_eof(self, connection: ClientConnection, decoder: Decoder) -> None:
        cut = connection.failure is not None or (connection.tls is not None and not connection.tls.closed)
        if isinstance(decoder, CloseDecoder) and cut:
            raise Malformed("the connection was cut")  # RFC 9112 section 9.8: without close_notify it may be truncated
        decoder.feed_eof()
        self._finish()

    def _explain(self, connection: ClientConnection, error: BaseException) -> BaseException:
        if isinstance(error, TooSlow):
            return UpstreamTimeout("the upstream sends its answer too slowly", "try again, or set stream_rate down")
        if isinstance(error, TimeoutError):
            return UpstreamTimeout("the upstream stopped sending in the middle of its answer", LATER)
        if isinstance(error, Malformed):
            return connection._pump_error or UpstreamUnreachable(  # noqa: SLF001 - one unit with its connection
                f"the upstream's answer is incomplete or broken: {error.reason}", LATER
            )
        return error

    def _finish(self) -> None:
        connection, self._connection = self._connection, None
        self._taker = None
        if connection is None:
            return
        connection.taker = None
        pump_done = self._pump is None or (self._pump.done() and not self._pump.cancelled())
        if self._pump is not None and not self._pump.done():
            self._pump.cancel()
        connection.settle(clean=self._persistent and pump_done)

    async def close(self) -> None:
        """``abort``, for whoever awaits it."""
        self.abort()

    def abort(self) -> None:
        """Give up an answer that was not read to its end: its connection ends too. Harmless afterwards."""
        connection, self._connection = self._connection, None
        self._taker = None
        if self._pump is not None:
            self._pump.cancel()
        if connection is not None:
            connection.taker = None
            connection.read_deadline = NEVER
            connection.abort()

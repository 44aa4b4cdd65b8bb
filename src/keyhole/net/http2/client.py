"""The client's side of one connection of HTTP/2: several requests at once, each with an answer of its own (RFC 9113).

1. Frames are acted on as they arrive, in order. What is held of an answer that nobody reads is bounded by its window.
2. Every bound of ``Http2Limits`` holds for the upstream. What breaks a rule on one stream ends that stream where that
   is safe; what breaks one of the connection ends it, and with it every answer that is not complete.
3. Nothing is read while the upstream does not read us, so that what is answered by itself (PING, SETTINGS) cannot pile
   up. Nothing is pushed.
4. An upstream that is silent while it owes an answer is asked for a sign of life; one that gives none is gone.
5. An upstream that goes away finishes what it took; what it did not take says so (``Stale``), and nothing new is sent.
"""

from __future__ import annotations

from collections.abc import Callable

from keyhole.core.errors import UpstreamTimeout
from keyhole.core.message import Body, Headers, Message
from keyhole.net.http1.client import Timeouts
from keyhole.net.http1.limits import WireLimits
from keyhole.net.http1.wire import NEVER, Wire, WireGroup
from keyhole.net.http2 import frames
from keyhole.net.http2.exchange import Http2Answer
from keyhole.net.http2.frames import ConnectionFault
from keyhole.net.http2.limits import Http2Limits
from keyhole.net.http2.receiving import Receiving
from keyhole.net.http2.requests import NotTaken, encode_request, encode_trailers

_EXPECTS_BODY = frozenset({"POST", "PUT", "PATCH"})
_LAST_STREAM = 2**31 - 1


class Http2Connection(Receiving):
    """One connection to an origin.

    Args:
        group: shared by the connections of a pool.
        authority: of every request.
        wire: bounds on answers.
        http2: bounds on the upstream's frames.
        on_free: called when the last of its requests has ended and it may be used again.
        on_lost: called once when the connection is gone.

    Attributes:
        born: loop time of its making.
        reserved: requests that are about to be sent on it.
    """

    def __init__(
        self,
        group: WireGroup,
        authority: bytes,
        wire: WireLimits,
        http2: Http2Limits,
        *,
        on_free: Callable[[Http2Connection], None],
        on_lost: Callable[[Http2Connection], None],
    ) -> None:
        super().__init__(group, wire, http2)
        self.reserved = 0
        self.born = self.loop.time()
        self._authority = authority
        self._heard = self._asked = self.born
        self._on_free = on_free
        self._on_lost = on_lost

    # The connection's life.

    def begin(self, before: Wire) -> None:
        """Take a connection over, TLS and all, and send the preface."""
        transport = before.transport
        self.tls = before.tls
        self.connection_made(transport)
        transport.set_protocol(self)
        limits = self.limits
        self.write(
            frames.PREFACE
            + frames.settings_frame(
                (
                    (frames.HEADER_TABLE_SIZE, limits.table_bytes),
                    (frames.ENABLE_PUSH, 0),
                    (frames.MAX_CONCURRENT_STREAMS, 0),
                    (frames.INITIAL_WINDOW_SIZE, limits.stream_window),
                    (frames.MAX_FRAME_SIZE, limits.frame_bytes),
                    (frames.MAX_HEADER_LIST_SIZE, limits.header_list_bytes),
                )
            )
            + frames.window_update(0, limits.connection_window - frames.START_WINDOW)
        )
        self.buffer, before.buffer = before.buffer, b""
        if self.buffer:
            self.unawaited()

    @property
    def open(self) -> int:
        """Requests under way, and those that are about to be sent."""
        return len(self._streams) + self.reserved

    @property
    def alive(self) -> bool:
        """Whether a request that was reserved for can be sent on it."""
        return not (self.leaving or self.eof or self.lost or self.transport.is_closing())

    @property
    def usable(self) -> bool:
        """Whether it takes one more request now."""
        return self.alive and self.open < self._most

    def unawaited(self) -> None:
        """Act on what has arrived."""
        self._heard = self.loop.time()
        try:
            self.buffer = self._read_frames(self.buffer)
        except ConnectionFault as fault:
            self._fail(fault)
        if self._write_paused and not self._paused and not self.transport.is_closing():
            self._paused = True
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        """The upstream has caught up."""
        super().resume_writing()
        if self._paused and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()
        self._grew()

    def input_ended(self) -> None:
        """The upstream ended its side: nothing that is missing will come."""
        super().input_ended()
        self.loop.call_soon(self._read_out)  # what came with the end is acted on first

    def _read_out(self) -> None:
        self._end_streams("the connection was closed")
        self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody."""
        super().connection_lost(exc)
        self._end_streams("the connection broke")
        self._on_lost(self)

    def expire(self, now: float) -> None:
        """Streams that have waited too long, and a connection that is idle for too long."""
        if now > self.read_deadline and not self._streams:
            self.leave()
        self.read_deadline = NEVER
        if self._streams and self.limits.ping:
            self._ask_for_life(now)
        for stream in list(self._streams.values()):
            stream.expire(now)
            self.read_deadline = min(self.read_deadline, stream.read_deadline, stream.write_deadline)
        super().expire(now)

    def _ask_for_life(self, now: float) -> None:
        """Ping an upstream that has been silent for long; end the connection when it does not answer."""
        limits = self.limits
        if self._asked <= self._heard:
            if now < self.at(self._heard + limits.ping):
                return
            self._asked = now
            self.write(frames.frame(frames.PING, 0, 0, bytes(8)))
        if now < self.at(self._asked + limits.ping_timeout):
            return
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.fail(UpstreamTimeout("the upstream has gone silent: it answers no ping", "try again later"))
        self.leaving = True
        self.abort()

    def leave(self) -> None:
        """Take no further requests, and close when those under way have ended."""
        self.leaving = True
        if not self.open:
            if not (self.lost or self.transport.is_closing()):
                self.write(frames.goaway(0, frames.NO_ERROR))
            self.close()

    def doubt(self) -> None:
        """An upstream that is silent for too long gets no further requests on this connection."""
        self.leave()

    def _fail(self, fault: ConnectionFault) -> None:
        self.leaving = True
        for stream in list(self._streams.values()):
            stream.malformed(fault)
        self._streams.clear()
        self.write(frames.goaway(0, fault.fault))
        self.buffer = b""
        self.close()

    def _end_streams(self, reason: str) -> None:
        self.leaving = True
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.lost(reason)

    # Requests.

    async def exchange(
        self, message: Message, body: Body | None, first: bytes | None, timeouts: Timeouts
    ) -> Http2Answer:
        """Send one request and wait for the head of its final answer. A reservation is used up.

        Args:
            message: the head; its host must be this connection's.
            body: what follows ``first``; ``None`` when the request has no body.
            first: the first chunk of the body; ``None`` to send the head without waiting for it.
            timeouts: how long to wait.

        Raises:
            NotTaken, Stale: the upstream did not take the request.
            UpstreamUnreachable: it broke off, or its answer cannot be read in exactly one way.
            UpstreamTimeout: it did not answer in time.
            KeyholeError: whatever reading ``body`` raised.
        """
        self.reserved -= 1
        length = 0 if body is None and message.method in _EXPECTS_BODY else None if body is None else body.length
        block = encode_request(message, self._authority, length)
        if self.leaving or self.eof or self.lost:
            raise NotTaken("the upstream closed the connection")
        if not self._streams:
            self._heard = self.loop.time()  # its silence counts from here on
            self.until(self.limits.ping or NEVER)
        number = self._next
        self._next += 2
        self.leaving = number >= min(2 * self.limits.requests, _LAST_STREAM)
        stream = self._streams[number] = Http2Answer(self, number, message, timeouts)
        self._noise.earn(self.limits.noise_for_data)
        try:
            stream.begin(block, body, first, length)
            await stream.head()
        except NotTaken:
            stream.abort()
            await stream.stopped()  # its body may be read by another
            raise
        except BaseException:
            stream.abort()
            raise
        return stream

    # What streams call.

    def room(self, stream: Http2Answer) -> int:
        """Bytes that a stream may send now in one frame."""
        return 0 if self._write_paused else min(stream.window, self.window, self.frame_bytes)

    def send_end(self, number: int, trailers: Headers) -> None:
        """End a request, with what follows its body."""
        if trailers:
            block = encode_trailers(trailers)
            self.write(frames.header_frames(number, block, self.frame_bytes, end=True))
        else:
            self.write(frames.frame(frames.DATA, frames.END_STREAM, number))

    def reset_stream(self, stream: Http2Answer, code: int) -> None:
        """End a stream before its time. Does nothing for one that has ended."""
        if self._streams.pop(stream.number, None) is None:
            return
        self.write(frames.rst_stream(stream.number, code))
        if not stream.complete:
            self._abandon(stream.number)
        self._freed()

    def forget(self, stream: Http2Answer) -> None:
        """Both sides of a stream have ended."""
        if self._streams.pop(stream.number, None) is not None:
            self.used += 1
            self._freed()

    def until(self, seconds: float) -> float:
        """The loop time when so many seconds have passed; then deadlines are looked at."""
        return self.at(self.loop.time() + seconds)

    def at(self, deadline: float) -> float:
        """Look at deadlines at this loop time, which is given back."""
        self.read_deadline = min(self.read_deadline, deadline)
        return deadline

    def release(self) -> None:
        """A reservation is not used."""
        self.reserved -= 1
        self._freed()

    def _freed(self) -> None:
        if self.open:
            return
        if self.leaving:
            self.leave()
        else:
            self._on_free(self)

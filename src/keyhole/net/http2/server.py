"""The server's side of a connection of HTTP/2: many requests at once, each on a task, all within bounds.

Frames are read by one task and acted on as they stand, in order. It reads no further while the client does not read
what is sent, so that nothing that is answered by itself (PING, SETTINGS, resets) can pile up. A request whose stream is
reset before the loop comes to it costs nothing but its frames; one that has begun counts as open until its work has
ended (CVE-2023-44487, CVE-2025-8671).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from keyhole.core.errors import fault_place
from keyhole.core.message import Headers
from keyhole.net.http1.grammar import Malformed
from keyhole.net.http1.limits import ListenerLimits
from keyhole.net.http1.wire import NEVER, Wire
from keyhole.net.http2 import frames
from keyhole.net.http2.frames import ConnectionFault
from keyhole.net.http2.head import read_request
from keyhole.net.http2.intake import Intake
from keyhole.net.http2.stream import ServerStream

_log = logging.getLogger("keyhole.net")

_SECTIONS = 4  # header sections that are read of one client before it is another's turn
Serve = Callable[[ServerStream], Awaitable[None]]


class Hall(Protocol):
    """What counts the requests of all connections of a listener."""

    def admit_stream(self) -> bool:
        """Whether there is room for one more; then it is counted."""

    def forget_stream(self) -> None:
        """One has ended."""


class ServerSession(Intake):
    """One connection.

    Args:
        wire: the client's connection, at the start of the preface.
        listener: bounds on the client.
        serve: answers the request of a stream; its task is cancelled when the client takes the request back.
        hall: counts the requests of the listener.
        in_turn: waits while it is others' turn, when many requests have come at once.
    """

    def __init__(
        self,
        wire: Wire,
        listener: ListenerLimits,
        serve: Serve,
        hall: Hall,
        in_turn: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(listener, wire.loop)
        self._in_turn = in_turn
        self._wire = wire
        self._serve = serve
        self._hall = hall
        self.body_timeout = listener.body_timeout
        self.write_timeout = listener.write_timeout
        self._since = wire.loop.time()
        self._count = 0
        self._away = False
        self._draining = asyncio.Lock()

    # The connection's life.

    async def run(self) -> None:
        """Serve until the client leaves, stays silent, or breaks a rule.

        Raises:
            ConnectionFault: it broke one; it was told so.
        """
        self._greet()
        try:
            await self._read_on()
        except ConnectionFault as fault:
            self.write(frames.goaway(self._last, fault.fault))
            raise
        finally:
            self._away = True
            await self._end_streams()

    def leave(self) -> None:
        """Take no further requests, and end when those that are open have ended."""
        if not self._away:
            self._away = True
            self.write(frames.goaway(self._last, frames.NO_ERROR))
            self._wire.wake()

    def _greet(self) -> None:
        limits = self.limits
        self.write(
            frames.settings_frame(
                (
                    (frames.HEADER_TABLE_SIZE, limits.table_bytes),
                    (frames.MAX_CONCURRENT_STREAMS, limits.streams),
                    (frames.INITIAL_WINDOW_SIZE, limits.stream_window),
                    (frames.MAX_FRAME_SIZE, limits.frame_bytes),
                    (frames.MAX_HEADER_LIST_SIZE, limits.header_list_bytes),
                    (frames.ENABLE_CONNECT_PROTOCOL, 1),
                )
            )
            + frames.window_update(0, limits.connection_window - frames.START_WINDOW)
        )

    async def _read_on(self) -> None:
        wire = self._wire
        preface = len(frames.PREFACE)
        while True:
            if preface and len(wire.buffer) >= preface:
                if not wire.buffer.startswith(frames.PREFACE):
                    raise ConnectionFault("the connection does not begin with the preface of HTTP/2")
                wire.buffer = wire.buffer[preface:]
                preface = 0
            if not preface:
                wire.buffer = self._read_frames(wire.buffer, _SECTIONS)
            if wire.clogged:
                await self.drained()
            if self.behind:
                await self._in_turn()
                continue
            if wire.eof or (self._away and not self._streams):
                await self._rest()
                return
            wire.read_deadline = self._deadline()
            try:
                await wire.wait()
            except TimeoutError:
                self._late()
                return
            finally:
                wire.read_deadline = NEVER

    async def _rest(self) -> None:
        """The client sends no more: what it has asked is answered."""
        for stream in self._streams.values():
            if self._wire.eof:
                stream.break_off()
        while tasks := [stream.task for stream in self._streams.values() if stream.task is not None]:
            await asyncio.wait(tasks)

    def _deadline(self) -> float:
        if self._section is not None:
            return self._section.since + self._listener.head_timeout
        if not self._greeted:
            return self._since + self._listener.head_timeout
        if self._streams:
            return NEVER
        return self.loop.time() + self._listener.idle_timeout

    def _late(self) -> None:
        """A deadline has passed."""
        if self._section is not None or not self._greeted:
            raise ConnectionFault("a header section or the settings did not arrive in time")
        self.leave()

    async def _end_streams(self) -> None:
        tasks = [stream.task for stream in self._streams.values() if stream.task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # What streams call.

    @property
    def clogged(self) -> bool:
        """Whether the client reads so slowly that nothing more should be written."""
        return self._wire.clogged

    def write(self, data: bytes) -> None:
        """Send frames at the end of this step of the loop."""
        self._wire.write(data)

    async def drained(self) -> None:
        """Return once the client has read enough of what was written. A client that does not is cut off."""
        wire = self._wire
        async with self._draining:
            if not wire.clogged:
                return
            wire.write_deadline = self.loop.time() + self.write_timeout
            try:
                await wire.drain()
            except TimeoutError:
                wire.abort()
                raise
            finally:
                wire.write_deadline = NEVER

    # Streams.

    def _open(self, number: int, fields: Headers, *, ends: bool) -> None:
        self._last = number
        self._count += 1
        if self._away or len(self._streams) >= self.limits.streams or not self._hall.admit_stream():
            if not ends:
                self._abandon(number)
            if not self._away:
                self.blame()
                self.write(frames.rst_stream(number, frames.REFUSED_STREAM))
            return
        self._noise.earn(self.limits.noise_for_data)
        stream = self._streams[number] = self._stream(number, fields)
        stream.task = self.loop.create_task(self._serve_stream(stream))
        stream.task.add_done_callback(lambda _: self._close(stream))
        if ends:
            stream.end_input()
        if self._count >= self.limits.requests:
            self.leave()
        if stream.head is None:
            self.blame()

    def _stream(self, number: int, fields: Headers) -> ServerStream:
        try:
            return ServerStream(self, number, read_request(fields, self._listener.wire), None)
        except Malformed as error:
            return ServerStream(self, number, None, error)

    async def _serve_stream(self, stream: ServerStream) -> None:
        try:
            await self._serve(stream)
        except (OSError, TimeoutError):  # the client does not read, or is gone
            stream.reset(frames.CANCEL)
        except Exception as error:  # noqa: BLE001 - a fault of ours ends this stream only, and is logged
            _log.error("internal error: %s", fault_place(error))
            stream.reset(frames.INTERNAL_ERROR)

    def _close(self, stream: ServerStream) -> None:
        """The work on a stream has ended."""
        stream.flush()
        if not stream.over:
            stream.reset(frames.CANCEL)
        if not (stream.ended or stream.reset_by_peer):
            if not stream.reset_by_us:  # answered early: the rest is not wanted (RFC 9113 section 8.1)
                self.write(frames.rst_stream(stream.number, frames.NO_ERROR))
            self._abandon(stream.number)
        stream.let_go()
        del self._streams[stream.number]
        self._hall.forget_stream()
        if not self._streams:
            if self._away:
                self._wire.wake()
            elif self._section is None:
                self._wire.read_deadline = self.loop.time() + self._listener.idle_timeout

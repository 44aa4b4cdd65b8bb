"""What a client of HTTP/2 sends, frame by frame, each judged and acted on as it stands and in order.

No task and no socket: bytes go in, streams change, and what has to be said goes to ``write``.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable

from keyhole.core.message import Headers
from keyhole.net.http1.grammar import Malformed
from keyhole.net.http1.limits import ListenerLimits
from keyhole.net.http2 import frames
from keyhole.net.http2.budget import Budget
from keyhole.net.http2.fields import FieldDecoder
from keyhole.net.http2.frames import ConnectionFault
from keyhole.net.http2.head import check_trailers
from keyhole.net.http2.stream import ServerStream

_ABANDONED = 1024  # streams that we ended before the client, of which we remember that its frames may still come


class _Section:
    """A header section of which frames are missing."""

    __slots__ = ("block", "end", "frames", "since", "stream")

    def __init__(self, stream: int, block: bytes, since: float, *, end: bool) -> None:
        self.stream = stream
        self.block = bytearray(block)
        self.end = end
        self.frames = 0
        self.since = since


class Intake(ABC):
    """The state of a connection that frames of its client change.

    Args:
        listener: bounds on the client.
        loop: tells the time.

    Attributes:
        window: bytes that the client will take, on all streams together.
        start_window: the same on a new stream.
        frame_bytes: payload of one frame that it will take.
        waiting: streams whose answers wait for room.
    """

    def __init__(self, listener: ListenerLimits, loop: asyncio.AbstractEventLoop) -> None:
        limits = listener.http2
        now = loop.time()
        self.loop = loop
        self.limits = limits
        self.window = self.start_window = frames.START_WINDOW
        self.frame_bytes = frames.START_FRAME
        self.waiting: dict[int, ServerStream] = {}
        self._listener = listener
        self._streams: dict[int, ServerStream] = {}
        self._abandoned: OrderedDict[int, None] = OrderedDict()
        self._last = 0
        self._fields = FieldDecoder(limits)
        self._section: _Section | None = None
        self._in_window = limits.connection_window
        self._unreturned = 0
        self._resets = Budget(limits.resets, limits.resets_rate, now)
        self._noise = Budget(limits.noise, limits.noise_rate, now)
        self._greeted = False
        self._handlers: dict[int, Callable[[int, int, bytes], None]] = {
            frames.DATA: self._data,
            frames.HEADERS: self._headers,
            frames.PRIORITY: self._priority,
            frames.RST_STREAM: self._rst_stream,
            frames.SETTINGS: self._settings,
            frames.PUSH_PROMISE: self._push_promise,
            frames.PING: self._ping,
            frames.GOAWAY: self._goaway,
            frames.WINDOW_UPDATE: self._window_update,
            frames.CONTINUATION: self._continuation,
        }

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Send frames at the end of this step of the loop."""

    @abstractmethod
    def leave(self) -> None:
        """Take no further requests, and end when those that are open have ended."""

    @abstractmethod
    def _open(self, number: int, fields: Headers, *, ends: bool) -> None:
        """A request begins."""

    # What streams call.

    def sent(self, size: int) -> None:
        """So many bytes of payload were sent."""
        self.window -= size
        if size:
            self._noise.earn(self.limits.noise_for_data)

    def credit(self, size: int) -> None:
        """So many bytes are no longer held: let the client send as many more, once that is worth a frame."""
        self._unreturned += size
        if 2 * self._unreturned >= self.limits.connection_window:
            self.write(frames.window_update(0, self._unreturned))
            self._in_window += self._unreturned
            self._unreturned = 0

    def blame(self) -> None:
        """The client made a stream end before its time."""
        if not self._resets.spend(self.loop.time()):
            raise ConnectionFault("too many streams were reset or malformed", frames.ENHANCE_YOUR_CALM)

    # Frames.

    def _read_frames(self, data: bytes) -> bytes:
        """Act on all frames that are complete; what is left of the data. Raises ``ConnectionFault``."""
        position, end = 0, len(data)
        while end - position >= frames.HEADER:
            size, kind, flags, stream = frames.read_header(data, position)
            if size > self.limits.frame_bytes:
                raise ConnectionFault("a frame is larger than was allowed", frames.FRAME_SIZE_ERROR)
            if not self._greeted and (kind != frames.SETTINGS or flags & frames.ACK):
                raise ConnectionFault("the first frame is not SETTINGS")
            stop = position + frames.HEADER + size
            if stop > end:
                break
            if self._section is not None and kind != frames.CONTINUATION:
                raise ConnectionFault("a frame within a header section")
            handler = self._handlers.get(kind)
            if handler is None:
                self._make_noise()
            else:
                handler(flags, stream, data[position + frames.HEADER : stop])
            position = stop
        return data[position:]

    def _make_noise(self, cost: float = 1.0) -> None:
        if not self._noise.spend(self.loop.time(), cost):
            raise ConnectionFault("too many frames that carry nothing", frames.ENHANCE_YOUR_CALM)

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._in_window -= size
        if self._in_window < 0:
            raise ConnectionFault("more was sent than the window allows", frames.FLOW_CONTROL_ERROR)
        data = frames.unpadded(flags & ~frames.WITH_PRIORITY, payload)
        ends = bool(flags & frames.END_STREAM)
        stream = self._streams.get(number)
        if stream is None or stream.over:
            self._stray(number, ends=ends)
            self.credit(size)
            return
        if stream.ended:
            raise ConnectionFault("DATA on a stream that its client has ended", frames.STREAM_CLOSED)
        if data:
            self._noise.earn(self.limits.noise_for_data)
        elif not ends:
            self._make_noise()
        stream.arrived(data, size)
        if ends:
            stream.end_input()

    def _stray(self, number: int, *, ends: bool) -> None:
        """DATA or trailers on a stream that is closed: a client may not know it yet if it was we who closed it."""
        stream = self._streams.get(number)
        if stream is not None and not stream.reset_by_peer:
            stream.ended = stream.ended or ends
        elif number not in self._abandoned:
            fault = frames.STREAM_CLOSED if 0 < number <= self._last else frames.PROTOCOL_ERROR
            raise ConnectionFault("a frame on a stream that is not open", fault)
        elif ends:
            del self._abandoned[number]
        self._make_noise()

    def _headers(self, flags: int, number: int, payload: bytes) -> None:
        if not number % 2:
            raise ConnectionFault("HEADERS on a stream that no client may open")
        block = frames.unpadded(flags, payload)
        self._section = _Section(number, block, self.loop.time(), end=bool(flags & frames.END_STREAM))
        if flags & frames.END_HEADERS:
            self._end_section()

    def _continuation(self, flags: int, number: int, payload: bytes) -> None:
        section = self._section
        if section is None or section.stream != number:
            raise ConnectionFault("a CONTINUATION of nothing")
        section.frames += 1
        section.block += payload
        most = self.limits
        if section.frames > most.continuations or len(section.block) > most.header_block_bytes:
            raise ConnectionFault("the header section is too large", frames.ENHANCE_YOUR_CALM)
        if flags & frames.END_HEADERS:
            self._end_section()

    def _end_section(self) -> None:
        section, self._section = self._section, None
        if section is None:
            return
        fields = self._fields.decode(bytes(section.block))
        number = section.stream
        if number > self._last:
            self._open(number, fields, ends=section.end)
            return
        stream = self._streams.get(number)
        if stream is None or stream.over:
            self._stray(number, ends=section.end)
        elif stream.ended:
            raise ConnectionFault("HEADERS on a stream that its client has ended", frames.STREAM_CLOSED)
        else:
            self._take_trailers(stream, fields, ends=section.end)

    def _take_trailers(self, stream: ServerStream, fields: Headers, *, ends: bool) -> None:
        try:
            check_trailers(fields, self._listener.wire, last=ends)
        except Malformed as error:
            stream.fail(error)
            fields = []
        if ends:
            stream.end_input(fields)

    def _priority(self, _flags: int, _number: int, payload: bytes) -> None:
        if len(payload) != 5:
            raise ConnectionFault("a PRIORITY frame has a wrong length", frames.FRAME_SIZE_ERROR)
        self._make_noise()

    def _rst_stream(self, _flags: int, number: int, payload: bytes) -> None:
        frames.read_long(payload)
        if not number or number > self._last:
            raise ConnectionFault("RST_STREAM on a stream that is not open")
        stream = self._streams.get(number)
        if stream is None or stream.over:
            self._abandoned.pop(number, None)
            if stream is not None:
                stream.ended = True
            self._make_noise()
            return
        self.blame()
        stream.cancel()

    def _settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ConnectionFault("SETTINGS on a stream")
        if flags & frames.ACK:
            if payload:
                raise ConnectionFault("a SETTINGS frame has a wrong length", frames.FRAME_SIZE_ERROR)
            self._fields.settled()
            self._make_noise()
            return
        if self._greeted:
            self._make_noise(self.limits.settings_cost)
        self._greeted = True
        for name, value in frames.read_settings(payload):
            if name == frames.MAX_FRAME_SIZE:
                self.frame_bytes = min(value, self.limits.frame_bytes)
            elif name == frames.INITIAL_WINDOW_SIZE:
                self._resize(value - self.start_window)
                self.start_window = value
        self.write(frames.frame(frames.SETTINGS, frames.ACK, 0))

    def _resize(self, change: int) -> None:
        for stream in self._streams.values():
            stream.window += change
            if stream.window > frames.MAX_WINDOW:
                raise ConnectionFault("a window is too large", frames.FLOW_CONTROL_ERROR)
            if change > 0:
                stream.grew()

    def _push_promise(self, _flags: int, _number: int, _payload: bytes) -> None:
        raise ConnectionFault("PUSH_PROMISE from a client")

    def _ping(self, flags: int, number: int, payload: bytes) -> None:
        if number or len(payload) != 8:
            raise ConnectionFault("a PING frame has a wrong length, or a stream", frames.FRAME_SIZE_ERROR)
        self._make_noise()
        if not flags & frames.ACK:
            self.write(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _goaway(self, _flags: int, number: int, _payload: bytes) -> None:
        if number:
            raise ConnectionFault("GOAWAY on a stream")
        self._make_noise()
        self.leave()

    def _window_update(self, _flags: int, number: int, payload: bytes) -> None:
        increment = frames.read_long(payload)
        if not increment or number > self._last:
            raise ConnectionFault("a window update of nothing, or of a stream that is not open")
        if increment < self.limits.window_step:
            self._make_noise()
        if not number:
            self.window = _grown(self.window, increment)
            for waiting in list(self.waiting.values()):
                waiting.grew()
            return
        stream = self._streams.get(number)
        if stream is None:
            self._make_noise()
            return
        stream.window = _grown(stream.window, increment)
        stream.grew()

    def _abandon(self, number: int) -> None:
        self._abandoned[number] = None
        if len(self._abandoned) > _ABANDONED:
            self._abandoned.popitem(last=False)


def _grown(window: int, increment: int) -> int:
    if window + increment > frames.MAX_WINDOW:
        raise ConnectionFault("a window is too large", frames.FLOW_CONTROL_ERROR)
    return window + increment

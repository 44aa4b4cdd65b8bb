"""Frames of a peer, one by one, each judged and acted on as it stands and in order: what both sides have in common.

No task and no socket: bytes go in, streams change, and what has to be said goes to ``write``.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from keyhole.core.message import Headers
from keyhole.net.http2 import frames
from keyhole.net.http2.budget import Budget
from keyhole.net.http2.fields import FieldDecoder
from keyhole.net.http2.frames import ConnectionFault
from keyhole.net.http2.limits import Http2Limits

_ABANDONED = 1024  # streams that we ended before the peer, of which we remember that its frames may still come


class Windowed(Protocol):
    """A stream, as far as its connection's frames change it.

    Attributes:
        window: bytes that the peer will take on it.
    """

    window: int

    def grew(self) -> None:
        """There may be room to send."""


StreamT = TypeVar("StreamT", bound=Windowed)


class Section:
    """A header section.

    Attributes:
        stream: its number.
        block: compressed, as far as it has come.
        end: the stream ends with it.
        frames: CONTINUATIONs.
        since: loop time of its first frame.
    """

    __slots__ = ("block", "end", "frames", "since", "stream")

    def __init__(self, stream: int, block: bytes, since: float, *, end: bool) -> None:
        self.stream = stream
        self.block = bytearray(block)
        self.end = end
        self.frames = 0
        self.since = since


class FrameReader(Generic[StreamT]):
    """The state of a connection that frames of the peer change.

    Attributes:
        limits: bounds on the peer.
        window: bytes that the peer will take, on all streams together.
        start_window: the same on a new stream.
        frame_bytes: payload of one frame that it will take.
        waiting: streams that wait for room to send.
        behind: more has come than was read.
    """

    loop: asyncio.AbstractEventLoop

    def start_reading(self, limits: Http2Limits) -> None:
        """Begin before the first frame."""
        now = self.loop.time()
        self.limits = limits
        self.window = self.start_window = frames.START_WINDOW
        self.frame_bytes = frames.START_FRAME
        self.waiting: dict[int, StreamT] = {}
        self._streams: dict[int, StreamT] = {}
        self._abandoned: OrderedDict[int, None] = OrderedDict()
        self._fields = FieldDecoder(limits)
        self._section: Section | None = None
        self._in_window = limits.connection_window
        self._unreturned = 0
        self._resets = Budget(limits.resets, limits.resets_rate, now)
        self._noise = Budget(limits.noise, limits.noise_rate, now)
        self._greeted = self.behind = False
        self._left = 0  # header sections that may be read now
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

    # What a side does in its own way.

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Send frames at the end of this step of the loop."""

    @abstractmethod
    def _was_opened(self, number: int) -> bool:
        """Whether a stream of this number is open or was."""

    @abstractmethod
    def _payload(self, number: int, data: bytes, size: int, *, ends: bool) -> None:
        """DATA came, in a frame that counts for so many bytes of the windows."""

    @abstractmethod
    def _fields_came(self, number: int, fields: Headers, *, ends: bool) -> None:
        """A whole header section came."""

    @abstractmethod
    def _reset(self, number: int, code: int) -> None:
        """The peer ended a stream before its time."""

    @abstractmethod
    def _goaway(self, flags: int, number: int, payload: bytes) -> None:
        """The peer goes away."""

    def _setting(self, name: int, value: int) -> None:
        """A setting that means something to one side alone."""

    # What both sides do.

    def sent(self, size: int) -> None:
        """So many bytes of payload were sent."""
        self.window -= size
        if size:
            self._noise.earn(self.limits.noise_for_data)

    def credit(self, size: int) -> None:
        """So many bytes are no longer held: let the peer send as many more, once that is worth a frame."""
        self._unreturned += size
        if 2 * self._unreturned >= self.limits.connection_window:
            self.write(frames.window_update(0, self._unreturned))
            self._in_window += self._unreturned
            self._unreturned = 0

    def blame(self) -> None:
        """The peer made a stream end before its time."""
        if not self._resets.spend(self.loop.time()):
            raise ConnectionFault("too many streams were reset or malformed", frames.ENHANCE_YOUR_CALM)

    def _make_noise(self, cost: float = 1.0) -> None:
        if not self._noise.spend(self.loop.time(), cost):
            raise ConnectionFault("too many frames that carry nothing", frames.ENHANCE_YOUR_CALM)

    def _abandon(self, number: int) -> None:
        """We end a stream before the peer does, whose frames may still come."""
        self._abandoned[number] = None
        if len(self._abandoned) > _ABANDONED:
            self._abandoned.popitem(last=False)

    def _stray(self, number: int, *, ends: bool) -> None:
        """DATA or fields on a stream that is closed: the peer may not know it yet if it was we who closed it."""
        if number not in self._abandoned:
            fault = frames.STREAM_CLOSED if self._was_opened(number) else frames.PROTOCOL_ERROR
            raise ConnectionFault("a frame on a stream that is not open", fault)
        if ends:
            del self._abandoned[number]
        self._make_noise()

    def _read_frames(self, data: bytes, sections: int = 0) -> bytes:
        """Act on all frames that are complete; what is left of the data. Raises ``ConnectionFault``.

        Args:
            data: as it came.
            sections: header sections, after which ``behind`` is set and no more is read; 0 for any number.
        """
        position, end = 0, len(data)
        self.behind, self._left = False, sections
        while end - position >= frames.HEADER:
            if sections and not self._left:
                self.behind = True
                break
            size, kind, flags, number = frames.read_header(data, position)
            if not self._greeted and (kind != frames.SETTINGS or flags & frames.ACK):
                raise ConnectionFault("the peer does not speak HTTP/2: its first frame is not SETTINGS")
            if size > self.limits.frame_bytes:
                raise ConnectionFault("a frame is larger than was allowed", frames.FRAME_SIZE_ERROR)
            stop = position + frames.HEADER + size
            if stop > end:
                break
            if self._section is not None and kind != frames.CONTINUATION:
                raise ConnectionFault("a frame within a header section")
            handler = self._handlers.get(kind)
            if handler is None:
                self._make_noise()
            else:
                handler(flags, number, data[position + frames.HEADER : stop])
            position = stop
        return data[position:]

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._in_window -= size
        if self._in_window < 0:
            raise ConnectionFault("more was sent than the window allows", frames.FLOW_CONTROL_ERROR)
        data = frames.unpadded(flags & ~frames.WITH_PRIORITY, payload)
        self._payload(number, data, size, ends=bool(flags & frames.END_STREAM))

    def _weigh(self, data: bytes, *, ends: bool) -> None:
        """Payload earns what frames without any cost."""
        if data:
            self._noise.earn(self.limits.noise_for_data)
        elif not ends:
            self._make_noise()

    def _headers(self, flags: int, number: int, payload: bytes) -> None:
        if not number % 2:
            raise ConnectionFault("HEADERS on a stream that no client may open")
        block = frames.unpadded(flags, payload)
        self._section = Section(number, block, self.loop.time(), end=bool(flags & frames.END_STREAM))
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
        if section is not None:
            self._left -= 1
            self._fields_came(section.stream, self._fields.decode(bytes(section.block)), ends=section.end)

    def _priority(self, _flags: int, _number: int, payload: bytes) -> None:
        if len(payload) != 5:
            raise ConnectionFault("a PRIORITY frame has a wrong length", frames.FRAME_SIZE_ERROR)
        self._make_noise()

    def _rst_stream(self, _flags: int, number: int, payload: bytes) -> None:
        code = frames.read_long(payload)
        if not self._was_opened(number):
            raise ConnectionFault("RST_STREAM on a stream that is not open")
        self._reset(number, code)

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
            else:
                self._setting(name, value)
        self.write(frames.frame(frames.SETTINGS, frames.ACK, 0))

    def _resize(self, change: int) -> None:
        for stream in self._streams.values():
            stream.window += change
            if stream.window > frames.MAX_WINDOW:
                raise ConnectionFault("a window is too large", frames.FLOW_CONTROL_ERROR)
        if change > 0:
            self._grew()

    def _grew(self) -> None:
        for stream in list(self.waiting.values()):
            stream.grew()

    def _push_promise(self, _flags: int, _number: int, _payload: bytes) -> None:
        raise ConnectionFault("a push that was not asked for")

    def _ping(self, flags: int, number: int, payload: bytes) -> None:
        if number or len(payload) != 8:
            raise ConnectionFault("a PING frame has a wrong length, or a stream", frames.FRAME_SIZE_ERROR)
        self._make_noise()
        if not flags & frames.ACK:
            self.write(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _window_update(self, _flags: int, number: int, payload: bytes) -> None:
        increment = frames.read_long(payload)
        if not increment or (number and not self._was_opened(number)):
            raise ConnectionFault("a window update of nothing, or of a stream that is not open")
        if increment < self.limits.window_step:
            self._make_noise()
        if not number:
            self.window = _grown(self.window, increment)
            self._grew()
            return
        stream = self._streams.get(number)
        if stream is None:
            self._make_noise()
            return
        stream.window = _grown(stream.window, increment)
        stream.grew()


def _grown(window: int, increment: int) -> int:
    if window + increment > frames.MAX_WINDOW:
        raise ConnectionFault("a window is too large", frames.FLOW_CONTROL_ERROR)
    return window + increment

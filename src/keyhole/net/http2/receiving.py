"""What an upstream of HTTP/2 sends, frame by frame, each judged and acted on as it stands and in order."""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable

from keyhole.core.errors import KeyholeError
from keyhole.net.http1.client import Stale
from keyhole.net.http1.grammar import Malformed
from keyhole.net.http1.limits import WireLimits
from keyhole.net.http1.wire import Wire, WireGroup
from keyhole.net.http2 import frames
from keyhole.net.http2.budget import Budget
from keyhole.net.http2.exchange import Http2Answer
from keyhole.net.http2.fields import FieldDecoder
from keyhole.net.http2.frames import ConnectionFault
from keyhole.net.http2.limits import Http2Limits

ABANDONED = 1024  # streams that we ended before the upstream, of which we remember that its frames may still come


class _Section:
    """A header section of which frames are missing."""

    __slots__ = ("block", "end", "frames", "stream")

    def __init__(self, stream: int, block: bytes, *, end: bool) -> None:
        self.stream = stream
        self.block = bytearray(block)
        self.end = end
        self.frames = 0


class Receiving(Wire):
    """The state of a connection that frames of the upstream change.

    Args:
        group: shared by the connections of a pool.
        wire: bounds on answers.
        http2: bounds on the upstream's frames.

    Attributes:
        used: answers that came to their end.
        leaving: it takes no further requests.
        start_window: bytes that the upstream takes on a new stream.
        frame_bytes: payload of one frame that it takes.
        waiting: streams whose requests wait for room.
    """

    __slots__ = (
        "_abandoned",
        "_fields",
        "_greeted",
        "_handlers",
        "_in_window",
        "_most",
        "_next",
        "_noise",
        "_resets",
        "_section",
        "_streams",
        "_unreturned",
        "_window",
        "frame_bytes",
        "http2",
        "leaving",
        "start_window",
        "used",
        "waiting",
        "wire",
    )

    def __init__(self, group: WireGroup, wire: WireLimits, http2: Http2Limits) -> None:
        super().__init__(group)
        now = self.loop.time()
        self.wire = wire
        self.http2 = http2
        self.used = 0
        self.leaving = False
        self.start_window = frames.START_WINDOW
        self.frame_bytes = frames.START_FRAME
        self.waiting: dict[int, Http2Answer] = {}
        self._window = frames.START_WINDOW
        self._in_window = http2.connection_window
        self._unreturned = 0
        self._most = http2.streams
        self._next = 1
        self._streams: dict[int, Http2Answer] = {}
        self._abandoned: OrderedDict[int, None] = OrderedDict()
        self._fields = FieldDecoder(http2)
        self._section: _Section | None = None
        self._greeted = False
        self._noise = Budget(http2.noise, http2.noise_rate, now)
        self._resets = Budget(http2.resets, http2.resets_rate, now)
        self._handlers: dict[int, Callable[[int, int, bytes], None]] = {
            frames.DATA: self._take_data,
            frames.HEADERS: self._take_headers,
            frames.PRIORITY: self._take_priority,
            frames.RST_STREAM: self._take_rst_stream,
            frames.SETTINGS: self._take_settings,
            frames.PUSH_PROMISE: self._take_push_promise,
            frames.PING: self._take_ping,
            frames.GOAWAY: self._take_goaway,
            frames.WINDOW_UPDATE: self._take_window_update,
            frames.CONTINUATION: self._take_continuation,
        }

    @abstractmethod
    def reset_stream(self, stream: Http2Answer, code: int) -> None:
        """End a stream before its time. Does nothing for one that has ended."""

    @abstractmethod
    def _freed(self) -> None:
        """A request is no longer under way."""

    def _grew(self) -> None:
        for stream in list(self.waiting.values()):
            stream.grew()

    def _read_frames(self, data: bytes) -> bytes:
        """Act on all frames that are complete; what is left of the data. Raises ``ConnectionFault``."""
        position, end = 0, len(data)
        while end - position >= frames.HEADER:
            size, kind, flags, number = frames.read_header(data, position)
            if not self._greeted and (kind != frames.SETTINGS or flags & frames.ACK):
                raise ConnectionFault("the upstream does not speak HTTP/2")
            if size > self.http2.frame_bytes:
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

    def _make_noise(self, cost: float = 1.0) -> None:
        if not self._noise.spend(self.loop.time(), cost):
            raise ConnectionFault("too many frames that carry nothing", frames.ENHANCE_YOUR_CALM)

    def _blame(self) -> None:
        if not self._resets.spend(self.loop.time()):
            raise ConnectionFault("too many streams were reset or malformed", frames.ENHANCE_YOUR_CALM)

    def _take_data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._in_window -= size
        if self._in_window < 0:
            raise ConnectionFault("more was sent than the window allows", frames.FLOW_CONTROL_ERROR)
        self._credit(size)
        data = frames.unpadded(flags & ~frames.WITH_PRIORITY, payload)
        ends = bool(flags & frames.END_STREAM)
        stream = self._stream(number, ends=ends)
        if stream is None:
            return
        if data:
            self._noise.earn(self.http2.noise_for_data)
        elif not ends:
            self._make_noise()
        try:
            stream.arrived(data, size)
            if ends:
                stream.end()
        except Malformed as error:
            self._refuse(stream, error)

    def _credit(self, size: int) -> None:
        """The windows of the streams bound what is held; that of the connection is opened again at once."""
        self._unreturned += size
        if 2 * self._unreturned >= self.http2.connection_window:
            self.write(frames.window_update(0, self._unreturned))
            self._in_window += self._unreturned
            self._unreturned = 0

    def _stream(self, number: int, *, ends: bool) -> Http2Answer | None:
        """The stream of a frame; ``None`` for one that we ended, of which the upstream may not know yet."""
        stream = self._streams.get(number)
        if stream is not None:
            if stream.complete:
                raise ConnectionFault("a frame on a stream that the upstream has ended", frames.STREAM_CLOSED)
            return stream
        if number not in self._abandoned:
            fault = frames.PROTOCOL_ERROR if number >= self._next or not number % 2 else frames.STREAM_CLOSED
            raise ConnectionFault("a frame on a stream that is not open", fault)
        if ends:
            del self._abandoned[number]
        self._make_noise()
        return None

    def _refuse(self, stream: Http2Answer, error: KeyholeError) -> None:
        """What came on a stream is no answer; the others may go on."""
        stream.malformed(error)
        self.reset_stream(stream, frames.PROTOCOL_ERROR)
        self._blame()

    def _take_headers(self, flags: int, number: int, payload: bytes) -> None:
        block = frames.unpadded(flags, payload)
        self._section = _Section(number, block, end=bool(flags & frames.END_STREAM))
        if flags & frames.END_HEADERS:
            self._end_section()

    def _take_continuation(self, flags: int, number: int, payload: bytes) -> None:
        section = self._section
        if section is None or section.stream != number:
            raise ConnectionFault("a CONTINUATION of nothing")
        section.frames += 1
        section.block += payload
        most = self.http2
        if section.frames > most.continuations or len(section.block) > most.header_block_bytes:
            raise ConnectionFault("the header section is too large", frames.ENHANCE_YOUR_CALM)
        if flags & frames.END_HEADERS:
            self._end_section()

    def _end_section(self) -> None:
        section, self._section = self._section, None
        if section is None:
            return
        fields = self._fields.decode(bytes(section.block))
        stream = self._stream(section.stream, ends=section.end)
        if stream is None:
            return
        try:
            stream.section(fields, ends=section.end)
        except Malformed as error:
            self._refuse(stream, error)

    def _take_priority(self, _flags: int, _number: int, payload: bytes) -> None:
        if len(payload) != 5:
            raise ConnectionFault("a PRIORITY frame has a wrong length", frames.FRAME_SIZE_ERROR)
        self._make_noise()

    def _take_rst_stream(self, _flags: int, number: int, payload: bytes) -> None:
        code = frames.read_long(payload)
        if not number % 2 or number >= self._next:
            raise ConnectionFault("RST_STREAM on a stream that is not open")
        stream = self._streams.pop(number, None)
        self._abandoned.pop(number, None)
        if stream is None:
            self._make_noise()
            return
        if stream.complete:  # an early answer: the rest of the request is not wanted (RFC 9113 section 8.1)
            stream.fail(Stale("the upstream has answered"))
            self.used += 1
        else:
            stream.was_reset(code)
            self._blame()
        self._freed()

    def _take_settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ConnectionFault("SETTINGS on a stream")
        if flags & frames.ACK:
            if payload:
                raise ConnectionFault("a SETTINGS frame has a wrong length", frames.FRAME_SIZE_ERROR)
            self._fields.settled()
            self._make_noise()
            return
        if self._greeted:
            self._make_noise(self.http2.settings_cost)
        self._greeted = True
        for name, value in frames.read_settings(payload):
            if name == frames.MAX_FRAME_SIZE:
                self.frame_bytes = min(value, self.http2.frame_bytes)
            elif name == frames.MAX_CONCURRENT_STREAMS:
                self._most = min(value, self.http2.streams)
            elif name == frames.ENABLE_PUSH and value:
                raise ConnectionFault("an upstream that asks for pushes")
            elif name == frames.INITIAL_WINDOW_SIZE:
                self._resize(value - self.start_window)
                self.start_window = value
        self.write(frames.frame(frames.SETTINGS, frames.ACK, 0))

    def _resize(self, change: int) -> None:
        for stream in self._streams.values():
            stream.window += change
            if stream.window > frames.MAX_WINDOW:
                raise ConnectionFault("a window is too large", frames.FLOW_CONTROL_ERROR)
        self._grew()

    def _take_push_promise(self, _flags: int, _number: int, _payload: bytes) -> None:
        raise ConnectionFault("a push that was not asked for")

    def _take_ping(self, flags: int, number: int, payload: bytes) -> None:
        if number or len(payload) != 8:
            raise ConnectionFault("a PING frame has a wrong length, or a stream", frames.FRAME_SIZE_ERROR)
        self._make_noise()
        if not flags & frames.ACK:
            self.write(frames.frame(frames.PING, frames.ACK, 0, payload))

    def _take_goaway(self, _flags: int, number: int, payload: bytes) -> None:
        if number or len(payload) < 8:
            raise ConnectionFault("a GOAWAY frame on a stream, or too short", frames.FRAME_SIZE_ERROR)
        self._make_noise()
        self.leaving = True
        last = frames.read_long(payload[:4])
        for stream in [stream for stream in self._streams.values() if stream.number > last]:
            del self._streams[stream.number]
            stream.was_reset(frames.REFUSED_STREAM)
        self._freed()

    def _take_window_update(self, _flags: int, number: int, payload: bytes) -> None:
        increment = frames.read_long(payload)
        if number >= self._next or (number and not number % 2):
            raise ConnectionFault("a window update of a stream that is not open")
        if increment < self.http2.window_step:
            self._make_noise()
        stream = self._streams.get(number)
        if number and stream is None:
            self._make_noise()
        elif stream is None:
            self._window = _grown(self._window, increment)
            self._grew()
        else:
            stream.window = _grown(stream.window, increment)
            stream.grew()


def _grown(window: int, increment: int) -> int:
    if not increment:
        raise ConnectionFault("a window update of nothing")
    if window + increment > frames.MAX_WINDOW:
        raise ConnectionFault("a window is too large", frames.FLOW_CONTROL_ERROR)
    return window + increment

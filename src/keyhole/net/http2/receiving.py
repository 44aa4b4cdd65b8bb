"""What an upstream of HTTP/2 sends, frame by frame: answers come, end, and are given up."""

from __future__ import annotations

from abc import abstractmethod

from keyhole.core.errors import KeyholeError
from keyhole.core.message import Headers
from keyhole.net.http1.client import Stale
from keyhole.net.http1.grammar import Malformed
from keyhole.net.http1.limits import WireLimits
from keyhole.net.http1.wire import Wire, WireGroup
from keyhole.net.http2 import frames
from keyhole.net.http2.exchange import Http2Answer
from keyhole.net.http2.frames import ConnectionFault
from keyhole.net.http2.limits import Http2Limits
from keyhole.net.http2.reading import FrameReader


class Receiving(Wire, FrameReader[Http2Answer]):
    """The state of a connection that frames of the upstream change.

    Args:
        group: shared by the connections of a pool.
        wire: bounds on answers.
        http2: bounds on the upstream's frames.

    Attributes:
        used: answers that came to their end.
        leaving: it takes no further requests.
    """

    def __init__(self, group: WireGroup, wire: WireLimits, http2: Http2Limits) -> None:
        super().__init__(group)
        self.wire = wire
        self.used = 0
        self.leaving = False
        self._most = http2.streams
        self._next = 1
        self.start_reading(http2)

    @abstractmethod
    def reset_stream(self, stream: Http2Answer, code: int) -> None:
        """End a stream before its time. Does nothing for one that has ended."""

    @abstractmethod
    def _freed(self) -> None:
        """A request is no longer under way."""

    def _was_opened(self, number: int) -> bool:
        return number % 2 == 1 and number < self._next

    def _payload(self, number: int, data: bytes, size: int, *, ends: bool) -> None:
        self.credit(size)  # the windows of the streams bound what is held; that of the connection opens again at once
        stream = self._stream(number, ends=ends)
        if stream is None:
            return
        self._weigh(data, ends=ends)
        try:
            stream.arrived(data, size)
            if ends:
                stream.end()
        except Malformed as error:
            self._refuse(stream, error)

    def _stream(self, number: int, *, ends: bool) -> Http2Answer | None:
        """The stream of a frame; ``None`` for one that we ended, of which the upstream may not know yet."""
        stream = self._streams.get(number)
        if stream is None:
            self._stray(number, ends=ends)
        elif stream.complete:
            raise ConnectionFault("a frame on a stream that the upstream has ended", frames.STREAM_CLOSED)
        return stream

    def _refuse(self, stream: Http2Answer, error: KeyholeError) -> None:
        """What came on a stream is no answer; the others may go on."""
        stream.malformed(error)
        self.reset_stream(stream, frames.PROTOCOL_ERROR)
        self.blame()

    def _fields_came(self, number: int, fields: Headers, *, ends: bool) -> None:
        stream = self._stream(number, ends=ends)
        if stream is None:
            return
        try:
            stream.section(fields, ends=ends)
        except Malformed as error:
            self._refuse(stream, error)

    def _reset(self, number: int, code: int) -> None:
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
            self.blame()
        self._freed()

    def _setting(self, name: int, value: int) -> None:
        if name == frames.MAX_CONCURRENT_STREAMS:
            self._most = min(value, self.limits.streams)
        elif name == frames.ENABLE_PUSH and value:
            raise ConnectionFault("an upstream that asks for pushes")

    def _goaway(self, _flags: int, number: int, payload: bytes) -> None:
        if number or len(payload) < 8:
            raise ConnectionFault("a GOAWAY frame on a stream, or too short", frames.FRAME_SIZE_ERROR)
        self._make_noise()
        self.leaving = True
        last = frames.read_long(payload[:4])
        for stream in [stream for stream in self._streams.values() if stream.number > last]:
            del self._streams[stream.number]
            stream.was_reset(frames.REFUSED_STREAM)
        self._freed()

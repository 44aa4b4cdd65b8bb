"""What a client of HTTP/2 sends, frame by frame: requests begin, go on and are taken back."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

from keyhole.core.message import Headers
from keyhole.net.http1.grammar import Malformed
from keyhole.net.http1.limits import ListenerLimits
from keyhole.net.http2 import frames
from keyhole.net.http2.frames import ConnectionFault
from keyhole.net.http2.head import check_trailers
from keyhole.net.http2.reading import FrameReader
from keyhole.net.http2.stream import ServerStream


class Intake(FrameReader[ServerStream], ABC):
    """The state of a connection that frames of its client change.

    Args:
        listener: bounds on the client.
        loop: tells the time.
    """

    def __init__(self, listener: ListenerLimits, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._listener = listener
        self._last = 0
        self.start_reading(listener.http2)

    @abstractmethod
    def leave(self) -> None:
        """Take no further requests, and end when those that are open have ended."""

    @abstractmethod
    def _open(self, number: int, fields: Headers, *, ends: bool) -> None:
        """A request begins."""

    def _was_opened(self, number: int) -> bool:
        return number % 2 == 1 and number <= self._last

    def _payload(self, number: int, data: bytes, size: int, *, ends: bool) -> None:
        stream = self._streams.get(number)
        if stream is None or stream.over:
            self._closed_by_us(number, stream, ends=ends)
            self.credit(size)
            return
        if stream.ended:
            raise ConnectionFault("DATA on a stream that its client has ended", frames.STREAM_CLOSED)
        self._weigh(data, ends=ends)
        stream.arrived(data, size)
        if ends:
            stream.end_input()

    def _closed_by_us(self, number: int, stream: ServerStream | None, *, ends: bool) -> None:
        """DATA or trailers after we have ended our side."""
        if stream is None or stream.reset_by_peer:
            self._stray(number, ends=ends)
            return
        stream.ended = stream.ended or ends
        self._make_noise()

    def _fields_came(self, number: int, fields: Headers, *, ends: bool) -> None:
        if number > self._last:
            self._open(number, fields, ends=ends)
            return
        stream = self._streams.get(number)
        if stream is None or stream.over:
            self._closed_by_us(number, stream, ends=ends)
        elif stream.ended:
            raise ConnectionFault("HEADERS on a stream that its client has ended", frames.STREAM_CLOSED)
        else:
            self._take_trailers(stream, fields, ends=ends)

    def _take_trailers(self, stream: ServerStream, fields: Headers, *, ends: bool) -> None:
        try:
            check_trailers(fields, self._listener.wire, last=ends)
        except Malformed as error:
            stream.fail(error)
            fields = []
        if ends:
            stream.end_input(fields)

    def _reset(self, number: int, _code: int) -> None:
        stream = self._streams.get(number)
        if stream is None or stream.over:
            self._abandoned.pop(number, None)
            if stream is not None:
                stream.ended = True
            self._make_noise()
            return
        self.blame()
        stream.cancel()

    def _goaway(self, _flags: int, number: int, _payload: bytes) -> None:
        if number:
            raise ConnectionFault("GOAWAY on a stream")
        self._make_noise()
        self.leave()

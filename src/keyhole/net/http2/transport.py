"""A stream of HTTP/2 as a transport, so that what speaks on connections speaks on it (RFC 9113 section 8.5)."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from keyhole.core.errors import BadRequestFraming
from keyhole.net.http2 import frames
from keyhole.net.http2.stream import ServerStream


class StreamTransport(asyncio.Transport):
    """The client's end of a tunnel. Its protocol reads and writes as on a connection of its own.

    Args:
        stream: on which it was asked for; the answer to that is for whoever made this.
        protocol: what is spoken inside.
        peer: address of the client.
    """

    def __init__(self, stream: ServerStream, protocol: asyncio.Protocol, peer: object) -> None:
        super().__init__()
        self._stream = stream
        self._protocol = protocol
        self._peer = peer
        self._unsent = bytearray()
        self._high = 64 * 1024
        self._full = False  # the protocol was told to write no more
        self._ending = False  # our side ends once everything is sent
        self._closing = False
        self._lost = False
        self._reading = asyncio.Event()
        self._reading.set()
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Carry bytes in both directions until the protocol closes this, or the stream is gone."""
        reading = asyncio.get_running_loop().create_task(self._read())
        try:
            await self._write()
        except OSError:
            pass  # the client took the stream back, or reads nothing: to the protocol a lost connection
        finally:
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading
            self._lose()

    async def _read(self) -> None:
        try:
            while data := await self._stream.read_patiently():
                self._protocol.data_received(data)
                await self._reading.wait()
        except BadRequestFraming:
            self.abort()  # what came is not to be believed
            return
        self._protocol.eof_received()

    async def _write(self) -> None:
        while not self._lost:
            if self._unsent:
                data, self._unsent = bytes(self._unsent), bytearray()
                await self._stream.send(data)
                if self._full and len(self._unsent) <= self._high // 4:
                    self._full = False
                    self._protocol.resume_writing()
            elif self._ending or self._closing:
                if not self._stream.over:
                    await self._stream.send(b"", end=True)
                if self._closing:
                    return
                self._ending = False
            else:
                self._news.clear()
                await self._news.wait()

    def _lose(self) -> None:
        if not self._lost:
            self._lost = self._closing = True
            self._protocol.connection_lost(None)

    def give_back(self) -> None:
        """End this and leave the stream as it is: it is to be answered in another way."""
        self._lose()
        self._news.set()

    # What the protocol calls.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send, as fast as the client reads."""
        if self._closing:
            return
        self._unsent += data
        self._news.set()
        if len(self._unsent) > self._high and not self._full:
            self._full = True
            self._protocol.pause_writing()

    def write_eof(self) -> None:
        """End our side, and go on reading."""
        self._ending = True
        self._news.set()

    def can_write_eof(self) -> bool:
        """It can."""
        return True

    def close(self) -> None:
        """End the stream once everything is sent."""
        self._closing = True
        self._news.set()

    def abort(self) -> None:
        """End it now, so that the client sees that something is missing."""
        if not self._lost:
            self._unsent.clear()
            if not self._stream.over:
                self._stream.reset(frames.CONNECT_ERROR)
            self.close()
            asyncio.get_running_loop().call_soon(self._lose)

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self._closing

    def pause_reading(self) -> None:
        """Give the protocol no more."""
        self._reading.clear()

    def resume_reading(self) -> None:
        """Go on."""
        self._reading.set()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:  # noqa: ARG002
        """From how many bytes on the protocol is told to wait."""
        self._high = self._high if high is None else high

    def get_write_buffer_size(self) -> int:
        """Bytes that the client has not read."""
        return len(self._unsent)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Speak something else."""
        assert isinstance(protocol, asyncio.Protocol)  # noqa: S101 - a stream has no other
        self._protocol = protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """The address of the client; there is no socket."""
        return self._peer if name == "peername" else default

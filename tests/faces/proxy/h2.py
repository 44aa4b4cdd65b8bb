"""A client of HTTP/2 that sends whatever it is told to, and writes down what it gets. Its frames are its own."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from dataclasses import dataclass, field
from typing import Self

import hpack

from faces.proxy.rig import HOST, Rig, Streams

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED = 1, 4, 8
Fields = list[tuple[bytes, bytes]]


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def settings(**values: int) -> bytes:
    names = {"table": 1, "push": 2, "streams": 3, "window": 4, "frame": 5}
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", names[name], value) for name, value in values.items()))


def window(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment))


def reset(stream: int, code: int = 8) -> bytes:
    return frame(RST_STREAM, 0, stream, struct.pack(">I", code))


def request(
    path: bytes = b"/v1/public/a", method: bytes = b"GET", *, scheme: bytes = b"https", **more: bytes
) -> Fields:
    fields = [(b":method", method), (b":scheme", scheme), (b":authority", HOST.encode()), (b":path", path)]
    return fields + [(name.replace("_", "-").encode(), value) for name, value in more.items()]


@dataclass
class Answer:
    """What came on one stream."""

    head: dict[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    trailers: dict[bytes, bytes] = field(default_factory=dict)
    informational: list[bytes] = field(default_factory=list)
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        return int(self.head.get(b":status", b"0"))

    @property
    def over(self) -> bool:
        return self.ended or self.reset is not None


class Client:
    """One connection. It reads all the time, and opens the windows of what it reads unless ``greedy`` is off."""

    def __init__(self, streams: Streams, *, greedy: bool = True) -> None:
        self.reader, self.writer = streams
        self.greedy = greedy
        self.encoder = hpack.Encoder()
        self.decoder = hpack.Decoder()
        self.answers: dict[int, Answer] = {}
        self.goaway: int | None = None
        self.last_stream = 0
        self.settings: dict[int, int] = {}
        self.pongs = 0
        self.windows: dict[int, int] = {0: 65_535}
        self.closed = False
        self.news = asyncio.Event()
        self._next = 1
        self._task = asyncio.get_running_loop().create_task(self._read())

    @classmethod
    async def tunnel(cls, rig: Rig, *, greedy: bool = True, first: bytes | None = None) -> Self:
        """Inside a tunnel, by ALPN."""
        client = cls(await rig.tunnel(alpn="h2"), greedy=greedy)
        client.send(PREFACE + (settings() if first is None else first))
        return client

    @classmethod
    async def plain(cls, rig: Rig) -> Self:
        """At the proxy's own port, with prior knowledge."""
        client = cls(await rig.open())
        client.send(PREFACE + settings())
        return client

    def send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):
            self.writer.write(data)

    def headers(self, fields: Fields, *, end: bool = True, stream: int = 0) -> bytes:
        """The frame of a header section; remember the stream with ``self.last``."""
        stream = stream or self.new()
        return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, self.encoder.encode(fields))

    def new(self) -> int:
        number, self._next = self._next, self._next + 2
        self.answers[number] = Answer()
        return number

    @property
    def last(self) -> int:
        return self._next - 2

    def ask(self, fields: Fields, body: bytes | None = None, *, end: bool = True) -> int:
        """Send a request, with a body as one frame; its stream."""
        self.send(self.headers(fields, end=end and body is None))
        number = self.last
        if body is not None:
            self.send(frame(DATA, END_STREAM if end else 0, number, body))
        return number

    async def answer(self, stream: int) -> Answer:
        await self.until(lambda: self.answers[stream].over)
        return self.answers[stream]

    async def get(self, path: bytes = b"/v1/public/a", **more: bytes) -> Answer:
        return await self.answer(self.ask(request(path, **more)))

    async def until(self, condition, seconds: float = 20.0) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                if self.closed:
                    raise ConnectionError("the connection was closed")
                self.news.clear()
                await self.news.wait()

    async def end(self, seconds: float = 20.0) -> None:
        """Return once the proxy has closed."""
        await asyncio.wait_for(asyncio.shield(self._task), seconds)

    async def _read(self) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = await self.reader.readexactly(9)
                length = int.from_bytes(head[:3], "big")
                kind, flags, stream = struct.unpack(">BBI", head[3:])
                self._take(kind, flags, stream, await self.reader.readexactly(length))
                self.news.set()
        self.closed = True
        self.writer.transport.abort()
        self.news.set()

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        answer = self.answers.get(stream, Answer())
        if kind == HEADERS:
            assert flags & END_HEADERS
            fields = dict(self.decoder.decode(payload, raw=True))
            if fields.get(b":status", b"").startswith(b"1"):
                answer.informational.append(fields[b":status"])
            elif answer.head:
                answer.trailers = fields
            else:
                answer.head = fields
        elif kind == DATA:
            answer.body += payload
            if payload and self.greedy:
                self.send(window(0, len(payload)) + window(stream, len(payload)))
        elif kind == RST_STREAM:
            answer.reset = int.from_bytes(payload, "big")
        elif kind == GOAWAY:
            self.last_stream, self.goaway = struct.unpack(">II", payload[:8])
        elif kind == SETTINGS and not flags:
            self.settings = dict(struct.iter_unpack(">HI", payload))
            self.send(frame(SETTINGS, 1))
        elif kind == PING and flags:
            self.pongs += 1
        elif kind == WINDOW_UPDATE:
            self.windows[stream] = self.windows.get(stream, 0) + int.from_bytes(payload, "big")
        if kind in {HEADERS, DATA} and flags & END_STREAM:
            answer.ended = True

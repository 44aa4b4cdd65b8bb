"""An upstream that speaks HTTP/2: a whole one by the library h2, and one that sends whatever frames it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import hpack
import trustme

from broker.stack import CERTIFIED, authority
from keyhole.core.message import Headers

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM = ACK = 1
END_HEADERS = 4


@functools.cache
def context(*alpn: str) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert(*CERTIFIED, key_type=trustme.KeyType.ECDSA).configure_cert(made)
    made.set_alpn_protocols(list(alpn or ("h2",)))
    return made


class Strict:
    """In front of a listener that has HTTP/2 alone: it says so where a handshake offers something else (RFC 7301)."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.writers: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = await reader.readexactly(5)
        hello += await reader.readexactly(int.from_bytes(hello[3:], "big"))
        if b"\x02h2" in hello:
            there, back = await asyncio.open_connection("127.0.0.1", self.port)
            back.write(hello)
            await asyncio.gather(relay(reader, back), relay(there, writer))
        else:
            writer.write(b"\x15\x03\x03\x00\x02\x02\x78")  # the alert no_application_protocol
            writer.close()


async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
    writer.close()


@dataclass
class Asked:
    """One request as the upstream read it."""

    stream: int
    headers: dict[bytes, bytes]
    body: bytearray = field(default_factory=bytearray)
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    reset: int | None = None
    came: asyncio.Event = field(default_factory=asyncio.Event)


class Talk:
    """One connection of the whole server."""

    def __init__(self, server: H2Upstream, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.writer = writer
        config = h2.config.H2Configuration(client_side=False, header_encoding=None)
        self.h2 = h2.connection.H2Connection(config)
        self.h2.local_settings = h2.settings.Settings(client=False, initial_values=server.settings)
        self.asked: dict[int, Asked] = {}
        self.room = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()

    def flush(self) -> None:
        if not self.writer.is_closing():
            self.writer.write(self.h2.data_to_send())

    def head(self, asked: Asked, headers: Headers, *, end: bool = False) -> None:
        self.h2.send_headers(asked.stream, headers, end_stream=end)
        self.flush()

    async def data(self, asked: Asked, data: bytes, *, end: bool = False) -> None:
        while data:
            room = min(self.h2.local_flow_control_window(asked.stream), self.h2.max_outbound_frame_size, len(data))
            if not room:
                self.room.clear()
                await self.room.wait()
                continue
            self.h2.send_data(asked.stream, data[:room], end_stream=end and room == len(data))
            data = data[room:]
            self.flush()
        if end and not data and asked.stream in self.h2.streams and not self.h2.streams[asked.stream].closed:
            with contextlib.suppress(h2.exceptions.ProtocolError):
                self.h2.end_stream(asked.stream)
                self.flush()

    def end(self, asked: Asked, trailers: Headers) -> None:
        self.h2.send_headers(asked.stream, trailers, end_stream=True)
        self.flush()


Say = Callable[[Talk, Asked], Awaitable[None]]


async def ok(talk: Talk, asked: Asked) -> None:
    await asked.ended.wait()
    talk.head(asked, [(b":status", b"200"), (b"content-type", b"text/plain")])
    await talk.data(asked, b"ok", end=True)


class H2Upstream:
    """A recording server.

    Attributes:
        say: answers each request.
        settings: of every connection.
    """

    def __init__(self) -> None:
        self.say: Say = ok
        self.settings: dict[int, int] = {3: 100}
        self.requests: list[Asked] = []
        self.talks: list[Talk] = []
        self.writers: set[asyncio.StreamWriter] = set()
        self.acknowledge = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        talk = Talk(self, writer)
        self.talks.append(talk)
        talk.h2.initiate_connection()
        talk.flush()
        with contextlib.suppress(OSError, ssl.SSLError, h2.exceptions.ProtocolError):
            while data := await reader.read(1 << 16):
                for event in talk.h2.receive_data(data):
                    self._act(talk, event)
                talk.flush()
        for task in talk.tasks:
            task.cancel()
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()
        self.writers.discard(writer)

    def _act(self, talk: Talk, event: h2.events.Event) -> None:
        asked = talk.asked.get(getattr(event, "stream_id", 0))
        if isinstance(event, h2.events.RequestReceived):
            asked = talk.asked[event.stream_id] = Asked(event.stream_id, dict(event.headers))
            self.requests.append(asked)
            task = asyncio.get_running_loop().create_task(self.say(talk, asked))
            talk.tasks.add(task)
            task.add_done_callback(talk.tasks.discard)
        elif asked is not None and isinstance(event, h2.events.DataReceived):
            asked.body += event.data
            asked.came.set()
            if self.acknowledge:
                talk.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif asked is not None and isinstance(event, h2.events.TrailersReceived):
            asked.trailers = list(event.headers)
        elif isinstance(event, h2.events.WindowUpdated):
            talk.room.set()
        if asked is not None and isinstance(event, h2.events.StreamEnded):
            asked.ended.set()
        if asked is not None and isinstance(event, h2.events.StreamReset):
            asked.reset = int(event.error_code)
            asked.ended.set()


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">HBBBL", len(payload) >> 8, len(payload) & 255, kind, flags, stream) + payload


def block(*fields: tuple[str, str]) -> bytes:
    return hpack.Encoder().encode(list(fields))


def head(*fields: tuple[str, str], stream: int = 1, end: bool = False, status: str = "200") -> bytes:
    flags = END_HEADERS | (END_STREAM if end else 0)
    return frame(HEADERS, flags, stream, block((":status", status), *fields))


class RawUpstream:
    """Reads the preface and the first request, then sends what it was told to, as it stands.

    Attributes:
        say: bytes; none of them means that it says nothing.
        then: closes afterwards.
        received: every byte after the preface.
    """

    def __init__(self) -> None:
        self.say: bytes = b""
        self.settings = frame(SETTINGS, 0, 0)
        self.received = bytearray()
        self.writers: set[asyncio.StreamWriter] = set()
        self.connections = 0
        self.closes = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        self.connections += 1
        with contextlib.suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError):
            assert await reader.readexactly(len(PREFACE)) == PREFACE
            writer.write(self.settings)
            said = False
            while True:
                header = await reader.readexactly(9)
                size = int.from_bytes(header[:3], "big")
                self.received += header + await reader.readexactly(size)
                if header[3] == HEADERS and not said:
                    said = True
                    for start in range(0, len(self.say), 1 << 16):
                        writer.write(self.say[start : start + (1 << 16)])
                        await writer.drain()
                    if self.closes:
                        break
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()
        self.writers.discard(writer)

    def frames(self) -> list[tuple[int, int, int, bytes]]:
        """Kind, flags, stream and payload of every frame that came."""
        found, data = [], bytes(self.received)
        while data:
            size, kind, flags = int.from_bytes(data[:3], "big"), data[3], data[4]
            found.append((kind, flags, int.from_bytes(data[5:9], "big"), data[9 : 9 + size]))
            data = data[9 + size :]
        return found


class Pieces:
    """A body that is sent in pieces; each is a chunk, or what is awaited before the next."""

    def __init__(self, *pieces: bytes | Awaitable[object], length: int | None = None, trailers: Headers | None = None):
        self._pieces = list(pieces)
        self.length = length
        self.trailers = trailers or []

    async def read(self) -> bytes:
        while self._pieces:
            piece = self._pieces.pop(0)
            if isinstance(piece, bytes):
                return piece
            await piece
        return b""

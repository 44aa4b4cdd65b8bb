"""WebSocket servers and clients for the tests: a library that is not ours on both ends, or raw bytes."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import itertools
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import websockets
from websockets.asyncio.client import connect
from websockets.asyncio.server import Server, ServerConnection, serve

from broker.stack import HOST, SECRET, Reply, Stack, Streams, read_reply, server_context

Talk = Callable[[ServerConnection], Awaitable[None]]
_numbers = itertools.count()
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="


async def echo(connection: ServerConnection) -> None:
    """Say everything again, until the other side ends it, in whatever way."""
    with contextlib.suppress(websockets.ConnectionClosed):
        async for message in connection:
            await connection.send(message)


@dataclass
class Line:
    """An agent with a service of its own that means a WebSocket server of its own."""

    stack: Stack
    port: int
    tls: bool = True
    name: str = field(default_factory=lambda: f"ws{next(_numbers)}")
    token: str = ""
    server: Server | None = None

    async def grant(self, **fields: Any) -> None:
        scheme = "https" if self.tls else "http"
        await self.stack.secret(f"{self.name}/key", SECRET)
        options = {"secret": f"{self.name}/key", "hosts": [f"{HOST}:{self.port}"], "schemes": [scheme], **fields}
        await self.stack.service(self.name, **options)
        self.token = await self.stack.agent(self.name, self.name)

    def connect(self, **options: Any) -> connect:
        """A client of the library, through the proxy."""
        proxy = f"http://agent:{self.token}@{self.stack.address[0]}:{self.stack.address[1]}"
        trust = {"ssl": self.stack.client} if self.tls else {}
        scheme = "wss" if self.tls else "ws"
        return connect(f"{scheme}://{HOST}:{self.port}/v1/ws", proxy=proxy, **trust, **options)

    async def shake(self, headers: bytes = b"", *, target: str = "/v1/ws", then: bytes = b"") -> tuple[Reply, Streams]:
        """A handshake of raw bytes in a tunnel; ``then`` follows in the same write."""
        reader, writer = await self.stack.tunnel(self.token, port=self.port, tls=self.tls)
        writer.write(handshake(f"{HOST}:{self.port}", target) + headers + b"\r\n" + then)
        return await answer(reader), (reader, writer)

    async def outcome(self) -> dict[str, Any]:
        [*_, last] = await self.stack.records(service=self.name)
        return last

    async def outcomes(self, count: int) -> list[dict[str, Any]]:
        """Those of all its connections, once there are so many."""
        async with asyncio.timeout(60):
            while True:
                records = await self.stack.records(service=self.name)
                if len(found := [each for each in records if each["phase"] == "outcome"]) >= count:
                    return found
                await asyncio.sleep(0.01)

    async def ended(self) -> dict[str, Any]:
        """The outcome, once there is one."""
        async with asyncio.timeout(60):
            while (last := await self.outcome())["phase"] != "outcome":  # noqa: ASYNC110 - a record tells nobody
                await asyncio.sleep(0.01)
        return last


async def answer(reader: asyncio.StreamReader) -> Reply:
    """What a handshake is answered; after a 101 nothing more is read."""
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 101 "):
        rest = asyncio.StreamReader()
        rest.feed_data(head + await reader.read())
        rest.feed_eof()
        return await read_reply(rest)
    lines = head[:-4].split(b"\r\n")[1:]
    fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    return Reply(101, head, fields, b"")


def handshake(host: str, target: str = "/v1/ws") -> bytes:
    """A legal one, without the empty line."""
    lines = (
        f"GET {target} HTTP/1.1",
        f"Host: {host}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {KEY.decode()}",
    )
    return "".join(f"{line}\r\n" for line in lines).encode()


@contextlib.asynccontextmanager
async def library(stack: Stack, talk: Talk = echo, *, tls: bool = True, **options: Any) -> AsyncIterator[Line]:
    """A server of the library that lets in only who shows the secret, and a line to it."""

    def check(connection: ServerConnection, request: websockets.Request) -> websockets.Response | None:
        if request.headers.get("Authorization") != f"Bearer {SECRET}":
            return connection.respond(401, "who are you")
        return None

    context = server_context() if tls else None
    grant = options.pop("grant", {})
    async with serve(talk, "127.0.0.1", 0, ssl=context, process_request=check, **options) as server:
        line = Line(stack, server.sockets[0].getsockname()[1], tls, server=server)
        await line.grant(**grant)
        yield line


def accept(request: bytes, headers: bytes = b"") -> bytes:
    """A right answer to a handshake."""
    found = re.search(rb"(?i)sec-websocket-key: *([^\r]+)", request)
    assert found
    digest = hashlib.sha1(found[1] + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    lines = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: "
    return lines + base64.b64encode(digest) + b"\r\n" + headers + b"\r\n"


@dataclass
class Raw:
    """What a server of raw bytes saw, and its streams."""

    request: bytes = b""
    streams: Streams | None = None
    received: bytes = b""


@contextlib.asynccontextmanager
async def raw(
    stack: Stack, say: Callable[[bytes], bytes] = accept, *, tls: bool = True, read: bool = True, **grant: Any
) -> AsyncIterator[tuple[Line, Raw]]:
    """A server that answers a handshake by ``say`` in one write, then collects what it gets until the end."""
    seen = Raw()
    done: list[asyncio.StreamWriter] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        done.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            seen.request = await reader.readuntil(b"\r\n\r\n")
            seen.streams = reader, writer
            writer.write(say(seen.request))
            while read and (data := await reader.read(65536)):
                seen.received += data
            if read:
                writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=server_context() if tls else None)
    async with server:
        line = Line(stack, server.sockets[0].getsockname()[1], tls)
        await line.grant(**grant)
        yield line, seen
        for writer in done:
            writer.transport.abort()


def frame(opcode: int, payload: bytes, *, fin: bool = True, mask: bool = False) -> bytes:
    """A frame, written without our code."""
    head = bytes([opcode | (0x80 if fin else 0)])
    bit = 0x80 if mask else 0
    size = len(payload)
    if size < 126:
        head += bytes([size | bit])
    elif size < 65536:
        head += bytes([126 | bit]) + size.to_bytes(2)
    else:
        head += bytes([127 | bit]) + size.to_bytes(8)
    if not mask:
        return head + payload
    key = os.urandom(4)
    return head + key + bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))


def unframe(data: bytes) -> list[tuple[int, bool, bytes]]:
    """All whole frames in the bytes, read without our code."""
    found = []
    while len(data) >= 2:
        size, at = data[1] & 0x7F, 2
        if size == 126:
            size, at = int.from_bytes(data[2:4]), 4
        elif size == 127:
            size, at = int.from_bytes(data[2:10]), 10
        key = b""
        if data[1] & 0x80:
            key, at = data[at : at + 4], at + 4
        if len(data) < at + size:
            break
        payload = data[at : at + size]
        if key:
            payload = bytes(byte ^ key[n % 4] for n, byte in enumerate(payload))
        found.append((data[0] & 0x0F, bool(data[0] & 0x80), payload))
        data = data[at + size :]
    return found


async def everything(reader: asyncio.StreamReader) -> bytes:
    """All bytes until the end, however that comes."""
    received = b""
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            received += data
    return received

"""The whole product in one process: a client's bytes go through proxy, broker and door to a server that writes down
every byte it received. What these tests look at is that server's log.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import inspect
import json
import re
import socket
import ssl
import struct
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import trustme

from keyhole.app import Keyhole, open_ephemeral, start_proxy
from keyhole.config import Config
from keyhole.core.request import Operation, Request
from keyhole.faces.proxy import ProxyServer

DATA = Path(__file__).parents[1] / "data"
ROOT = b"root"
HOST = "api.allowed.test"
SECRET = "sk_live_51H8xKeyholeCanary9Zq7"
LOOPBACK = ["127.0.0.1/32"]
NAMES = [HOST, *(f"{name}.test" for name in ("a", "b", "c", "evil", "other", "x.wild", "y.wild", "deep.x.wild"))]
NAMES.append("db1")
CERTIFIED = [*NAMES, "*.wild.test"]
NAMES += ["project_web_1", "my_app.wild.test"]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def vectors(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / path).read_text().splitlines()]


@functools.cache
def authority() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@functools.cache
def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert(*CERTIFIED, key_type=trustme.KeyType.ECDSA).configure_cert(context)
    return context


@dataclass
class Received:
    """One request as the upstream read it."""

    head: bytes
    body: bytes = b""
    trailers: bytes = b""

    @property
    def method(self) -> str:
        return self.head.split(b" ", 1)[0].decode()

    @property
    def target(self) -> bytes:
        return self.head.split(b" ", 2)[1]

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        lines = self.head.rstrip(b"\r\n").split(b"\r\n")[1:]
        return [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key == name]


Say = bytes | Iterable[bytes] | Callable[[Received, asyncio.StreamWriter], Awaitable[None]]


class Upstream:
    """A raw recording server, over TLS and in clear. It reads requests with its own few lines, not with ours.

    Attributes:
        say: the answer: bytes, pieces that are sent one by one, or a coroutine function. One that says nothing of its
            length ends with the connection.
        early: answer before the body was read.
    """

    def __init__(self) -> None:
        self.say: Say = OK
        self.early = False
        self.keep_bodies = True
        self.requests: list[Received] = []
        self.raw: list[bytearray] = []
        self.writers: set[asyncio.StreamWriter] = set()
        self.lost = 0
        self.body_bytes = 0

    @property
    def received(self) -> bytes:
        """Every byte that came over all connections, after TLS."""
        return b"\0".join(bytes(raw) for raw in self.raw)

    @property
    def last(self) -> Received:
        return self.requests[-1]

    def forget(self) -> None:
        """Begin a new log; connections stay."""
        self.requests.clear()
        for raw in self.raw:
            raw.clear()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raw = bytearray()
        self.raw.append(raw)
        self.writers.add(writer)
        with contextlib.suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            while await self._one(reader, writer, raw):
                pass
        self.lost += 1
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()
        self.writers.discard(writer)

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, raw: bytearray) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        raw += head
        request = Received(head)
        self.requests.append(request)
        if self.early:
            await self._answer(request, writer)
        body = bytearray()
        async for piece in _body(reader, request, raw if self.keep_bodies else bytearray()):
            self.body_bytes += len(piece)
            if self.keep_bodies:
                body += piece
        request.body = bytes(body)
        if not self.early:
            await self._answer(request, writer)
        return not writer.is_closing()

    async def _answer(self, request: Received, writer: asyncio.StreamWriter) -> None:
        say = self.say
        if isinstance(say, bytes):
            say = (say,)
        if callable(say):
            done = say(request, writer)
            assert inspect.isawaitable(done)
            await done
            return
        for piece in say:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        head = b"".join(say).partition(b"\r\n\r\n")[0].lower()
        if b"content-length" not in head and b"chunked" not in head and not re.search(rb" (204|304) ", head):
            writer.close()


async def _body(reader: asyncio.StreamReader, request: Received, raw: bytearray) -> AsyncIterator[bytes]:
    fields = dict(request.headers)
    left = int(fields.get(b"content-length", b"0"))
    while left:
        piece = await reader.read(min(left, 65536))
        if not piece:
            raise asyncio.IncompleteReadError(b"", left)
        raw += piece
        left -= len(piece)
        yield piece
    if fields.get(b"transfer-encoding") == b"chunked":
        while True:
            line = await reader.readuntil(b"\r\n")
            if int(line, 16) == 0:
                break
            piece = await reader.readexactly(int(line, 16) + 2)
            raw += line + piece
            yield piece[:-2]
        raw += line
        while line != b"\r\n":
            line = await reader.readuntil(b"\r\n")
            raw += line
            request.trailers += line


@dataclass
class Reply:
    """What the client received: ``raw`` as it came, ``body`` without chunks; ``whole`` is false when it broke off."""

    status: int
    raw: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    whole: bool = True

    def get(self, name: bytes) -> bytes | None:
        return dict(self.headers).get(name)

    @property
    def reason(self) -> bytes:
        return self.raw.partition(b"\r\n")[0].split(b" ", 2)[2]

    @property
    def code(self) -> str:
        """The machine-readable code of a refusal, else empty."""
        return (self.get(b"x-keyhole-error") or b"").decode()


async def read_reply(reader: asyncio.StreamReader, method: str = "GET") -> Reply:
    """Read one answer; 1xx answers before it are passed over."""
    while True:
        raw = await reader.readuntil(b"\r\n\r\n")
        status = int(raw.split(b" ", 2)[1])
        if status >= 200:
            break
    lines = raw[:-4].split(b"\r\n")[1:]
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    reply = Reply(status, raw, headers, b"")
    fields = dict(headers)
    if status in {204, 304} or method == "HEAD" or (method == "CONNECT" and status < 300):
        return reply
    try:
        if fields.get(b"transfer-encoding") == b"chunked":
            while True:
                line = await reader.readuntil(b"\r\n")
                piece = await reader.readexactly(int(line, 16) + 2)
                reply.raw += line + piece
                reply.body += piece[:-2]
                if len(piece) == 2:
                    return reply
        if b"content-length" in fields:
            reply.body = await reader.readexactly(int(fields[b"content-length"]))
        else:
            reply.body = await reader.read()
        reply.raw += reply.body
    except asyncio.IncompleteReadError as error:
        reply.body += error.partial
        reply.raw += error.partial
        reply.whole = False
    except OSError:
        reply.whole = False
    return reply


def basic(token: str) -> bytes:
    return b"Proxy-Authorization: Basic " + base64.b64encode(b"agent:" + token.encode()) + b"\r\n"


@dataclass
class Stack:
    """Keyhole with its proxy, and two listeners of one recording upstream on loopback."""

    config: Config = field(default_factory=Config)
    trust_upstream: bool = True
    upstream: Upstream = field(default_factory=Upstream)
    keyhole: Keyhole = field(init=False)
    proxy: ProxyServer = field(init=False)
    address: tuple[str, int] = field(init=False)
    secure: int = field(init=False)
    plain: int = field(init=False)
    client: ssl.SSLContext = field(init=False)
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)
    _others: list[Upstream] = field(default_factory=list)
    _exit: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def __aenter__(self) -> Self:
        folder = self._exit.enter_context(tempfile.TemporaryDirectory())
        changes: dict[str, Any] = {}
        if not (self.config.resolve or self.config.resolver):
            changes["resolve"] = tuple(f"{name}:127.0.0.1" for name in NAMES)
        if self.trust_upstream and not self.config.upstream_ca:
            changes["upstream_ca"] = str(Path(folder) / "upstream.pem")
            authority().cert_pem.write_to_path(changes["upstream_ca"])
        self.config = self.config._replace(**changes)
        self.plain = await self.listen(self.upstream)
        self.secure = await self.listen(self.upstream, server_context())
        self.keyhole, _ = await open_ephemeral(self.config, token=ROOT.decode())
        self._exit.push_async_callback(self.keyhole.close)
        self.proxy = await start_proxy(self.keyhole, "127.0.0.1:0")
        self._exit.push_async_callback(self.proxy.close, 1.0)
        self.address = next(iter(self.keyhole.dialer.own))
        self.client = ssl.create_default_context(cadata=(await self.ask("read", "sys/keyhole"))["ca"])
        return self

    async def trust(self, token: str) -> None:
        """Let the client trust the CA of another org."""
        self.client.load_verify_locations(cadata=(await self.ask("read", "sys/keyhole", token=token))["ca"])

    async def __aexit__(self, *details: object) -> None:
        for writer in self._writers:
            writer.transport.abort()
        await self._exit.aclose()
        upstreams = [self.upstream, *self._others]
        for writer in [writer for upstream in upstreams for writer in upstream.writers]:
            writer.transport.abort()
        await until(lambda: not any(upstream.writers for upstream in upstreams))
        for writer in self._writers:
            with contextlib.suppress(OSError, ssl.SSLError):
                await writer.wait_closed()

    async def listen(self, upstream: Upstream, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> int:
        """Another listener; its port."""
        server = await asyncio.start_server(upstream.serve, host, 0, ssl=tls, limit=1 << 20)
        self._others.append(upstream)
        self._exit.callback(server.close)
        return int(server.sockets[0].getsockname()[1])

    # The door.

    async def ask(
        self, operation: str, path: str, data: dict[str, Any] | None = None, token: bytes | str = ROOT
    ) -> dict[str, Any]:
        token = token.encode() if isinstance(token, str) else token
        reply = await self.keyhole.node.handle(Request(token, Operation(operation), path, data or {}))
        return dict(reply.data or reply.auth or {})

    async def entity(self, agent: str) -> str:
        """The id of the entity of an agent."""
        info = (await self.ask("list", "identity/entity-alias/id"))["key_info"].values()
        return next(each["canonical_id"] for each in info if each["name"] == agent)

    async def secret(self, name: str, value: str | dict[str, str] = SECRET, token: bytes | str = ROOT) -> None:
        fields = value if isinstance(value, dict) else {"value": value}
        await self.ask("update", f"secret/data/{name}", {"data": fields}, token)

    async def service(self, name: str, *, token: bytes | str = ROOT, **fields: Any) -> None:
        """A service for ``HOST`` over TLS with a bearer token, unless ``fields`` say otherwise."""
        data = {
            "hosts": [f"{HOST}:{self.secure}"],
            "secret": "stripe/key",
            "inject": {"kind": "bearer"},
            "allow_addresses": LOOPBACK,
        }
        await self.ask("update", f"services/{name}", {**data, **fields}, token)

    async def agent(self, name: str, *services: str, token: bytes | str = ROOT, **fields: Any) -> str:
        """A token of a new agent that may use these services."""
        await self.ask("update", f"agents/{name}", {}, token)
        for service in services:
            await self.ask("update", f"agents/{name}/services/{service}", {}, token)
        return str((await self.ask("update", f"agents/{name}/token", {"ttl": "1h", **fields}, token))["token"])

    async def records(self, **filters: Any) -> list[dict[str, Any]]:
        """Records of calls, the oldest first."""
        found = (await self.ask("read", "sys/audit-log", {"limit": 1000, **filters}))["records"]
        calls = [record for record in found if record.get("operation") in {"use", "egress"}]
        return sorted(calls, key=lambda record: record["time"])

    # The client.

    async def open(self) -> Streams:
        reader, writer = await asyncio.open_connection(*self.address, limit=1 << 24)
        self._writers.append(writer)
        return reader, writer

    async def connect(self, token: str, target: str, *, host: str | None = None) -> tuple[Reply, Streams]:
        """Ask for a tunnel."""
        reader, writer = await self.open()
        lines = f"CONNECT {target} HTTP/1.1\r\nHost: {target if host is None else host}\r\n".encode()
        writer.write(lines + (basic(token) if token else b"") + b"\r\n")
        return await read_reply(reader, "CONNECT"), (reader, writer)

    async def tunnel(self, token: str, host: str = HOST, port: int = 0, *, tls: bool = True, sni: str = "") -> Streams:
        """A tunnel that was granted, with TLS inside unless said."""
        reply, streams = await self.connect(token, f"{host}:{port or (self.secure if tls else self.plain)}")
        assert reply.status == 200, reply.raw
        if tls:
            await streams[1].start_tls(self.client, server_hostname=sni or host)
        return streams

    async def get(self, token: str, path: str = "/v1/x", **options: Any) -> Reply:
        """One request through a tunnel of its own; ``options`` as of ``send``."""
        host = options.pop("host", HOST)
        port = options.pop("port", 0)
        streams = await self.tunnel(token, host, port)
        try:
            return await self.send(streams, path, host=f"{host}:{port or self.secure}", **options)
        finally:
            streams[1].close()

    async def send(
        self,
        streams: Streams,
        path: str = "/v1/x",
        *,
        method: str = "GET",
        host: str = "",
        headers: bytes = b"",
        body: bytes = b"",
    ) -> Reply:
        """One request inside a tunnel. ``headers`` are whole lines; a body is declared by its length."""
        reader, writer = streams
        length = f"Content-Length: {len(body)}\r\n".encode() if body else b""
        lines = f"{method} {path} HTTP/1.1\r\nHost: {host or f'{HOST}:{self.secure}'}\r\n".encode()
        writer.write(lines + length + headers + b"\r\n")
        for at in range(0, len(body), 1 << 20):
            writer.write(body[at : at + (1 << 20)])
            await writer.drain()
        return await read_reply(reader, method)

    async def absolute(
        self, token: str, url: str, *, method: str = "GET", host: str | None = None, headers: bytes = b""
    ) -> Reply:
        """One request in absolute form on the proxy's own port."""
        reader, writer = await self.open()
        said = url.split("/")[2] if host is None and url.count("/") > 1 else host or ""
        lines = f"{method} {url} HTTP/1.1\r\nHost: {said}\r\n".encode("utf-8", "surrogatepass")
        writer.write(lines + basic(token) + headers + b"\r\n")
        try:
            return await read_reply(reader, method)
        finally:
            writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """Hang up at once, so that the other side learns of it and does not wait for a client that only ended its side."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - conditions of many kinds
            await asyncio.sleep(0.005)

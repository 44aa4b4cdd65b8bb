"""A proxy between a client and an upstream that writes down every byte: what these tests look at is the upstream's log.

The upstream reads requests with its own few lines, not with ours, and every byte it received is parsed again by h11 and
httptools when the rig closes: they must find the same requests.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import h11
import httptools
import trustme

from keyhole.broker.upstream import Pool, UpstreamLimits
from keyhole.core.errors import KeyholeError, NoService, Unauthenticated
from keyhole.core.host import Authority
from keyhole.core.message import Answer, Call, Message
from keyhole.faces.proxy import ProxyServer
from keyhole.net.guard import Guard
from keyhole.net.http1.limits import ListenerLimits

HOST = "api.allowed.test"
TOKEN = b"hvs.testtoken0123456789abcdef"
CREDENTIAL = b"Proxy-Authorization: Basic " + base64.b64encode(b"agent:" + TOKEN) + b"\r\n"
GUARD = Guard()
DATA = Path(__file__).parents[2] / "data"


@functools.cache
def authority() -> trustme.CA:
    return trustme.CA(key_type=trustme.KeyType.ECDSA)


@functools.cache
def server_context(host: str = HOST) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert(host, key_type=trustme.KeyType.ECDSA).configure_cert(context)
    return context


@functools.cache
def tunnel_context(host: str = HOST) -> ssl.SSLContext:
    """The proxy's side of TLS inside a tunnel."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert(host, key_type=trustme.KeyType.ECDSA).configure_cert(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


@functools.cache
def client_context(alpn: str = "") -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority().configure_trust(context)
    if alpn:
        context.set_alpn_protocols([alpn])
    return context


def vectors(path: str) -> list[dict]:
    return [json.loads(line) for line in (DATA / path).read_text().splitlines()]


@dataclass
class Received:
    """One request as the upstream read it."""

    head: bytes
    body: bytes
    connection: int
    trailers: bytes = b""

    @property
    def line(self) -> bytes:
        return self.head.partition(b"\r\n")[0]

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        lines = self.head.rstrip(b"\r\n").split(b"\r\n")[1:]
        return [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key == name]


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Respond = Callable[[Received, asyncio.StreamWriter], Awaitable[bytes | None]]


async def answer_ok(_received: Received, _writer: asyncio.StreamWriter) -> bytes | None:
    return OK


@dataclass
class Upstream:
    """A raw recording server. ``respond`` gives the bytes to send, or ``None`` to close."""

    respond: Respond = answer_ok
    on_head: Respond | None = None  # called before the body is read; what it gives is sent early
    keep_bodies: bool = True
    requests: list[Received] = field(default_factory=list)
    raw: list[bytearray] = field(default_factory=list)
    open: int = 0
    body_bytes: int = 0
    accepted: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = self.accepted
        self.accepted += 1
        self.open += 1
        self.raw.append(bytearray())
        try:
            while await self._one(reader, writer, number):
                pass
        except (OSError, ssl.SSLError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        except RuntimeError:
            if not writer.is_closing():  # uvloop's word for a write to a connection that was closed meanwhile
                raise
        finally:
            self.open -= 1
        writer.close()
        with contextlib.suppress(OSError, ssl.SSLError):
            await writer.wait_closed()

    async def _take(self, number: int, data: bytes) -> bytes:
        if self.keep_bodies:
            self.raw[number] += data
        return data

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> bool:
        head = await self._take(number, await reader.readuntil(b"\r\n\r\n"))
        received = Received(head, b"", number)
        if self.on_head is not None:
            early = await self.on_head(received, writer)
            if early is not None:
                self.requests.append(received)
                writer.write(early)
                await writer.drain()
                return True
        body = bytearray()
        async for piece in self._body(reader, received, number):
            self.body_bytes += len(piece)
            if self.keep_bodies:
                body += piece
        received.body = bytes(body)
        self.requests.append(received)
        answer = await self.respond(received, writer)
        if answer is None:
            return False
        writer.write(answer)
        await writer.drain()
        return True

    async def _body(self, reader: asyncio.StreamReader, received: Received, number: int) -> AsyncIterator[bytes]:
        fields = dict(received.headers)
        left = int(fields.get(b"content-length", b"0"))
        while left:
            piece = await self._take(number, await reader.read(min(left, 65536)))
            if not piece:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(piece)
            yield piece
        if fields.get(b"transfer-encoding") == b"chunked":
            while True:
                size = int(await self._take(number, await reader.readuntil(b"\r\n")), 16)
                if not size:
                    while (line := await self._take(number, await reader.readuntil(b"\r\n"))) != b"\r\n":
                        received.trailers += line
                    return
                piece = await self._take(number, await reader.readexactly(size))
                await self._take(number, await reader.readexactly(2))
                yield piece

    def check_differential(self) -> None:
        """What was recorded is also what h11 and llhttp read."""
        for number, raw in enumerate(self.raw):
            targets = [received.line.split(b" ")[1] for received in self.requests if received.connection == number]
            assert h11_targets(bytes(raw))[: len(targets)] == targets
            assert llhttp_targets(bytes(raw))[: len(targets)] == targets
            assert len(h11_targets(bytes(raw))) <= len(targets) + 1


def h11_targets(raw: bytes) -> list[bytes]:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(raw)
    targets = []
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Request):
            targets.append(event.target)
        elif isinstance(event, h11.EndOfMessage):
            connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            connection.send(h11.EndOfMessage())
            if connection.our_state is not h11.DONE:
                return targets
            connection.start_next_cycle()
        elif event is h11.NEED_DATA or event is h11.PAUSED:
            return targets


def llhttp_targets(raw: bytes) -> list[bytes]:
    targets: list[bytes] = []

    class Events:
        def on_url(self, url: bytes) -> None:
            targets.append(url)

    httptools.HttpRequestParser(Events()).feed_data(raw)
    return targets


class Dialler:
    """Every host is the recording server: its TLS side for the usual TLS ports."""

    def __init__(self, plain: int, secure: int) -> None:
        self.plain, self.secure = plain, secure
        self.dialled: list[tuple[str, int]] = []

    async def dial(self, host: str, port: int, guard: object, *, timeout: float) -> socket.socket:  # noqa: ASYNC109
        self.dialled.append((host, port))
        sock = socket.socket()
        sock.setblocking(False)
        target = self.secure if port in {443, 8443} else self.plain
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", target))
        return sock


class FakeBroker:
    """Lends one credential to every call at the allowed host, and writes down the calls."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.calls: list[Call] = []
        self.tunnels: list[tuple[bytes, str, int]] = []
        self.revoked = False
        self.refuse: KeyholeError | None = None
        self.noted: list[tuple[str, str]] = []
        self.read_first = False

    def note_refusal(self, error: KeyholeError, remote: str) -> None:
        self.noted.append((error.code, remote))

    def tunnel_at_once(
        self, credential: bytes, authority: Authority, _service: str, _seat: object
    ) -> ssl.SSLContext | None:
        if credential != TOKEN or self.revoked or authority.host != HOST:
            return None
        self.tunnels.append((credential, *authority))
        return tunnel_context(authority.host)

    def may_go_on(self, seat: object, remote: str) -> bool:
        return True

    async def in_turn(self, seat: object, remote: str) -> None:
        """It is always their turn."""

    async def open_tunnel(
        self, credential: bytes, host: str, port: int, remote: str, _service: str, _seat: object = None
    ) -> ssl.SSLContext | None:
        self.tunnels.append((credential, host, port))
        self._authenticate(credential)
        if host != HOST or port not in {80, 443, 8443}:
            raise NoService("no service binds a secret to this host", "ask the administrator for a service")
        return tunnel_context(host)

    def _authenticate(self, credential: bytes) -> None:
        if credential != TOKEN or self.revoked:
            raise Unauthenticated("the token is unknown", "set the proxy's user name or password to a token")

    async def handle(self, call: Call) -> Answer:
        self.calls.append(call)
        self._authenticate(call.token)
        if call.host != HOST:
            raise NoService("no service binds a secret to this host", "ask the administrator for a service")
        if self.refuse is not None:
            raise self.refuse
        message = Message(call.method, call.scheme, call.host, call.port, call.target, call.headers)
        message.set(b"authorization", b"Bearer injected")
        answer = await self.pool.send(("org", call.token), message, call.body, guard=GUARD)
        return Answer(answer.status, answer.reason, answer.headers, answer.body)


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Rig:
    """Client, proxy and upstream in one event loop."""

    def __init__(
        self, respond: Respond = answer_ok, limits: ListenerLimits | None = None, upstream: UpstreamLimits | None = None
    ) -> None:
        self.upstream = Upstream(respond)
        self.limits = limits or ListenerLimits(linger=0.2)
        self._upstream_limits = upstream or UpstreamLimits()
        self._writers: list[asyncio.StreamWriter] = []
        self.differential = True

    async def __aenter__(self) -> Self:
        plain = await asyncio.start_server(self.upstream.serve, "127.0.0.1", 0)
        secure = await asyncio.start_server(self.upstream.serve, "127.0.0.1", 0, ssl=server_context())
        self._servers = [plain, secure]
        self.dialler = Dialler(*(server.sockets[0].getsockname()[1] for server in self._servers))
        self.pool = Pool(self.dialler, lambda _origin: client_context(), self._upstream_limits)
        self.broker = FakeBroker(self.pool)
        self.server = ProxyServer(self.broker, self.limits, instance="rig")
        self.address = await self.server.listen()
        return self

    async def __aexit__(self, kind: object, *_details: object) -> None:
        for writer in self._writers:
            writer.close()
        await self.server.close(1.0)
        await self.pool.close()
        for server in self._servers:
            server.close()
        await until(lambda: self.upstream.open == 0 and self.server.connections == 0)
        if kind is None and self.differential:
            self.upstream.check_differential()

    async def open(self) -> Streams:
        reader, writer = await asyncio.open_connection(*self.address)
        self._writers.append(writer)
        return reader, writer

    async def tunnel(
        self, host: str = HOST, port: int = 443, *, tls: bool = True, sni: str = "", alpn: str = ""
    ) -> Streams:
        reader, writer = await self.open()
        authority_ = f"{host}:{port}".encode()
        writer.write(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n%b\r\n" % (authority_, authority_, CREDENTIAL))
        status, _, _ = await read_answer(reader, "CONNECT")
        assert status == 200
        if tls:
            await writer.start_tls(client_context(alpn), server_hostname=sni or host)
        return reader, writer


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - conditions of many kinds
            await asyncio.sleep(0.005)


async def read_answer(reader: asyncio.StreamReader, method: str = "GET") -> tuple[int, dict[bytes, bytes], bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head[:-4].split(b"\r\n")
    status = int(lines[0].split(b" ")[1])
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
    if method in {"HEAD", "CONNECT"} and status < 300:
        return status, headers, b""
    if status in {204, 304}:
        return status, headers, b""
    if headers.get(b"transfer-encoding") == b"chunked":
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
        return status, headers, body
    if b"content-length" in headers:
        return status, headers, await reader.readexactly(int(headers[b"content-length"]))
    return status, headers, await reader.read()


_PATIENCE = 20.0  # seconds for the first byte, on a machine that does other things too


async def converse(streams: Streams, raw: bytes, quiet: float) -> tuple[bytes, bool]:
    """Send, then collect what comes back until the end, or until nothing more came for a while. Whether it ended."""
    reader, writer = streams
    received = b""
    with contextlib.suppress(OSError):
        writer.write(raw)
        while True:
            try:
                piece = await asyncio.wait_for(reader.read(65536), quiet if received else _PATIENCE)
            except TimeoutError:
                return received, False
            if not piece:
                break
            received += piece
    return received, True


def get(path: str = "/v1/public/a", *, absolute: bool = True, method: str = "GET", headers: bytes = b"") -> bytes:
    """A legal request, for the proxy's port or for inside a tunnel."""
    target = f"http://{HOST}{path}" if absolute else path
    credential = CREDENTIAL if absolute else b""
    return f"{method} {target} HTTP/1.1\r\nHost: {HOST}\r\n".encode() + credential + headers + b"\r\n"

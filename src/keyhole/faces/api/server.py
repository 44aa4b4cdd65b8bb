"""The API's listener: an ASGI host on the strict HTTP/1.1 wire that the proxy has too.

Vault's clients send the method ``LIST``, which the common parsers refuse, or the parser that takes it lets ambiguous
framing pass; so the application is served by our own wire. One task per connection, requests one after the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable, MutableMapping
from http import HTTPStatus
from typing import Any

from keyhole.core.errors import BadRequestFraming, KeyholeError
from keyhole.core.host import parse_authority
from keyhole.faces.api.envelope import render_error
from keyhole.net.guests import Guest, Guests
from keyhole.net.http1.body import RequestBody
from keyhole.net.http1.framing import request_decoder
from keyhole.net.http1.grammar import LastFields, Malformed, RequestHead, list_tokens, parse_request_head
from keyhole.net.http1.limits import ListenerLimits
from keyhole.net.http1.pace import Pace
from keyhole.net.http1.serialise import serialise_answer
from keyhole.net.http1.server import ServerWire
from keyhole.net.http1.wire import NEVER, WireGroup

Application = Callable[
    [
        MutableMapping[str, Any],
        Callable[[], Awaitable[MutableMapping[str, Any]]],
        Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ],
    Awaitable[None],
]
_BACKLOG = 1024
_REASONS = {status.value: status.phrase.encode() for status in HTTPStatus}


class ApiServer:
    """Serves an ASGI application.

    Args:
        application: called once per request.
        limits: bounds on clients.
        on_refusal: told of requests that could not be read, with the client's address.
        noted: called with what a connection was let go or turned away for.
    """

    def __init__(
        self,
        application: Application,
        limits: ListenerLimits | None = None,
        *,
        on_refusal: Callable[[KeyholeError, str], None] | None = None,
        noted: Callable[[str], None] | None = None,
    ) -> None:
        self.application = application
        self.on_refusal = on_refusal
        self.limits = limits or ListenerLimits()
        self.draining = False
        self.group: WireGroup
        self.guests = Guests(self.limits.connections, self.limits.strangers, noted)
        self.connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def listen(
        self, host: str, port: int, *, tls: ssl.SSLContext | None = None, reuse_port: bool = False
    ) -> tuple[str, int]:
        """Open the listening socket, of a port that other processes may share; its address."""
        loop = asyncio.get_running_loop()
        self.group = WireGroup(loop, self.limits.tick)
        self._server = await loop.create_server(
            lambda: _Connection(self), host, port, backlog=_BACKLOG, ssl=tls, reuse_port=reuse_port or None
        )
        address = self._server.sockets[0].getsockname()
        return str(address[0]), int(address[1])

    async def close(self, grace: float = 10.0) -> None:
        """Stop listening, let running requests finish, cut what is left after ``grace`` seconds."""
        self.draining = True
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            if not connection.serving:
                connection.close()
        tasks = [connection.task for connection in self.connections if connection.task is not None]
        if tasks:
            await asyncio.wait(tasks, timeout=grace)
        for connection in list(self.connections):
            connection.abort()


class _Connection(ServerWire):
    """The server's side of one client connection."""

    __slots__ = (
        "_certificate",
        "_client",
        "_last",
        "_memo",
        "_owner",
        "_seat",
        "_secure",
        "_seen",
        "_stays",
        "serving",
        "task",
    )

    def __init__(self, owner: ApiServer) -> None:
        super().__init__(owner.group)
        self._owner = owner
        self._client = ("", 0)
        self._secure = False
        self._certificate = b""
        self._last = LastFields()
        self._seen: dict[bytes, bytes] | None = None  # the fields that were found good last
        self._stays = False  # and whether they leave the connection open
        self._memo: dict[str, Any] = {}
        self._seat: Guest | None = None
        self.serving = False
        self.task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve, unless there are too many."""
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._client = (str(peer[0]), int(peer[1])) if isinstance(peer, tuple) else ("", 0)
        tls = transport.get_extra_info("ssl_object")
        self._secure = tls is not None
        self._certificate = (tls and tls.getpeercert(binary_form=True)) or b""  # there is one only if it was verified
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family != socket.AF_UNIX:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        owner = self._owner
        self._seat = None if owner.draining else owner.guests.enter(self._client[0], self.abort)
        if self._seat is None:
            transport.close()
            return
        owner.connections.add(self)
        owner.group.add(self)
        self.task = self.loop.create_task(self._run())

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: what is being done for it stops."""
        super().connection_lost(exc)
        if self._seat is not None:
            self._seat.leave()
        self._owner.connections.discard(self)
        self._owner.group.discard(self)
        if self.serving and self.task is not None:
            self.task.cancel()

    async def _run(self) -> None:
        limits = self._owner.limits
        with contextlib.suppress(OSError, TimeoutError, asyncio.CancelledError):
            while True:
                try:
                    raw = await self.next_head(limits.wire, limits.head_timeout, limits.idle_timeout)
                    if raw is None:
                        break
                    self._serve(serving=True)
                    persistent = await self._request(parse_request_head(raw, limits.wire, self._last))
                    self._serve(serving=False)
                except KeyholeError as error:
                    self._refuse(error)
                    persistent = False
                if not persistent or self._owner.draining:
                    self.flush()
                    await self.linger(limits.linger, limits.linger_bytes)
                    break
        self._serve(serving=False)
        self.close(limits.linger)

    def _serve(self, *, serving: bool) -> None:
        """While a request is being answered, the connection keeps its place."""
        self.serving = serving
        seat = self._seat
        if seat is not None and serving:
            seat.work()
            # Many clients may come through one proxy: who has sent a whole request is no stranger at its address.
            seat.prove("", "anybody", (seat.capacity, seat.capacity))
        elif seat is not None:
            seat.rest()

    async def _request(self, head: RequestHead) -> bool:
        """Answer one request; whether the connection can serve another."""
        limits = self._owner.limits
        fields = head.fields
        known = fields is self._seen  # the very object: this client has sent the same header section again
        _check(head, known=known)
        decoder = request_decoder(head, limits.wire)
        body = None
        if decoder is not None and not decoder.done:
            expects = fields.get(b"expect", b"").lower() == b"100-continue"
            pace = Pace(limits.body_rate, limits.rate_window)
            body = RequestBody(self, decoder, limits.body_timeout, expects=expects, pace=pace)
        exchange = _Exchange(self, head, body, limits.write_timeout)
        await self._owner.application(self._scope(head), exchange.receive, exchange.send)
        if not exchange.finish() or head.minor == 0:
            return False
        if not known:
            # Who asked for another protocol, which there is none of, may go on in it.
            self._stays = b"upgrade" not in fields and b"close" not in list_tokens(head.headers, b"connection")
            self._seen = fields
        return self._stays

    def _scope(self, head: RequestHead) -> dict[str, Any]:
        raw_path, _, query = head.target.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": f"1.{head.minor}",
            "method": head.method,
            "scheme": "https" if self._secure else "http",
            "path": raw_path.decode("latin-1"),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": head.headers,
            "client": self._client,
            "server": None,
            "peer_certificate": self._certificate,
            "memo": self._memo,  # the application's own, for as long as the connection lasts
        }

    def _refuse(self, error: KeyholeError) -> None:
        if self._owner.on_refusal is not None:
            self._owner.on_refusal(error, self._client[0])
        status, headers, content = render_error(error, "services")
        extra = b"Content-Length: %d\r\nConnection: close\r\n" % len(content)
        self.write(serialise_answer(status, _REASONS.get(status, b""), headers, extra, own=True) + content)


class _Exchange:
    """One request and its answer, as ASGI sees them."""

    __slots__ = ("_body", "_chunked", "_done", "_head", "_read", "_start", "_timeout", "_wire")

    def __init__(self, wire: _Connection, head: RequestHead, body: RequestBody | None, timeout: float) -> None:
        self._wire = wire
        self._head = head
        self._body = body
        self._timeout = timeout
        self._read = False
        self._start: MutableMapping[str, Any] | None = None
        self._chunked = False
        self._done = False

    async def receive(self) -> dict[str, Any]:
        """The next event of the request."""
        if self._read:
            # The task is cancelled when the client goes, so there is nothing to wait for but that.
            await self._wire.loop.create_future()
        body = self._body
        chunk = await body.read() if body is not None else b""
        self._read = body is None or not chunk or body.ended
        return {"type": "http.request", "body": chunk, "more_body": not self._read}

    async def send(self, event: MutableMapping[str, Any]) -> None:
        """The next event of the answer."""
        if event["type"] == "http.response.start":
            self._start = event
            return
        if self._done:
            return
        content: bytes = event.get("body", b"")
        more = bool(event.get("more_body"))
        head = b""
        if self._start is not None:
            head = self._render_head(self._start, content, more=more)
            self._start = None
        if self._chunked and content:
            content = b"%x\r\n%b\r\n" % (len(content), content)
        if self._chunked and not more:
            content += b"0\r\n\r\n"
        self._done = not more
        self._wire.write(head + content)
        if self._wire.clogged:
            self._wire.write_deadline = self._wire.loop.time() + self._timeout
            await self._wire.drain()
            self._wire.write_deadline = NEVER

    def finish(self) -> bool:
        """Whether the answer was given whole and the request was read to its end."""
        if not self._done:
            raise BadRequestFraming("the application gave no whole answer")
        return self._body is None or self._body.settle()

    def _render_head(self, start: MutableMapping[str, Any], content: bytes, *, more: bool) -> bytes:
        status = int(start["status"])
        headers = start["headers"]  # their names are in lower case (ASGI 3, "Response Start")
        declared = dict(headers).get(b"content-length")
        extra = b""
        if declared is not None:
            extra = b"Content-Length: %b\r\n" % declared
        elif more:
            self._chunked = True
            extra = b"Transfer-Encoding: chunked\r\n"
        elif status not in {204, 304}:
            extra = b"Content-Length: %d\r\n" % len(content)
        if self._wire._owner.draining:  # noqa: SLF001 - one unit with its connection
            extra += b"Connection: close\r\n"
        return serialise_answer(status, _REASONS.get(status, b""), headers, extra, own=True)


def _check(head: RequestHead, *, known: bool) -> None:
    """What a server demands beyond the grammar: one readable Host, an origin-form target."""
    host = head.fields.get(b"host")
    if host is None and head.minor:
        raise Malformed("the request has no Host")
    if host and not known:
        parse_authority(host, 80)
    if not head.target.startswith(b"/"):
        raise Malformed("the target is not in origin form", "send METHOD /path HTTP/1.1")

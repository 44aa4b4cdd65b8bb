"""One client of the proxy: requests in, answers out, one after the other, on one task for the whole connection.

Read this file from ``_serve`` down. Whatever is not answered in full ends the connection in a way that the client can
see: it never takes a part of an answer for the whole.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import weakref
from collections.abc import Callable
from typing import Protocol

from keyhole.core.errors import (
    BadRequestFraming,
    InternalError,
    InvalidRequest,
    KeyholeError,
    UpstreamUnreachable,
    fault_place,
)
from keyhole.core.host import parse_host
from keyhole.core.message import Answer, Body, Call, Stream
from keyhole.core.passthrough import SCHEMES as PASSED
from keyhole.core.sql import SqlCall
from keyhole.core.ssh import SPOKEN as SSH_AGENT
from keyhole.faces.proxy.gate import Tunnel, admit, connect_authority, passing, read_credential
from keyhole.faces.proxy.refusal import ESTABLISHED, render_refusal
from keyhole.faces.proxy.relay import switching
from keyhole.net.carry import carry
from keyhole.net.http1.body import RequestBody
from keyhole.net.http1.framing import Decoder, request_decoder
from keyhole.net.http1.grammar import (
    LastFields,
    Malformed,
    RequestHead,
    parse_request_head,
)
from keyhole.net.http1.limits import ListenerLimits
from keyhole.net.http1.pace import Pace, window_for
from keyhole.net.http1.serialise import serialise_answer, serialise_trailers
from keyhole.net.http1.server import ServerWire
from keyhole.net.http1.tls import TlsChannel
from keyhole.net.http1.wire import NEVER, Wire, WireGroup

_log = logging.getLogger("keyhole.proxy")

# The host that a handshake must ask for, by the object that the context's callback receives.
_EXPECTED_NAMES: weakref.WeakKeyDictionary[ssl.SSLObject, str] = weakref.WeakKeyDictionary()

_MOMENT = 1.0  # seconds
_TLS_HANDSHAKE = 0x16  # the content type of a TLS record that begins a connection (RFC 8446 section 5.1)


class Broker(Protocol):
    """What decides and acts for the proxy. It refuses by raising ``KeyholeError``.

    An error may carry the attribute ``request_id``, which then stands in the refusal.
    """

    async def open_tunnel(
        self, credential: bytes, host: str, port: int, remote: str, service: str
    ) -> ssl.SSLContext | str | None:
        """Judge a CONNECT: who asks, and whether there is anything for this caller at this host.

        Returns:
            The server's side of TLS for this host; the same object for the same host while its certificate lives.
            ``None`` when only plain HTTP may be spoken inside; the scheme of a database that is spoken inside, or of a
            tunnel that is passed on, which ``handle`` opens; ``core.ssh.SPOKEN`` for an agent of SSH.
        """

    async def handle(self, call: Call) -> Answer:
        """Make the call. The answer's body may have an async ``close``, which is called when it is not read to its end.

        The task is cancelled when the client goes away.
        """

    def note_refusal(self, error: KeyholeError, remote: str) -> None:
        """Record that a request was refused before there was a call. May give the error its ``request_id``."""


class Databases(Protocol):
    """What serves the clients of databases inside tunnels."""

    async def serve(self, wire: Wire, call: SqlCall, begun: Callable[[Stream], None]) -> None:
        """Serve one to its end; ``begun`` is told when its session has begun."""


class Agents(Protocol):
    """What serves the clients of an SSH agent inside tunnels."""

    async def serve(self, wire: Wire, credential: bytes, remote: str) -> None:
        """Serve one to its end."""


class Owner(Protocol):
    """What a connection needs of its listener."""

    broker: Broker
    databases: Databases | None
    agents: Agents | None
    limits: ListenerLimits
    pseudonym: bytes
    via: bytes
    group: WireGroup
    draining: bool

    def opened(self, connection: ProxyConnection) -> bool:
        """Count a connection; whether there is room for it."""

    def closed(self, connection: ProxyConnection) -> None:
        """Forget a connection."""


class ProxyConnection(ServerWire):
    """The server's side of one client connection."""

    __slots__ = (
        "_credential",
        "_credential_header",
        "_fields",
        "_grace",
        "_head_unsent",
        "_owner",
        "_remote",
        "_trailers",
        "_tunnel",
        "serving",
        "stream",
        "task",
    )

    def __init__(self, owner: Owner) -> None:
        super().__init__(owner.group)
        self._owner = owner
        self._credential = b""
        self._credential_header: bytes | None = None
        self._tunnel: Tunnel | None = None
        self._remote = ""
        self._fields = LastFields()
        self._head_unsent = self._trailers = False
        self._grace: asyncio.TimerHandle | None = None
        self.serving = False
        self.stream: Stream | None = None
        self.task: asyncio.Task[None] | None = None

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve, or turn the client away when there are too many."""
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._remote = str(peer[0]) if isinstance(peer, tuple) else ""
        if not self._owner.opened(self):
            transport.close()
            return
        self.task = self.loop.create_task(self._run())

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: whatever is being done for it stops."""
        super().connection_lost(exc)
        self._owner.closed(self)
        if self._grace is not None:
            self._grace.cancel()
        if self.serving and self.task is not None:
            self.task.cancel()

    def input_ended(self) -> None:
        """A client that ended its side while it waits for an answer has gone, or has little patience left."""
        super().input_ended()
        if self.serving and self._grace is None:
            self._grace = self.loop.call_later(self._owner.limits.linger, self.abort)

    # One task, from the first byte to the last.

    async def _run(self) -> None:
        try:
            await self._serve()
        except (OSError, ssl.SSLError):
            self.abort()
        except asyncio.CancelledError:
            self.abort()
        except Exception as error:  # noqa: BLE001 - a fault of ours ends this connection only, and is logged
            _log.error("internal error: %s", fault_place(error))
            self.abort()
        finally:
            self.serving = False
            self.flush()
            self.close(self._owner.limits.linger)

    async def _serve(self) -> None:
        owner = self._owner
        limits = owner.limits
        while True:
            try:
                raw = await self.next_head(limits.wire, limits.head_timeout, limits.idle_timeout)
            except Malformed as error:
                await self._turn_away(error)
                return
            if raw is None:
                return
            self.serving = True
            persistent = await self._request(raw)
            self.serving = False
            if not persistent or owner.draining:
                self.flush()
                await self.linger(limits.linger, limits.linger_bytes)
                return

    async def _request(self, raw: bytes) -> bool:
        """Answer one request. Whether the connection can serve another."""
        owner = self._owner
        self.flush()
        head = None
        try:
            head = parse_request_head(raw, owner.limits.wire, self._fields)
            if head.method == "CONNECT":
                return await self._connect(head)
            self._read_credential(head)
            call, persistent, expects = admit(head, self._tunnel, self._credential, self._remote, owner.pseudonym)
            decoder = request_decoder(head, owner.limits.wire)
            body = None
            if decoder is not None and not decoder.done:
                body = call.body = self._body(head, decoder, expects=expects)
        except KeyholeError as error:
            owner.broker.note_refusal(error, self._remote)
            self.write(render_refusal(error, close=True, head_only=head is not None and head.method == "HEAD"))
            return False
        try:
            answer = await owner.broker.handle(call)
        except KeyholeError as error:
            return self._refuse(error, head, body, persistent)
        except Exception as error:  # noqa: BLE001 - a fault of ours is a 500, logged without values
            _log.error("internal error: %s", fault_place(error))
            return self._refuse(InternalError("the broker failed", "see the server's log"), head, body, persistent)
        self._trailers = call.trailers
        return await self._answer(answer, head, body, persistent)

    def _body(self, head: RequestHead, decoder: Decoder, *, expects: bool) -> RequestBody:
        limits = self._owner.limits
        pace = Pace(limits.body_rate, window_for(head.fields, limits.rate_window, declared=True))
        return RequestBody(self, decoder, limits.body_timeout, expects=expects, pace=pace)

    def _read_credential(self, head: RequestHead) -> None:
        if self._tunnel is not None:
            return
        value = head.fields.get(b"proxy-authorization")
        if value != self._credential_header:
            self._credential_header = value
            self._credential = read_credential(value)

    # CONNECT.

    async def _connect(self, head: RequestHead) -> bool:
        if self._tunnel is not None:
            raise InvalidRequest("CONNECT inside a tunnel is refused", "send it to the proxy's own port")
        authority = connect_authority(head)
        self._read_credential(head)
        service = head.fields.get(b"x-keyhole-service", b"").decode("latin-1")
        try:
            context = await self._owner.broker.open_tunnel(
                self._credential, authority.host, authority.port, self._remote, service
            )
            if context in PASSED:
                return await self._pass_on(passing(self._credential, str(context), authority, self._remote, service))
        except KeyholeError as error:
            self.write(render_refusal(error, close=True))
            return False
        self.write(ESTABLISHED)
        self.flush()
        if context == SSH_AGENT:
            if self._owner.agents is not None:
                await self._owner.agents.serve(self, self._credential, self._remote)
            return False
        if isinstance(context, str):
            await self._serve_database(SqlCall(self._credential, context, service, authority, remote=self._remote))
            return False
        self._tunnel = Tunnel("http", authority.host, authority.port, self._credential)
        self.serving = False
        self.read_deadline = self.loop.time() + self._owner.limits.tunnel_timeout
        while not self.buffer:
            if self.eof:
                return False
            await self.wait()
        if self.buffer[0] == _TLS_HANDSHAKE:
            if context is None:
                return False
            self._tunnel.scheme = "https"
            await self._accept_tls(context, authority.host)
        self.read_deadline = NEVER
        return True

    async def _pass_on(self, call: Call) -> bool:
        """A tunnel that is not looked into. Raises what refuses it, before the client is told that it is there."""
        self.serving = True
        answer = await self._owner.broker.handle(call)
        stream = answer.stream
        if stream is None:
            raise InternalError("the broker opened no tunnel", "see the server's log")
        self.write(ESTABLISHED)
        self.stream = stream
        answer.on_cut = self.abort
        if self._owner.draining:
            stream.leave()
        await carry(self, stream, self._owner.limits.write_timeout)
        return False

    async def _serve_database(self, call: SqlCall) -> None:
        def begun(stream: Stream) -> None:
            self.stream = stream
            if self._owner.draining:
                stream.leave()

        if self._owner.databases is not None:
            await self._owner.databases.serve(self, call, begun)

    async def _accept_tls(self, context: ssl.SSLContext, host: str) -> None:
        if context.sni_callback is not _check_server_name:
            context.sni_callback = _check_server_name
        channel = TlsChannel(context, server_side=True)
        _EXPECTED_NAMES[channel.handle] = host
        self.start_tls(channel, client=False)
        await self.handshake()

    # Answers.

    async def _answer(self, answer: Answer, head: RequestHead, request: RequestBody | None, persistent: bool) -> bool:  # noqa: FBT001
        if answer.stream is not None:
            return await self._relay(answer, answer.stream)
        body = answer.body
        bodiless = head.method == "HEAD" or answer.status in {204, 304}
        chunked = False
        extra = self._owner.via
        if bodiless:
            extra += _declared_length(answer)
        elif body is None:
            extra += b"Content-Length: 0\r\n"
        elif body.length is not None:
            extra += b"Content-Length: %d\r\n" % body.length
        elif head.minor:
            chunked = True
            extra += b"Transfer-Encoding: chunked\r\n"
        else:
            persistent = False
        if request is not None and not request.settle():
            persistent = False
        if not persistent:
            extra += b"Connection: close\r\n"
        try:
            rendered = serialise_answer(answer.status, answer.reason, answer.headers, extra)
        except InvalidRequest:
            await _give_up(body)
            broken = UpstreamUnreachable("the answer has a header that would break its framing")
            return self._refuse(broken, head, request, persistent)
        self._head_unsent = True
        self.write(rendered)
        if body is None:
            return persistent
        if bodiless:
            await _give_up(body)
            return persistent
        answer.on_cut = self.hurry
        return await self._answer_body(body, head, request, persistent, chunked=chunked)

    async def _relay(self, answer: Answer, stream: Stream) -> bool:
        """The connection changes its protocol, and serves no request afterwards."""
        try:
            head = switching(answer, self._owner.via)
        except InvalidRequest:
            await stream.close()
            self.write(render_refusal(UpstreamUnreachable("the answer has a header that would break it"), close=True))
            return False
        self.write(head)
        self.stream = stream
        answer.on_cut = self.hurry
        if self._owner.draining:
            stream.leave()
        await carry(self, stream, self._owner.limits.write_timeout)
        return False

    async def _answer_body(
        self,
        body: Body,
        head: RequestHead,
        request: RequestBody | None,
        persistent: bool,  # noqa: FBT001 - carried through
        *,
        chunked: bool,
    ) -> bool:
        left = body.length
        try:
            while chunk := await body.read():
                if left is not None:
                    left -= len(chunk)
                    if left < 0:
                        raise UpstreamUnreachable("the answer is longer than was declared")  # noqa: TRY301
                self.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
                if self._write_paused:
                    self.write_deadline = self.loop.time() + self._owner.limits.write_timeout
                    await self.drain()
                    self.write_deadline = NEVER
            if left:
                raise UpstreamUnreachable("the answer is shorter than was declared")  # noqa: TRY301
        except KeyholeError as error:
            await _give_up(body)
            return self._break_off(error, head, request, persistent, ends_by_close=left is None and not chunked)
        except BaseException:
            await _give_up(body)
            raise
        if chunked:
            self.write(serialise_trailers(body.trailers if self._trailers else []))
        return persistent

    def _break_off(
        self,
        error: KeyholeError,
        head: RequestHead,
        request: RequestBody | None,
        persistent: bool,  # noqa: FBT001 - carried through
        *,
        ends_by_close: bool,
    ) -> bool:
        """An answer cannot be completed: refuse while nothing of it was sent, else let the client see it broken."""
        taken_back = self._head_unsent
        self.unsend()
        if taken_back:
            return self._refuse(error, head, request, persistent)
        if ends_by_close:
            self.reset()
        else:
            self.transport.close()  # without close_notify, and before the announced end
        return False

    def _refuse(
        self,
        error: KeyholeError,
        head: RequestHead,
        request: RequestBody | None,
        persistent: bool,  # noqa: FBT001 - carried through
    ) -> bool:
        if isinstance(error, BadRequestFraming) or (request is not None and not request.discard()):
            persistent = False
        self.write(render_refusal(error, close=not persistent, head_only=head.method == "HEAD"))
        return persistent

    async def _turn_away(self, error: Malformed) -> None:
        """Answer a head that could not be read, and close."""
        self._owner.broker.note_refusal(error, self._remote)
        self.write(render_refusal(error, close=True))
        self.flush()
        await self.linger(self._owner.limits.linger, self._owner.limits.linger_bytes)

    def hurry(self) -> None:
        """What is being answered is cut off: a client that does not read gets a moment longer, and no more."""
        self.write_deadline = min(self.write_deadline, self.loop.time() + _MOMENT)

    def flush(self) -> None:
        """As in ``Wire``; from here on the answer cannot be taken back."""
        self._head_unsent = False
        super().flush()


def _declared_length(answer: Answer) -> bytes:
    """The ``Content-Length`` of an answer that has none of its bytes (RFC 9110 section 8.6)."""
    if answer.status == 204:
        return b""
    for name, value in answer.headers:
        if name == b"content-length" and value.isdigit():
            return b"Content-Length: %b\r\n" % value
    return b""


async def _give_up(body: Body | None) -> None:
    """Close a body that is not read to its end, so that its connection to the upstream ends."""
    close = getattr(body, "close", None)
    if close is not None:
        await close()


def _check_server_name(handle: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> int | None:
    """Refuse a handshake whose server name is not the host of its tunnel."""
    expected = _EXPECTED_NAMES.get(handle)
    if name is None or expected is None:
        return None
    try:
        same = parse_host(name) == expected
    except KeyholeError:
        same = False
    return None if same else ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME

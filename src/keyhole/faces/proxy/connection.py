"""One client of the proxy: requests in, answers out, one after the other, on one task for the whole connection.

Read this file from ``_serve`` down; ``answering`` says how, ``tunnelling`` how tunnels begin, and ``streams`` what
becomes of a connection of HTTP/2.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from functools import partial

from keyhole.core.errors import InternalError, InvalidRequest, KeyholeError, fault_place
from keyhole.core.message import Call, Stream
from keyhole.core.passthrough import SCHEMES as PASSED
from keyhole.core.sql import SqlCall
from keyhole.core.ssh import SPOKEN as SSH_AGENT
from keyhole.faces.proxy import socks
from keyhole.faces.proxy.gate import LastAdmitted, admit, passing, read_credential
from keyhole.faces.proxy.owner import Owner
from keyhole.faces.proxy.refusal import ESTABLISHED, FULL, render_refusal
from keyhole.faces.proxy.regulars import Connect, read_connect
from keyhole.faces.proxy.streams import StreamFace
from keyhole.faces.proxy.tunnelling import TunnelWire
from keyhole.net.carry import carry
from keyhole.net.http1.body import RequestBody
from keyhole.net.http1.framing import Decoder, request_decoder
from keyhole.net.http1.grammar import LastFields, Malformed, RequestHead, parse_request_head
from keyhole.net.http1.pace import Pace, window_for
from keyhole.net.http1.wire import NEVER
from keyhole.net.http2.frames import ConnectionFault
from keyhole.net.http2.preface import begins_with_preface, may_begin

_log = logging.getLogger("keyhole.proxy")


_MOMENT = 1.0  # seconds


class ProxyConnection(TunnelWire):
    """The server's side of one client connection."""

    __slots__ = ("_credential_header", "_grace", "_passing", "_serving", "_streams", "task")

    def __init__(self, owner: Owner) -> None:
        super().__init__(owner)
        self._credential_header: bytes | None = None
        self._grace: asyncio.TimerHandle | None = None
        self._streams: StreamFace | None = None
        self._passing = False
        self._serving = False
        self.task: asyncio.Task[None] | None = None

    @property
    def serving(self) -> bool:
        """Whether a request is being answered: then the client is waited for, and its place is its own."""
        return self._serving

    @serving.setter
    def serving(self, serving: bool) -> None:
        self._serving = serving
        if self.seat is not None:
            self.seat.work() if serving else self.seat.rest()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to serve, or turn the client away when there are too many."""
        super().connection_made(transport)
        peer = transport.get_extra_info("peername")
        self._remote = str(peer[0]) if isinstance(peer, tuple) else ""
        if self._owner.draining:
            self.close()
            return
        self.seat = self._owner.opened(self, self._remote)
        if self.seat is None:
            self._no_room()
            return
        self.read_deadline = self.loop.time() + self._owner.limits.idle_timeout

    def _no_room(self) -> None:
        """Tell the client, and close."""
        if not self._owner.limits.strangers:
            self.close()
            return
        self.write(FULL)
        self.end()
        # What it has sent by then would make a close reset the answer away (RFC 9112 section 9.6).
        self._grace = self.loop.call_later(_MOMENT if self._owner.may_linger(self) else 0, self.abort)

    def unawaited(self) -> None:
        """Bytes came that nobody waits for: the first ones begin the work, unless that is done already."""
        if self.task is None and self.seat is not None and not self.at_once():
            self._begin()
        super().unawaited()

    def shaken(self) -> None:
        """As in ``Wire``; a client that is waited for without a task has time again for its first request."""
        super().shaken()
        if self.task is not None or self.tls is None:
            return
        if self.failure is not None or self.tls.alpn == "h2":  # there is something to record, or to say
            self._begin()
        else:
            self.read_deadline = self.loop.time() + self._owner.limits.idle_timeout

    def _begin(self) -> None:
        self.task = self.loop.create_task(self._run())

    def expire(self, now: float) -> None:
        """As in ``Wire``; a client that has said nothing is not waited for any longer."""
        if self.task is None and now > self.read_deadline:
            self.close(self._owner.limits.linger)
        super().expire(now)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: whatever is being done for it stops."""
        super().connection_lost(exc)
        self._owner.closed(self)
        if self._grace is not None:
            self._grace.cancel()
        if self.serving and self.task is not None:
            self.task.cancel()

    def input_ended(self) -> None:
        """A client that ended its side while it waits for an answer has gone, or has little patience left.

        In a tunnel that is passed on it may have said all that it has to say, and the other side not.
        """
        super().input_ended()
        if not self.serving:
            if not self.buffer:
                self.part()
            if self.task is None:
                self._ended_unserved()
        elif self._grace is None and not self._passing:
            self._grace = self.loop.call_later(self._owner.limits.linger, self.abort)

    def _ended_unserved(self) -> None:
        if self.tls is not None and self.tls.closed:  # its last request may have come with its goodbye
            self._begin()
        else:
            self.close(self._owner.limits.linger)

    def leave(self) -> None:
        """The listener is about to stop: what is under way may end, and nothing new begins."""
        if self._streams is not None:
            self._streams.leave()
        elif not self.serving:
            self.close()
        elif self.stream is not None:
            self.stream.leave()

    # One task, from what has to be waited for first to the last byte.

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
        if self._led is not None:
            if await self._inside(*self._led):
                await self._serve_requests()
            return
        if await self._speaks_http2():
            await self._serve_streams()
            return
        if self.buffer[:1] == socks.VERSION and not await self._socks():
            self.flush()
            await self.linger(limits.linger, limits.linger_bytes)
            return
        await self._serve_requests()

    async def _speaks_http2(self) -> bool:
        """Whether a client of the proxy's own port speaks HTTP/2; under TLS ALPN says so (RFC 9113 section 3.3)."""
        under_tls: ssl.SSLObject | None = self.transport.get_extra_info("ssl_object")
        preface = may_begin(self.buffer) and await begins_with_preface(self, self._owner.limits.head_timeout)
        return preface if under_tls is None else under_tls.selected_alpn_protocol() == "h2"

    async def _serve_requests(self) -> None:
        """Serve requests one after the other, to the end of the connection."""
        owner = self._owner
        limits = owner.limits
        if self._tunnel is None:
            self._fields, self._last = LastFields(), LastAdmitted()
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
        head = body = None
        try:
            known = self._last.again(raw, self._tunnel, self.seat)
            if known is not None:
                head, (call, persistent, _) = known
            else:
                if raw.startswith(b"CONNECT "):
                    return await self._connect(raw)
                head = parse_request_head(raw, owner.limits.wire, self._fields)
                self._read_credential(head)
                admitted = admit(head, self._tunnel, self._credential, self._remote, owner.pseudonym)
                call, persistent, expects = admitted
                call.seat = self.seat
                decoder = request_decoder(head, owner.limits.wire)
                if decoder is None:
                    self._last.keep(raw, head, self._tunnel, admitted)
                elif not decoder.done:
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

    async def _connect(self, raw: bytes) -> bool:
        if self._tunnel is not None:
            raise InvalidRequest("CONNECT inside a tunnel is refused", "send it to the proxy's own port")
        regulars = self._owner.regulars
        known = regulars.find(raw, self._remote)
        connect = known or read_connect(raw, self._owner.limits.wire)
        remember = None if known else partial(regulars.keep, raw, self._remote, connect, regulars.forgotten)
        try:
            return await self._open(connect, lambda: self.write_now(ESTABLISHED), remember)
        except KeyholeError as error:
            self.write(render_refusal(error, close=True))
            return False

    async def _socks(self) -> bool:
        """A tunnel for a client of SOCKS 5. Whether requests are served in it."""
        self.read_deadline = self.loop.time() + self._owner.limits.head_timeout
        self.serving = True
        try:
            asked = await socks.greet(self)
            self.read_deadline = NEVER
            if asked is None:
                return False
            connect = Connect(asked.authority, asked.credential)
            return await self._open(connect, lambda: self.write_now(socks.SUCCEEDED))
        except socks.Unspoken as error:
            self._owner.broker.note_refusal(error, self._remote)
            self.write(error.answer)
        except KeyholeError as error:
            self.write(socks.refused(error))
        finally:
            self.serving = False
        return False

    async def _open(
        self, connect: Connect, established: Callable[[], None], remember: Callable[[], None] | None = None
    ) -> bool:
        """Open a tunnel. Whether requests are served in it.

        Args:
            connect: what was asked for.
            established: tells the client that it is there.
            remember: called if requests may be served in it.

        Raises:
            KeyholeError: it is refused, and the client was told nothing yet.
        """
        authority, service = connect.authority, connect.service
        self._credential = connect.credential
        context = await self._owner.broker.open_tunnel(
            self._credential, authority.host, authority.port, self._remote, service, self.seat
        )
        if context in PASSED:
            call = passing(self._credential, str(context), authority, self._remote, service)
            call.seat = self.seat
            return await self._pass_on(call, established)
        established()
        if context == SSH_AGENT:
            if self._owner.agents is not None:
                await self._owner.agents.serve(self, self._credential, self._remote)
            return False
        if isinstance(context, str):
            await self._serve_database(SqlCall(self._credential, context, service, authority, remote=self._remote))
            return False
        if remember is not None:
            remember()
        self.serving = False
        self.lead(connect, context)
        return await self._inside(connect, context)

    async def _inside(self, connect: Connect, context: ssl.SSLContext | None) -> bool:
        """Serve what is spoken in a tunnel, if that is HTTP/2. Whether requests of HTTP/1 are to be served in it."""
        http2 = await self.enter(connect, context)
        self.read_deadline = NEVER
        if http2:
            await self._serve_streams()
        return http2 is False

    async def _serve_streams(self) -> None:
        """Serve what speaks HTTP/2 to its end."""
        owner = self._owner
        self._streams = StreamFace(self, owner, self._tunnel, self._remote, self.seat)
        self._serving = True  # its place is its own while there are streams, which the face says
        try:
            await self._streams.run()
        except ConnectionFault as fault:
            owner.broker.note_refusal(fault, self._remote)
        self.serving = False
        self.flush()
        await self.linger(owner.limits.linger, owner.limits.linger_bytes)

    async def _pass_on(self, call: Call, established: Callable[[], None]) -> bool:
        """A tunnel that is not looked into. Raises what refuses it, before the client is told that it is there."""
        self.serving = True
        answer = await self._owner.broker.handle(call)
        stream = answer.stream
        if stream is None:
            raise InternalError("the broker opened no tunnel", "see the server's log")
        established()
        self.stream = stream
        self._passing = True
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

    async def _turn_away(self, error: Malformed) -> None:
        """Answer a head that could not be read, and close."""
        self._owner.broker.note_refusal(error, self._remote)
        self.write(render_refusal(error, close=True))
        self.flush()
        await self.linger(self._owner.limits.linger, self._owner.limits.linger_bytes)

"""Requests that come by HTTP/2: each stream is judged, made a call of and answered as a request of HTTP/1.1 is.

A refusal is an answer on its stream; the others go on.
"""

from __future__ import annotations

import contextlib
import logging

from keyhole.core.errors import (
    BadRequestFraming,
    InternalError,
    InvalidRequest,
    KeyholeError,
    UpstreamUnreachable,
    fault_place,
)
from keyhole.core.grpc import is_grpc
from keyhole.core.host import Authority
from keyhole.core.message import Answer, Body, Call, Stream
from keyhole.faces.proxy.answering import give_up
from keyhole.faces.proxy.gate import Tunnel, admit, connect_authority, read_credential
from keyhole.faces.proxy.owner import Owner
from keyhole.faces.proxy.refusal import grpc_refusal, refusal
from keyhole.net.guests import Guest
from keyhole.net.http1.grammar import RequestHead
from keyhole.net.http1.pace import Pace, window_for
from keyhole.net.http1.serialise import answer_fields
from keyhole.net.http1.wire import Wire
from keyhole.net.http2 import frames
from keyhole.net.http2.carry import carry_stream
from keyhole.net.http2.head import Http2Head
from keyhole.net.http2.server import ServerSession
from keyhole.net.http2.stream import ServerStream

_log = logging.getLogger("keyhole.proxy")


class StreamFace:
    """Answers the streams of one connection.

    Args:
        wire: the connection, at the preface.
        owner: the listener.
        tunnel: the tunnel that the connection came through; ``None`` on the proxy's own port.
        remote: the client's address, for the record.
        seat: the connection as the listener counts it.
    """

    __slots__ = (
        "_credential",
        "_credential_header",
        "_open",
        "_owner",
        "_relayed",
        "_remote",
        "_seat",
        "_session",
        "_tunnel",
    )

    def __init__(self, wire: Wire, owner: Owner, tunnel: Tunnel | None, remote: str, seat: Guest | None) -> None:
        self._owner = owner
        self._session = ServerSession(wire, owner.limits, self._serve, owner, self._in_turn)
        self._relayed: set[Stream] = set()
        self._tunnel = tunnel
        self._remote = remote
        self._seat = seat
        self._open = 0
        self._credential = b"" if tunnel is None else tunnel.credential
        self._credential_header: bytes | None = None

    async def run(self) -> None:
        """Serve the connection to its end. Raises ``ConnectionFault`` when the client broke a rule."""
        if self._owner.draining:
            self.leave()
        await self._session.run()

    def leave(self) -> None:
        """Take no further requests; streams that last are told to end."""
        self._session.leave()
        for stream in self._relayed:
            stream.leave()

    async def _in_turn(self) -> None:
        with contextlib.suppress(KeyholeError):  # without a vault there is nobody to wait for, and calls are refused
            await self._owner.broker.in_turn(self._seat, self._remote)

    async def _serve(self, stream: ServerStream) -> None:
        """Answer one request, during which the connection keeps its place."""
        self._open += 1
        if self._seat is not None:
            self._seat.work()
        try:
            await self._serve_one(stream)
        finally:
            self._open -= 1
            if self._seat is not None and not self._open:
                self._seat.rest()

    async def _serve_one(self, stream: ServerStream) -> None:
        broker = self._owner.broker
        try:
            head = _believed(stream)
            authority = self._destination(head.head) if head.head.method == "CONNECT" else None
            call = await self._call(stream, head) if authority is None else None
        except KeyholeError as error:
            broker.note_refusal(error, self._remote)
            self._refuse(stream, error)
            return
        try:
            if authority is not None:
                await self._tunnel_on(stream, head.head, authority)
            if call is None:
                return
            answer = await broker.handle(call)
        except KeyholeError as error:
            self._refuse(stream, error)
            return
        except Exception as error:  # noqa: BLE001 - a fault of ours is a 500, logged without values
            _log.error("internal error: %s", fault_place(error))
            self._refuse(stream, InternalError("the broker failed", "see the server's log"))
            return
        try:
            await self._answer(stream, head, answer)
        except BaseException:
            await give_up(answer.body)
            raise

    def _destination(self, head: RequestHead) -> Authority:
        """Where a CONNECT is to lead."""
        if self._tunnel is not None:
            raise InvalidRequest("CONNECT inside a tunnel is refused", "send it to the proxy's own port")
        return connect_authority(head)

    async def _tunnel_on(self, stream: ServerStream, head: RequestHead, authority: Authority) -> None:
        """Carry a tunnel to its end. Raises what refuses it, as yet unanswered."""
        self._read_credential(head.fields.get(b"proxy-authorization"))
        service = head.fields.get(b"x-keyhole-service", b"").decode("latin-1")
        await self._owner.tunnel(stream, authority, service, self._credential, self._remote)

    async def _call(self, stream: ServerStream, head: Http2Head) -> Call:
        """What is asked for, as the gate admits it."""
        owner, tunnel = self._owner, self._tunnel
        judged = head.head
        if tunnel is None:
            judged = judged._replace(target=b"%b://%b%b" % (head.scheme.encode(), head.authority, judged.target))
            self._read_credential(judged.fields.get(b"proxy-authorization"))
        elif head.scheme != tunnel.scheme:
            raise BadRequestFraming("the scheme is not that of the tunnel", f"send {tunnel.scheme}")
        if head.extended and stream.ended:
            raise BadRequestFraming("an extended CONNECT that ends at once")
        call, _, expects = admit(judged, tunnel, self._credential, self._remote, owner.pseudonym)
        call.http2, call.seat = True, self._seat
        if head.extended:
            return call
        if not stream.bodiless:
            limits = owner.limits
            window = window_for(judged.fields, limits.rate_window, declared=True)
            stream.expect(Pace(limits.body_rate, window), continuing=expects)
            if stream.length == 0:
                await stream.read()  # nothing is sent before it is sure that this is its end
            else:
                call.body = stream
        return call

    def _read_credential(self, value: bytes | None) -> None:
        if value != self._credential_header:
            self._credential_header = value
            self._credential = read_credential(value)

    # Answers.

    async def _answer(self, stream: ServerStream, head: Http2Head, answer: Answer) -> None:
        body = answer.body
        if answer.stream is not None:
            await self._relay(stream, answer)
            return
        bodiless = head.head.method == "HEAD" or answer.status in {204, 304}
        try:
            fields = answer_fields(answer.headers)
        except InvalidRequest:
            await give_up(body)
            self._refuse(stream, UpstreamUnreachable("the answer has a header that would break its framing"), head)
            return
        fields.append((b"via", self._owner.via_value))
        if bodiless:
            fields += _declared_length(answer)
        elif body is None:
            fields.append((b"content-length", b"0"))
        elif body.length is not None:
            fields.append((b"content-length", b"%d" % body.length))
        if body is None or bodiless:
            stream.begin(answer.status, fields, end=True)
            await give_up(body)
            return
        failure: KeyholeError | None = getattr(body, "failure", None)
        if failure is not None:
            await give_up(body)
            self._refuse(stream, failure, head)
            return
        answer.on_cut = stream.hurry
        stream.begin(answer.status, fields)
        await self._answer_body(stream, head, body)

    async def _answer_body(self, stream: ServerStream, head: Http2Head, body: Body) -> None:
        """Send a body; its last chunk goes when it is sure that it is the last."""
        left = body.length
        try:
            chunk = await body.read()
            while chunk:
                if left is not None:
                    left -= len(chunk)
                    if left < 0:
                        raise UpstreamUnreachable("the answer is longer than was declared")
                if left != 0:
                    await stream.send(chunk)
                    chunk = await body.read()
                    continue
                if await body.read():
                    raise UpstreamUnreachable("the answer is longer than was declared")
                if body.trailers:
                    await stream.send(chunk)
                    break
                await stream.send(chunk, end=True)
                return
            if left:
                raise UpstreamUnreachable("the answer is shorter than was declared")
        except KeyholeError as error:
            await give_up(body)
            if stream.take_back():
                self._refuse(stream, error, head)
            else:
                stream.reset(frames.INTERNAL_ERROR)
            return
        if body.trailers:
            stream.finish(body.trailers)
        else:
            await stream.send(b"", end=True)

    async def _relay(self, stream: ServerStream, answer: Answer) -> None:
        """A WebSocket on a stream (RFC 8441 section 5): the answer to a handshake is 200 here, and frames are DATA."""
        relayed = answer.stream
        if relayed is None:
            return
        try:
            fields = [pair for pair in answer_fields(answer.headers) if pair[0] != b"sec-websocket-accept"]
        except InvalidRequest:
            await relayed.close()
            self._refuse(stream, UpstreamUnreachable("the answer has a header that would break it"))
            return
        fields.append((b"via", self._owner.via_value))
        answer.on_cut = stream.hurry
        stream.begin(200, fields)
        self._relayed.add(relayed)
        try:
            if self._owner.draining:
                relayed.leave()
            await carry_stream(stream, relayed)
        finally:
            self._relayed.discard(relayed)

    @staticmethod
    def _refuse(stream: ServerStream, error: KeyholeError, head: Http2Head | None = None) -> None:
        """Answer with a refusal. It is sent at once: it is small, and never more than one is open for a stream."""
        head = head or stream.head
        if head is not None and is_grpc(head.head.headers):
            stream.begin(200, grpc_refusal(error), end=True)
            return
        status, fields, body = refusal(error)
        if head is not None and head.head.method == "HEAD" and not head.extended:
            stream.begin(status, fields, end=True)
        else:
            stream.answer_whole(status, fields, body)


def _believed(stream: ServerStream) -> Http2Head:
    if stream.error is not None:
        raise stream.error
    if stream.head is None:
        raise BadRequestFraming("the request has no head")
    return stream.head


def _declared_length(answer: Answer) -> list[tuple[bytes, bytes]]:
    """The ``content-length`` of an answer that has none of its bytes (RFC 9110 section 8.6)."""
    if answer.status == 204:
        return []
    return [pair for pair in answer.headers if pair[0] == b"content-length" and pair[1].isdigit()][:1]

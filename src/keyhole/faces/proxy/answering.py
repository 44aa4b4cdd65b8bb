"""Answers over HTTP/1: the broker's and the proxy's own, framed, paced, and broken off where they cannot be completed.

Whatever is not answered in full ends the connection in a way that the client can see: it never takes a part of an
answer for the whole.
"""

from __future__ import annotations

from keyhole.core.errors import BadRequestFraming, InvalidRequest, KeyholeError, UpstreamUnreachable
from keyhole.core.message import Answer, Body, Stream
from keyhole.faces.proxy.owner import Owner
from keyhole.faces.proxy.refusal import render_refusal
from keyhole.faces.proxy.relay import switching
from keyhole.net.carry import carry
from keyhole.net.http1.body import RequestBody
from keyhole.net.http1.grammar import RequestHead
from keyhole.net.http1.serialise import serialise_answer, serialise_trailers
from keyhole.net.http1.server import ServerWire
from keyhole.net.http1.wire import NEVER

_MOMENT = 1.0  # seconds
_SMALL = 16 * 1024  # bytes of a piece that is sent where it arrives
_WAITING = 32 * 1024  # bytes on their way to the client; beyond that, pieces are sent by who can wait for it


class AnsweringWire(ServerWire):
    """A connection, as far as it answers requests.

    Attributes:
        stream: what the connection carries once it has changed its protocol.
    """

    __slots__ = ("_head_unsent", "_owner", "_trailers", "stream")

    def __init__(self, owner: Owner) -> None:
        super().__init__(owner.group)
        self._owner = owner
        self._head_unsent = self._trailers = False
        self.stream: Stream | None = None

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
            await give_up(body)
            broken = UpstreamUnreachable("the answer has a header that would break its framing")
            return self._refuse(broken, head, request, persistent)
        self._head_unsent = True
        self.write(rendered)
        if body is None:
            return persistent
        if bodiless:
            await give_up(body)
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
        if chunked and (hand_on := getattr(body, "hand_on", None)) is not None:
            hand_on(self)
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
            await give_up(body)
            return self._break_off(error, head, request, persistent, ends_by_close=left is None and not chunked)
        except BaseException:
            await give_up(body)
            raise
        if chunked:
            self.write(serialise_trailers(body.trailers if self._trailers else []))
        return persistent

    def has_room(self, size: int) -> bool:
        """Whether a piece of a chunked answer may be sent from where it arrived. Then nobody has to wait for it."""
        return size <= _SMALL and not self._write_paused and self.transport.get_write_buffer_size() <= _WAITING

    def take(self, piece: bytes) -> None:
        """Send a piece of a chunked answer at once."""
        self.write_now(b"%x\r\n%b\r\n" % (len(piece), piece))

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


async def give_up(body: Body | None) -> None:
    """Close a body that is not read to its end, so that its connection to the upstream ends."""
    close = getattr(body, "close", None)
    if close is not None:
        await close()

"""One request to an upstream and its answer, on one stream of a connection of HTTP/2."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from keyhole.core.errors import InvalidRequest, KeyholeError, UpstreamTimeout, UpstreamUnreachable
from keyhole.core.message import Body, Headers, Message
from keyhole.core.trailers import of_answer, of_request
from keyhole.net.http1.client import Stale, Timeouts
from keyhole.net.http1.grammar import Malformed
from keyhole.net.http1.pace import Pace, TooSlow, window_for
from keyhole.net.http1.wire import NEVER
from keyhole.net.http2 import frames
from keyhole.net.http2.answers import read_answer
from keyhole.net.http2.frames import ConnectionFault
from keyhole.net.http2.head import check_trailers
from keyhole.net.http2.requests import NotTaken

if TYPE_CHECKING:
    from keyhole.net.http2.client import Http2Connection

_LATER = "try again later; if it goes on, ask who runs the API"
_THEIRS = "check host, port and scheme of the service, and report the fault to who runs the API"
_NOT_WORKED_ON = {frames.REFUSED_STREAM: NotTaken, 0xD: Stale}  # the latter is HTTP_1_1_REQUIRED


class Http2Answer:
    """The final answer to one request, once ``head`` has come; also its body.

    Attributes:
        number: of the stream.
        window: bytes of the request that the upstream will take.
        status, reason, headers, length, trailers: as of an answer of HTTP/1.1.
        read_deadline, write_deadline: loop times after which whoever waits gets ``TimeoutError``.
        over: we have ended our side, or the stream is reset.
        complete: the upstream has ended its side.
    """

    __slots__ = (
        "_answered",
        "_bodiless",
        "_bodily",
        "_connection",
        "_done",
        "_error",
        "_in_window",
        "_informational",
        "_message",
        "_pace",
        "_pump",
        "_received",
        "_room",
        "_timeouts",
        "_unread",
        "_unreturned",
        "_waiter",
        "complete",
        "headers",
        "length",
        "number",
        "over",
        "read_deadline",
        "reason",
        "status",
        "trailers",
        "window",
        "write_deadline",
    )

    def __init__(self, connection: Http2Connection, number: int, message: Message, timeouts: Timeouts) -> None:
        self.number = number
        self.window = connection.start_window
        self.status = 0
        self.reason = b""
        self.headers: Headers = []
        self.length: int | None = None
        self.trailers: Headers = []
        self.read_deadline = self.write_deadline = NEVER
        self.over = self.complete = False
        self._answered = self._bodiless = self._bodily = self._done = False
        self._connection = connection
        self._message = message
        self._timeouts = timeouts
        self._in_window = connection.limits.stream_window
        self._unread = bytearray()
        self._unreturned = self._received = self._informational = 0
        self._error: Exception | None = None
        self._pace: Pace | None = None
        self._pump: asyncio.Task[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    # The request.

    def begin(self, block: bytes, body: Body | None, first: bytes | None, length: int | None) -> None:
        """Send the head, and the body as far as it is there; a task sends the rest.

        Args:
            block: the header block.
            body: what follows ``first``.
            first: the first chunk of the body; ``None`` when it was not waited for.
            length: declared bytes of the body.

        Raises:
            InvalidRequest: more came than was declared.
        """
        connection = self._connection
        if length is not None and first is not None and len(first) > length:
            raise InvalidRequest("the request body is longer than was declared")
        empty = body is None or (first == b"" and not length and not body.trailers)
        connection.write(frames.header_frames(self.number, block, connection.frame_bytes, end=empty))
        if empty or body is None:
            self.over = True
            return
        if first and len(first) == length and len(first) <= connection.room(self):
            self._send_frame(first, end=True)
            return
        self._pump = connection.loop.create_task(self._send_body(body, first, length))

    async def _send_body(self, body: Body, chunk: bytes | None, left: int | None) -> None:
        try:
            if chunk is None:
                chunk = await body.read()
            while chunk:
                if left is not None:
                    left -= len(chunk)
                    if left < 0:
                        raise InvalidRequest("the request body is longer than was declared")  # noqa: TRY301
                await self._send(chunk, end=left == 0)
                if not self._answered:
                    self._wait_until(self._timeouts.answer)
                if left == 0:
                    return
                chunk = await body.read()
            if left:
                raise InvalidRequest("the request body is shorter than was declared")  # noqa: TRY301
            self._end_request(of_request(body.trailers, self._message.headers))
        except ConnectionResetError:
            return  # whoever reads the answer sees it too, after what the peer still had to say
        except TimeoutError:
            self._break_off(UpstreamTimeout("the upstream stopped reading"))
        except Exception as error:  # noqa: BLE001 - handed to the task that waits for the answer
            self._break_off(error)

    async def _send(self, data: bytes, *, end: bool) -> None:
        connection = self._connection
        view = memoryview(data)
        while True:
            if self.over:
                raise ConnectionResetError("the stream was closed")
            room = connection.room(self)
            if room <= 0:
                await self._wait_for_room()
                continue
            piece = view[:room]
            view = view[len(piece) :]
            self._send_frame(bytes(piece), end=end and not view)
            if not view:
                return

    def _send_frame(self, data: bytes, *, end: bool) -> None:
        self.window -= len(data)
        self._connection.sent(len(data))
        self._connection.write(frames.frame(frames.DATA, frames.END_STREAM if end else 0, self.number, data))
        if end:
            self._ended_request()

    def _end_request(self, trailers: Headers) -> None:
        if self.over:
            return
        self._connection.send_end(self.number, trailers)
        self._ended_request()

    def _ended_request(self) -> None:
        self.over = True
        if self.complete:
            self._connection.forget(self)

    async def _wait_for_room(self) -> None:
        connection = self._connection
        room = self._room = connection.loop.create_future()
        connection.waiting[self.number] = self
        self.write_deadline = connection.until(self._timeouts.write)
        try:
            await room
        finally:
            self.write_deadline = NEVER
            self._room = None
            connection.waiting.pop(self.number, None)

    def _break_off(self, error: Exception) -> None:
        """The request cannot be completed: the upstream must see that it is not whole."""
        self.fail(error)
        self._connection.reset_stream(self, frames.CANCEL)

    # What the connection calls.

    def grew(self) -> None:
        """There may be room to send."""
        _resolve(self._room)

    def section(self, fields: Headers, *, ends: bool) -> None:
        """A header section came. Raises ``Malformed``."""
        if self._answered:
            check_trailers(fields, self._connection.wire, last=ends)
            self.trailers = of_answer(fields)
            self.end()
            return
        head = read_answer(fields, self._message.method, self._connection.wire)
        if head.status < 200:
            self._informational += 1
            if ends:
                raise Malformed("a 1xx answer ends the stream")
            if self._informational > self._connection.wire.informational:
                raise Malformed("endless 1xx answers")
            return
        if ends and head.length and not head.bodiless:
            raise Malformed("the body is shorter than its Content-Length")
        self._answered = True
        self.status, self.reason, self.headers, self.length = head.status, head.reason, head.headers, head.length
        self._bodiless, self._bodily = head.bodiless, not (ends or head.bodiless)
        if head.status >= 300 and self._pump is not None:
            self._pump.cancel()  # the peer has decided without the rest of the body (RFC 9110 section 15.5)
        if ends:
            self.end()
        else:
            self._wake()

    def arrived(self, data: bytes, size: int) -> None:
        """Payload came, in a frame that counts for so many bytes of the window. Raises ``Malformed``."""
        self._in_window -= size
        if self._in_window < 0:
            raise ConnectionFault("more was sent than the window allows", frames.FLOW_CONTROL_ERROR)
        if not self._answered:
            raise Malformed("a body without a head")
        self._received += len(data)
        if data and self._bodiless:
            raise Malformed("an answer that has no body brings one")
        if self.length is not None and not self._bodiless and self._received > self.length:
            raise Malformed("the body is longer than its Content-Length")
        self._return(size - len(data))
        self._unread += data
        self._wake()

    def end(self) -> None:
        """The upstream has ended its side. Raises ``Malformed``."""
        if not self._answered:
            raise Malformed("a stream that ends without an answer")
        if self.length is not None and not self._bodiless and self._received != self.length:
            raise Malformed("the body is shorter than its Content-Length")
        self.complete = True
        self._wake()
        if self.over:
            self._connection.forget(self)
        elif self._bodiless or not self._received:
            self._finish()

    def fail(self, error: Exception) -> None:
        """Nothing more will come, or nothing that can be believed."""
        if not (self.complete or self._error is not None):
            self._error = error
        self.over = True
        if self._pump is not None and self._pump is not asyncio.current_task():
            self._pump.cancel()
        self._wake()
        _resolve(self._room)

    def was_reset(self, code: int) -> None:
        """The upstream gave the stream up."""
        if code in _NOT_WORKED_ON:
            self.fail(_NOT_WORKED_ON[code]("the upstream did not take the request"))
            return
        self.fail(UpstreamUnreachable(f"the upstream gave the request up (HTTP/2 error {code})", _LATER))

    def lost(self, reason: str) -> None:
        """The connection is gone."""
        untouched = not (self._answered or self._informational)
        if self._connection.used and untouched:
            self.fail(Stale("the upstream closed the connection"))
        elif untouched:
            self.fail(UpstreamUnreachable("the upstream closed the connection before it answered", _LATER))
        else:
            self.fail(UpstreamUnreachable(f"the upstream's answer is incomplete or broken: {reason}", _LATER))

    def expire(self, now: float) -> None:
        """Whoever has waited too long gets ``TimeoutError``."""
        if now > self.read_deadline:
            self.read_deadline = NEVER
            _expire(self._waiter)
        if now > self.write_deadline:
            self.write_deadline = NEVER
            _expire(self._room)

    async def stopped(self) -> None:
        """Return once nothing reads the body of the request any more."""
        if self._pump is not None and not self._pump.done():
            await asyncio.wait([self._pump])

    # The answer.

    async def head(self) -> None:
        """Return once the head of the final answer is there.

        Raises:
            Stale: the request was not worked on.
            UpstreamUnreachable, UpstreamTimeout: there will be none that can be used.
        """
        self._wait_until(self._timeouts.answer)
        try:
            while not self._answered:
                if self._error is not None:
                    raise self._error
                await self._wait()
        except TimeoutError:
            self._connection.doubt()
            raise UpstreamTimeout(
                "the upstream did not answer in time", "try again, or raise the setting answer_timeout"
            ) from None
        finally:
            self.read_deadline = NEVER

    async def read(self) -> bytes:
        """The next bytes of the body as they arrive; ``b""`` at the end.

        Raises:
            UpstreamUnreachable: the body broke off, or is not what was declared.
            UpstreamTimeout: nothing came for too long, or too little.
        """
        if self._done:
            return b""
        deadline = 0.0
        try:
            while True:
                if self._unread:
                    return self._take()
                if self.complete:
                    self._finish()
                    return b""
                if self._error is not None:
                    raise self._error  # noqa: TRY301 - what a stream came to, in the words of whoever saw it
                now = self._connection.loop.time()
                deadline = deadline or now + self._timeouts.body
                await self._wait_paced(now, deadline)
        except BaseException as error:  # noqa: BLE001 - cancelled or not, the answer is given up; always raised on
            self.abort()
            raise self._explain(error) from None

    def _take(self) -> bytes:
        data = bytes(self._unread)
        self._unread.clear()
        if self.complete:
            self._finish()
        else:
            self._return(len(data))
        return data

    async def _wait_paced(self, now: float, deadline: float) -> None:
        pace = self._pace
        if pace is None and self._received:
            window = window_for(dict(self.headers), self._timeouts.window, declared=self.length is not None)
            pace = self._pace = Pace(self._timeouts.rate, window, self._received)
        if pace is not None:
            pace.check(self._received)
        self.read_deadline = self._connection.at(deadline)
        try:
            await self._wait()
        finally:
            self.read_deadline = NEVER
        if pace is not None:
            pace.waited(self._connection.loop.time() - now)

    def _explain(self, error: BaseException) -> BaseException:
        if isinstance(error, TooSlow):
            return UpstreamTimeout("the upstream sends its answer too slowly", "try again, or set stream_rate down")
        if isinstance(error, TimeoutError):
            self._connection.doubt()
            return UpstreamTimeout("the upstream stopped sending in the middle of its answer", _LATER)
        return error

    def malformed(self, error: KeyholeError) -> None:
        """What came on this stream is no answer."""
        if self._answered:
            self.fail(UpstreamUnreachable(f"the upstream's answer is incomplete or broken: {error.reason}", _LATER))
        else:
            self.fail(UpstreamUnreachable(f"the upstream's answer is not acceptable: {error.reason}", _THEIRS))

    @property
    def body(self) -> Http2Answer | None:
        """As of an answer of HTTP/1.1."""
        return self if self._bodily else None

    @property
    def ended(self) -> bool:
        """Whether the whole body has been read, or the answer was given up."""
        return self._done

    def _finish(self) -> None:
        """All of the answer was read: what is left of the request is not wanted (RFC 9113 section 8.1)."""
        self._done = True
        if not self.over:
            if self._pump is not None:
                self._pump.cancel()
            self._connection.reset_stream(self, frames.CANCEL)

    async def close(self) -> None:
        """``abort``, for whoever awaits it."""
        self.abort()

    def abort(self) -> None:
        """Give up an answer that was not read to its end. Its connection goes on. Harmless afterwards."""
        if self._done:
            return
        self._done = True
        self._unread.clear()
        if self._pump is not None and self._pump is not asyncio.current_task():
            self._pump.cancel()
        if self._error is None and not self.complete:
            self._error = UpstreamUnreachable("the answer was given up")
        self._wake()
        self._connection.reset_stream(self, frames.CANCEL)

    def _return(self, size: int) -> None:
        """Bytes are no longer held: let the upstream send as many more, once that is worth a frame."""
        self._unreturned += size
        if 2 * self._unreturned >= self._connection.limits.stream_window and not self.complete:
            self._connection.write(frames.window_update(self.number, self._unreturned))
            self._in_window += self._unreturned
            self._unreturned = 0

    def _wait_until(self, seconds: float) -> None:
        self.read_deadline = self._connection.until(seconds)

    def _wait(self) -> asyncio.Future[None]:
        waiter = self._waiter = self._connection.loop.create_future()
        return waiter

    def _wake(self) -> None:
        _resolve(self._waiter)


def _resolve(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)


def _expire(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_exception(TimeoutError())

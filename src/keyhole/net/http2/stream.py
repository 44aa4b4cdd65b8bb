"""One request and its answer on a connection of HTTP/2: a body that is pulled, an answer that waits for its reader."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

from keyhole.core.errors import BadRequestFraming
from keyhole.core.message import Headers
from keyhole.net.http1.grammar import Malformed
from keyhole.net.http1.pace import Pace, TooSlow
from keyhole.net.http1.wire import NEVER
from keyhole.net.http2 import frames
from keyhole.net.http2.fields import encode_fields
from keyhole.net.http2.head import Http2Head

if TYPE_CHECKING:
    from keyhole.net.http2.server import ServerSession

_MOMENT = 1.0  # seconds


class ServerStream:
    """The server's end of one stream. It is a ``core.message.Body``: what the client sends.

    Attributes:
        number: of the stream.
        head: the request; ``None`` where it is malformed.
        error: why nothing of it may be believed: it is malformed, or its body is not what was declared.
        trailers: of the request, once its body has ended.
        ended: the client has ended its side.
        window: bytes of an answer that the client will take.
        over: nothing more can be sent: we ended our side, or the stream was reset.
        reset_by_peer, reset_by_us: how it ended before its time.
        task: does the work.
    """

    __slots__ = (
        "_expects",
        "_in_window",
        "_pace",
        "_received",
        "_room",
        "_session",
        "_unread",
        "_unreturned",
        "_unsent_head",
        "_waiter",
        "ended",
        "error",
        "head",
        "number",
        "over",
        "reset_by_peer",
        "reset_by_us",
        "task",
        "trailers",
        "window",
    )

    def __init__(self, session: ServerSession, number: int, head: Http2Head | None, error: Malformed | None) -> None:
        self._session = session
        self.number = number
        self.head = head
        self.error: BadRequestFraming | None = error
        self.trailers: Headers = []
        self.ended = False
        self.over = False
        self.reset_by_peer = self.reset_by_us = False
        self.window = session.start_window
        self.task: asyncio.Task[None] | None = None
        self._in_window = session.limits.stream_window
        self._unread = bytearray()
        self._received = 0
        self._unreturned = 0
        self._unsent_head = b""
        self._expects = False
        self._pace: Pace | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    # What the connection calls.

    def arrived(self, data: bytes, size: int) -> None:
        """Payload came, in a frame that counts for so many bytes of the windows."""
        self._in_window -= size
        if self._in_window < 0:
            raise frames.ConnectionFault("more was sent than the window allows", frames.FLOW_CONTROL_ERROR)
        self._received += len(data)
        declared = self.length
        if declared is not None and self._received > declared:
            self.fail(Malformed("the body is longer than its Content-Length"))
        self._expects = False
        if self.error is not None:
            self._return(size)
            return
        self._return(size - len(data))
        self._unread += data
        self._wake()

    def end_input(self, trailers: Headers | None = None) -> None:
        """The client has ended its side."""
        self.ended = True
        if self.length is not None and self._received != self.length and self.error is None:
            self.fail(Malformed("the body is shorter than its Content-Length"))
        if trailers:
            self.trailers = trailers
        self._wake()

    def fail(self, error: BadRequestFraming) -> None:
        """The body is not to be believed: nothing more of it is given."""
        self.error = self.error or error
        self._return(len(self._unread))
        self._unread.clear()
        self._wake()
        self._session.blame()

    def break_off(self) -> None:
        """The client's connection has ended: what is missing of the request will not come."""
        if not self.ended:
            self.error = self.error or BadRequestFraming("the connection ended within the request")
            self._wake()

    def cancel(self) -> None:
        """The client took its request back."""
        self.over = self.reset_by_peer = True
        self.let_go()
        if self.task is not None:
            self.task.cancel()

    def let_go(self) -> None:
        """Nobody reads any more: what came counts as read, for the sake of the other streams."""
        self._session.credit(len(self._unread))
        self._unread.clear()
        self._wake()

    def grew(self) -> None:
        """There may be room to send."""
        room, self._room = self._room, None
        if room is not None and not room.done():
            room.set_result(None)

    # The request's body.

    @property
    def length(self) -> int | None:
        """Bytes in the whole body where the client declared it."""
        return self.head.length if self.head is not None else None

    @property
    def bodiless(self) -> bool:
        """Whether the request ended with its head."""
        return self.ended and not self._received and not self.trailers

    def expect(self, pace: Pace, *, continuing: bool) -> None:
        """Judge how fast the body comes; answer 100 when it is first read, where the client waits for that."""
        self._pace = pace
        self._expects = continuing and not self._received

    async def read(self) -> bytes:
        """The next bytes of the body; ``b""`` at the end.

        Raises:
            BadRequestFraming: it stalled, or is not what was declared.
        """
        return await self._next(self._session.body_timeout)

    async def read_patiently(self) -> bytes:
        """The same where silence means nothing: its other end says when it has lasted too long."""
        return await self._next(NEVER)

    async def _next(self, patience: float) -> bytes:
        while True:
            if self.error is not None:
                raise self.error
            if self._unread:
                data = bytes(self._unread)
                self._unread.clear()
                self._return(len(data))
                return data
            if self.ended:
                return b""
            if self.over:
                raise BadRequestFraming("the request was answered before its body was read")
            if self._expects:
                self._expects = False
                self._session.write(self._head_frames(encode_fields((), 100), end=False))
            await self._more(patience)

    async def _more(self, patience: float) -> None:
        """Wait until something comes, so many seconds at most."""
        session, pace = self._session, self._pace
        now = session.loop.time()
        waiter = self._waiter = session.loop.create_future()
        timer = None if patience == NEVER else session.loop.call_later(patience, _expire, waiter)
        try:
            if pace is not None:
                pace.check(self._received)
            await waiter
            if pace is not None:
                pace.waited(session.loop.time() - now)
        except TooSlow:
            raise BadRequestFraming(
                "the request body comes too slowly", "send it faster, or in smaller parts"
            ) from None
        except TimeoutError:
            raise BadRequestFraming("the request body stalled", "send it without long pauses") from None
        finally:
            if timer is not None:
                timer.cancel()
            self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _return(self, size: int) -> None:
        """Bytes are no longer held: let the client send as many more, once that is worth a frame."""
        self._session.credit(size)
        self._unreturned += size
        if 2 * self._unreturned >= self._session.limits.stream_window and not (self.ended or self.over):
            self._session.write(frames.window_update(self.number, self._unreturned))
            self._in_window += self._unreturned
            self._unreturned = 0

    # The answer.

    def begin(self, status: int, fields: Iterable[tuple[bytes, bytes]], *, end: bool = False) -> None:
        """Send the head of an answer, at the latest at the end of this step of the loop."""
        self._expects = False
        block = self._head_frames(encode_fields(fields, status), end=end)
        if end:
            self.over = True
            self._session.write(block)
            return
        self._unsent_head = block
        self._session.loop.call_soon(self.flush)

    def take_back(self) -> bool:
        """Whether nothing of the answer was sent yet; then it is as if it had not begun."""
        unsent = bool(self._unsent_head)
        self._unsent_head = b""
        return unsent

    def flush(self) -> None:
        """From here on the answer cannot be taken back."""
        head, self._unsent_head = self._unsent_head, b""
        if head and not self.over:
            self._session.write(head)

    def answer_whole(self, status: int, fields: Iterable[tuple[bytes, bytes]], body: bytes) -> None:
        """Send a small answer of our own, whatever the windows are: where there is no room, its head alone."""
        session = self._session
        if self.over:
            return
        if len(body) > min(self.window, session.window, session.frame_bytes):
            self.begin(status, [pair for pair in fields if pair[0] != b"content-length"], end=True)
            return
        self.begin(status, fields)
        self._send_frame(body, end=True)

    async def send(self, data: bytes, *, end: bool = False) -> None:
        """Send a part of the answer; returns once all of it fitted into the windows.

        Raises:
            TimeoutError: the client did not read it in time.
            ConnectionResetError: the stream was reset.
        """
        session = self._session
        if len(data) <= min(self.window, session.window, session.frame_bytes) and not session.clogged:
            self._send_frame(data, end=end)
        else:
            await self._send_slowly(data, end=end)

    async def _send_slowly(self, data: bytes, *, end: bool) -> None:
        session = self._session
        deadline = session.loop.time() + session.write_timeout
        view = memoryview(data)
        while True:
            if session.clogged:
                await session.drained()
            room = min(len(view), self.window, session.window, session.frame_bytes)
            if room <= 0 and view:
                self.flush()
                await self._wait_for_room(deadline)
                continue
            self._send_frame(bytes(view[:room]), end=end and room == len(view))
            view = view[room:]
            if not view:
                return

    def _send_frame(self, data: bytes, *, end: bool) -> None:
        if self.over:
            raise ConnectionResetError("the stream was reset")
        size = len(data)
        self.window -= size
        session = self._session
        session.sent(size)
        head, self._unsent_head = self._unsent_head, b""
        session.write(head + frames.frame(frames.DATA, frames.END_STREAM if end else 0, self.number, data))
        self.over = end

    async def _wait_for_room(self, deadline: float) -> None:
        session = self._session
        room = self._room = session.loop.create_future()
        timer = session.loop.call_at(deadline, _expire, room)
        session.waiting[self.number] = self
        try:
            await room
        finally:
            timer.cancel()
            self._room = None
            session.waiting.pop(self.number, None)

    def finish(self, trailers: Headers) -> None:
        """End the answer with a trailer section."""
        self.flush()
        if not self.over:
            self.over = True
            self._session.write(self._head_frames(encode_fields(trailers), end=True))

    def reset(self, code: int) -> None:
        """Break the answer off, so that the client sees it."""
        self._unsent_head = b""
        if not (self.over and self.ended):
            self._session.write(frames.rst_stream(self.number, code))
        self.over = self.reset_by_us = True

    def hurry(self) -> None:
        """What is being answered is cut off: a client that does not read gets a moment longer, and no more."""
        room = self._room
        if room is not None:
            self._session.loop.call_later(_MOMENT, _expire, room)

    def _head_frames(self, block: bytes, *, end: bool) -> bytes:
        return frames.header_frames(self.number, block, self._session.frame_bytes, end=end)


def _expire(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(TimeoutError())

"""The client's side of one HTTP/1.1 connection: one request at a time, one answer for each, nothing in between.

1. A connection is used again only when request and answer both ended cleanly and not one byte too many arrived.
2. Whatever is doubtful (an error, surplus bytes, an early answer, an abandoned answer) ends the connection.
3. An answer's head is read strictly; 1xx answers are swallowed, a bounded number of them.
4. A body that broke off raises; it never looks like a short one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from keyhole.core.errors import InvalidRequest, KeyholeError, UpstreamTimeout, UpstreamUnreachable
from keyhole.core.message import Body, Message
from keyhole.core.trailers import of_request
from keyhole.net.http1.answer import LATER, ClientAnswer
from keyhole.net.http1.framing import answer_decoder
from keyhole.net.http1.grammar import AnswerHead, Malformed, check_partial_head, parse_answer_head
from keyhole.net.http1.hops import end_to_end, require_agreed
from keyhole.net.http1.limits import WireLimits
from keyhole.net.http1.serialise import serialise_request, serialise_trailers
from keyhole.net.http1.wire import NEVER, Wire, WireGroup

_EXPECTS_BODY = frozenset({"POST", "PUT", "PATCH"})
_VERSION = b"HTTP/1."
_THEIRS = "check host, port and scheme of the service, and report the fault to who runs the API"


class Stale(UpstreamUnreachable):
    """A connection that was used before closed without a byte of answer: the request may be sent on a fresh one."""


class Timeouts(Protocol):
    """Seconds to wait for the peer.

    Attributes:
        answer: for the whole head of the answer, once the request is sent.
        body: for the next payload of the answer's body.
        write: for a peer that does not read.
        rate: bytes of the answer's body a second, at least, on average over ``window``; 0 for none.
        window: seconds of waiting over which that average is taken.
    """

    @property
    def answer(self) -> float: ...  # noqa: D102 - described above
    @property
    def body(self) -> float: ...  # noqa: D102 - described above
    @property
    def write(self) -> float: ...  # noqa: D102 - described above
    @property
    def rate(self) -> float: ...  # noqa: D102 - described above
    @property
    def window(self) -> float: ...  # noqa: D102 - described above


class ClientConnection(Wire):
    """One connection to an origin.

    Attributes:
        busy: an exchange is going on; while it is not, every byte that arrives ends the connection.
        used: exchanges completed.
        born: loop time of its making.

    Args:
        group: shared by the connections of a pool.
        host: value of ``Host`` for every request.
        limits: bounds on answers.
        on_free: called when an exchange ended cleanly and the connection may be used again.
        on_lost: called once when the connection is gone.
    """

    __slots__ = (
        "_answered",
        "_host",
        "_informational",
        "_limits",
        "_on_free",
        "_on_lost",
        "_pump_error",
        "_scanned",
        "_upgrades",
        "born",
        "busy",
        "used",
    )

    def __init__(
        self,
        group: WireGroup,
        host: bytes,
        limits: WireLimits,
        *,
        on_free: Callable[[ClientConnection], None],
        on_lost: Callable[[ClientConnection], None],
    ) -> None:
        super().__init__(group)
        self._host = host
        self._limits = limits
        self._on_free = on_free
        self._on_lost = on_lost
        self._pump_error: Exception | None = None
        self._answered = self._upgrades = False
        self._informational = self._scanned = 0
        self.busy = True
        self.used = 0
        self.born = self.loop.time()

    def unawaited(self) -> None:
        """Bytes on an idle connection are nobody's answer."""
        if self.busy:
            super().unawaited()
        else:
            self.abort()

    def input_ended(self) -> None:
        """A peer that ends an idle connection ends it."""
        super().input_ended()
        if not self.busy:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the owner."""
        super().connection_lost(exc)
        self._on_lost(self)

    def expire(self, now: float) -> None:
        """An idle connection that is too old closes."""
        if not self.busy and now > self.read_deadline:
            self.close()
        super().expire(now)

    async def exchange(self, message: Message, body: Body | None, first: bytes, timeouts: Timeouts) -> ClientAnswer:
        """Send one request and wait for the head of its final answer.

        Args:
            message: the head; its host must be this connection's.
            body: what follows ``first``; ``None`` when the request has no body.
            first: the first chunk of the body, already read, so that nothing is sent for a body that begins wrongly.
            timeouts: how long to wait.

        Raises:
            Stale: nothing of an answer arrived on a connection that was used before.
            UpstreamUnreachable: the peer broke off, or its answer cannot be read in exactly one way.
            UpstreamTimeout: it did not answer in time.
            KeyholeError: whatever reading ``body`` raised.
        """
        self.busy = True
        self._answered = False
        self._informational = self._scanned = 0
        pump: asyncio.Task[None] | None = None
        try:
            pump = self._send(message, body, first, timeouts)
            self.read_deadline = self.loop.time() + timeouts.answer
            while (head := self._take_final_head()) is None:
                await self.wait()
            decoder = answer_decoder(head, message.method, self._limits) if head.status != 101 else None
            headers, persistent = end_to_end(head)
            if head.status == 101:
                require_agreed(head, message)
            elif message.upgrade:
                persistent = False  # it was made for the upgrade, and serves nothing else
        except BaseException as error:  # noqa: BLE001 - cancelled or not, the connection is in doubt; always raised on
            self._abandon(pump)
            raise self._explain(error) from None
        if pump is not None and not pump.done() and head.status >= 300:
            pump.cancel()  # the peer has decided without the rest of the body (RFC 9110 section 15.5)
        return ClientAnswer(self, head, headers, decoder, persistent, pump, timeouts)

    def _send(self, message: Message, body: Body | None, first: bytes, timeouts: Timeouts) -> asyncio.Task[None] | None:
        length = None if body is None else body.length
        self._upgrades = bool(message.upgrade)
        if message.upgrade:
            framing = b"Connection: Upgrade\r\nUpgrade: %b\r\n" % message.upgrade.encode("ascii")
        elif body is None or (not first and not length):
            framing = b"Content-Length: 0\r\n" if body is not None or message.method in _EXPECTS_BODY else b""
        else:
            framing = b"Transfer-Encoding: chunked\r\n" if length is None else b"Content-Length: %d\r\n" % length
        head = serialise_request(message.method, message.target, self._host, message.headers, framing)
        if body is None or (not first and not length):
            self.write(head)
            return None
        if length is not None:
            if len(first) > length:
                raise InvalidRequest("the request body is longer than was declared")
            self.write(head + first)
            if len(first) == length:
                return None
            return self.loop.create_task(self._pump(message, body, length - len(first), timeouts))
        self.write(b"%b%x\r\n%b\r\n" % (head, len(first), first))
        return self.loop.create_task(self._pump(message, body, None, timeouts))

    async def _pump(self, message: Message, body: Body, left: int | None, timeouts: Timeouts) -> None:
        """Send the rest of a body while the answer is awaited."""
        try:
            while chunk := await body.read():
                if left is None:
                    self.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
                else:
                    left -= len(chunk)
                    if left < 0:
                        raise InvalidRequest("the request body is longer than was declared")  # noqa: TRY301
                    self.write(chunk)
                if not self._answered:
                    self.read_deadline = self.loop.time() + timeouts.answer
                if self._write_paused:
                    self.write_deadline = self.loop.time() + timeouts.write
                    await self.drain()
                    self.write_deadline = NEVER
            if left:
                raise InvalidRequest("the request body is shorter than was declared")  # noqa: TRY301
            if left is None:
                trailers = body.trailers
                self.write(serialise_trailers(of_request(trailers, message.headers) if trailers else []))
        except ConnectionResetError:
            return  # whoever reads the answer sees it too, after what the peer still had to say
        except Exception as error:  # noqa: BLE001 - handed to the task that waits for the answer
            timed_out = isinstance(error, TimeoutError)
            self._pump_error = UpstreamTimeout("the upstream stopped reading") if timed_out else error
            self.abort()

    def _take_final_head(self) -> AnswerHead | None:
        """The final answer's head once all of it is there; 1xx answers before it are dropped."""
        limit = self._limits.head_bytes
        while data := self.buffer:
            end = data.find(b"\r\n\r\n", max(0, self._scanned - 3), limit)
            if end < 0:
                if len(data) >= limit:
                    raise Malformed(f"the head is longer than {limit} bytes")
                if data[: len(_VERSION)] != _VERSION[: len(data)]:
                    raise Malformed("this is not HTTP/1.1")
                check_partial_head(data, self._scanned)
                self._scanned = len(data)
                break
            self.buffer = data[end + 4 :]
            self._scanned = 0
            head = parse_answer_head(data[: end + 4], self._limits)
            if head.status >= 200 or (head.status == 101 and self._upgrades):
                self._answered = True
                return head
            if head.status == 101:
                raise UpstreamUnreachable("the upstream switched protocols without being asked", _THEIRS)
            self._informational += 1
            if self._informational > self._limits.informational:
                raise UpstreamUnreachable("the upstream sends endless 1xx answers", _THEIRS)
        if self.eof:
            self._refuse_eof()
        return None

    def _refuse_eof(self) -> None:
        if self.used and not self.buffer and not self._informational and self._pump_error is None:
            raise Stale("the upstream closed the connection")
        raise UpstreamUnreachable("the upstream closed the connection before it answered", LATER)

    def _explain(self, error: BaseException) -> BaseException:
        if isinstance(error, Exception) and self._pump_error is not None:
            return self._pump_error
        if isinstance(error, KeyholeError) and not isinstance(error, Malformed):
            return error
        if isinstance(error, Malformed):
            return UpstreamUnreachable(f"the upstream's answer is not acceptable: {error.reason}", _THEIRS)
        if isinstance(error, TimeoutError):
            return UpstreamTimeout(
                "the upstream did not answer in time", "try again, or raise the setting answer_timeout"
            )
        if isinstance(error, OSError):
            return UpstreamUnreachable("the connection to the upstream broke", LATER)
        return error

    def _abandon(self, pump: asyncio.Task[None] | None) -> None:
        if pump is not None:
            pump.cancel()
        self.read_deadline = NEVER
        self.abort()

    def settle(self, *, clean: bool) -> None:
        """End an exchange: free the connection when it ended cleanly, close it when anything is in doubt."""
        self.read_deadline = NEVER
        self.used += 1
        if clean and not self.buffer and not self.eof:
            self.busy = False
            self._on_free(self)
        else:
            self.close()

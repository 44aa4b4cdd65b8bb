"""One call from its durable intent to its outcome: sends, scrubs what comes back, and records how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from keyhole.broker.exchange import OwnAnswer
from keyhole.broker.loan import Loan, without_stale
from keyhole.broker.upstream import UpstreamAnswer
from keyhole.broker.websocket import WEBSOCKET, StreamLimits, WebSocketStream
from keyhole.core.errors import InternalError, KeyholeError
from keyhole.core.message import Answer
from keyhole.core.record import Intent
from keyhole.scrub import BodyScrubber
from keyhole.vault.compiled import OrgState
from keyhole.vault.vault import Vault


class Journey:
    """One call from its durable intent to its outcome. Ends exactly once."""

    __slots__ = ("_done", "_ended", "_intent", "_loan", "_start", "_state", "_streams", "_vault")

    def __init__(
        self,
        vault: Vault,
        state: OrgState,
        intent: Intent,
        loan: Loan | None,
        streams: StreamLimits,
        done: Callable[[], None] | None = None,
    ) -> None:
        self._done = done
        self._vault = vault
        self._state = state
        self._intent = intent
        self._loan = loan
        self._streams = streams
        self._ended = False
        self._start = vault.clock.now()

    async def answer(self, sending: Awaitable[UpstreamAnswer | OwnAnswer]) -> Answer:
        """Send, and give back the answer as the caller may see it."""
        try:
            upstream = await sending
        except BaseException as error:
            self.end(error)
            raise
        try:
            return self._answer(upstream)
        except BaseException as error:
            self.end(error, status=upstream.status)
            await upstream.close()
            raise

    def end(
        self,
        error: BaseException | None = None,
        *,
        status: int = 0,
        received: int = 0,
        sent: int = 0,
        masked: bool = False,
    ) -> None:
        """Record the outcome."""
        if self._ended:
            return
        self._ended = True
        if self._done is not None:
            self._done()
        self._vault.conclude(
            self._state,
            self._intent,
            _result(error),
            status=status,
            received=received,
            sent=sent,
            scrubbed=int(masked or (self._loan is not None and self._loan.masked)),
            milliseconds=int((self._vault.clock.now() - self._start) * 1000),
        )

    def _answer(self, upstream: UpstreamAnswer | OwnAnswer) -> Answer:
        headers, reason = upstream.headers, upstream.reason
        scrubber = None
        if self._loan is not None:
            scrubber = self._loan.body(headers) if upstream.body is not None else None
            reason, headers = self._loan.head(reason, headers)
        if scrubber is not None and scrubber.recoded:
            headers = without_stale(headers)
        if isinstance(upstream, UpstreamAnswer) and upstream.status == 101:
            stream = WebSocketStream(upstream.take_over(), self._loan, self._streams, self.end)
            return Answer(101, reason, headers, None, stream, WEBSOCKET)
        if upstream.body is None:
            self.end(status=upstream.status)
            return Answer(upstream.status, reason, headers, None)
        return Answer(upstream.status, reason, headers, _AnswerBody(self, upstream, scrubber))


class _AnswerBody:
    """The body of an answer, scrubbed as it is pulled; its end concludes the call."""

    __slots__ = ("_done", "_journey", "_received", "_scrubber", "_upstream", "length")

    def __init__(self, journey: Journey, upstream: UpstreamAnswer | OwnAnswer, scrubber: BodyScrubber | None) -> None:
        self._journey = journey
        self._upstream = upstream
        self._scrubber = scrubber
        self._received = 0
        self._done = False
        self.length = None if scrubber is not None and scrubber.recoded else upstream.length

    async def read(self) -> bytes:
        """The next scrubbed chunk; ``b""`` at the end.

        Raises:
            KeyholeError: the upstream broke off, or the body cannot be inspected; the rest is withheld.
        """
        if self._done:
            return b""
        scrubber = self._scrubber
        try:
            while chunk := await self._upstream.read():
                first = not self._received
                self._received += len(chunk)
                if first and self._upstream.ended:
                    clean = chunk if scrubber is None else scrubber.whole(chunk)
                    await self._finish(None)
                    return clean
                clean = chunk if scrubber is None else scrubber.feed(chunk)
                if clean:
                    return clean
            rest = b"" if scrubber is None else scrubber.finish()
        except BaseException as error:
            await self._finish(error)
            raise
        await self._finish(None)
        return rest

    async def close(self) -> None:
        """The client went away: nothing more is read, and the connection is not used again."""
        if not self._done:
            await self._finish(asyncio.CancelledError())

    async def _finish(self, error: BaseException | None) -> None:
        self._done = True
        masked = self._scrubber is not None and self._scrubber.masked
        status = self._upstream.status
        self._journey.end(error, status=status, received=self._received, masked=masked)
        if error is not None:
            await self._upstream.close()


def _result(error: BaseException | None) -> str:
    """How a call ended, for its record."""
    if error is None:
        return "ok"
    if isinstance(error, KeyholeError):
        return error.code
    return "aborted" if isinstance(error, asyncio.CancelledError) else InternalError.code

"""One call from its intent to its outcome: sends, scrubs what comes back, and records how it ended.

While the intent is on its way to the disk the call is made ready; nothing leaves before ``recorded`` has returned.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import NoReturn, TypeVar

from keyhole.broker.answer_body import AnswerBody
from keyhole.broker.connections import UpstreamAnswer
from keyhole.broker.exchange import OwnAnswer
from keyhole.broker.lease import Lease
from keyhole.broker.live import Flow, Live
from keyhole.broker.loan import Loan, without_stale
from keyhole.broker.tunnel import TunnelStream
from keyhole.broker.watch import FrameWatch
from keyhole.broker.websocket import WEBSOCKET, WebSocketStream
from keyhole.core import grpc
from keyhole.core.errors import InternalError, KeyholeError
from keyhole.core.identity import Caller
from keyhole.core.message import Answer, Call, Headers
from keyhole.core.passthrough import PASSTHROUGH
from keyhole.core.record import Intent
from keyhole.core.service import Service
from keyhole.core.timing import Timing
from keyhole.net.http1.answer import ClientAnswer
from keyhole.net.http1.client import ClientConnection
from keyhole.vault.compiled import OrgState
from keyhole.vault.shares import Turn
from keyhole.vault.vault import Vault

T = TypeVar("T")


class Journey(Flow):
    """One call from its intent to its outcome. Ends exactly once."""

    __slots__ = ("_durable", "_ended", "_intent", "_live", "_loan", "_refusal", "_state", "_turn", "_watch")

    def __init__(
        self,
        vault: Vault,
        state: OrgState,
        caller: Caller,
        service: Service | None,
        intent: Intent,
        loan: Loan | None,
        live: Live,
        timing: Timing,
        turn: Turn,
        durable: asyncio.Future[None],
        watch: FrameWatch | None = None,
    ) -> None:
        super().__init__(vault, caller, service, timing)
        self._watch = watch
        self._turn = turn
        self._durable: asyncio.Future[None] | None = durable
        self._state = state
        self._intent = intent
        self._loan = loan
        self._live = live
        self._ended = False
        self._refusal: Callable[[KeyholeError], Headers] | None = None

    async def recorded(self) -> None:
        """Return once the intent is durable; nothing may leave before. Said again, nothing happens.

        Raises:
            AuditUnavailable: it is not, and so there is no outcome to record either.
        """
        if self._durable is not None:
            await self._durable
            self._durable = None
            timing = self.timing
            timing.vault = monotonic() - timing.begun - timing.queue
            self._turn.started()

    async def once_recorded(self, lease: Lease, act: Callable[[], Awaitable[T]]) -> T:
        """Do something with a lease when the intent is durable; it is given back where that raises."""
        try:
            await self.recorded()
        except BaseException:
            lease.cancel()
            raise
        return await act()

    async def refuse(self, error: KeyholeError) -> NoReturn:
        """End with this before anything has left. Raises it."""
        await self._awaited(_failing(error))
        raise error

    async def answer(self, sending: Awaitable[UpstreamAnswer | OwnAnswer], call: Call) -> Answer:
        """Send, and give back the answer as the caller may see it."""
        if call.http2 and grpc.is_grpc(call.headers):
            self._refusal = grpc.refusal
        upstream = await self._awaited(sending)
        try:
            answer = self._answer(upstream)
            if isinstance(answer.body, AnswerBody):
                await answer.body.begin()
            return answer  # noqa: TRY300 - what fails above ends the call
        except BaseException as error:
            self.end(error, status=upstream.status)
            await upstream.close()
            raise

    async def tunnel(self, opening: Awaitable[ClientConnection], begins: Callable[[bytes], bool | None]) -> Answer:
        """Connect, and give back a stream that is not looked into once it has begun rightly."""
        connection = await self._awaited(opening)
        stream = self.flowing = TunnelStream(connection, begins, self._live.limits, self.end)
        self.given = Answer(200, b"Connection Established", [], None, stream, PASSTHROUGH)
        return self.given

    async def _awaited(self, opening: Awaitable[T]) -> T:
        """What is being opened; the call may be cut meanwhile, and ends when that fails."""
        self._live.add(self)
        task = self.task = asyncio.current_task()
        try:
            try:
                return await opening
            except KeyholeError:  # it is told to nobody before what was intended is on record
                await self.recorded()
                raise
        except BaseException as error:
            self.end(error)
            if self.reason is not None and task is not None and not task.uncancel():
                raise self.reason from None
            raise
        finally:
            self.task = None

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
        self._live.discard(self)
        if self.reason is None:  # nothing is left to be cut, and what was lent goes with the last who holds this
            self.given = self.flowing = None
        self._turn.end()
        durable = self._durable
        if durable is not None:
            if durable.done() and not durable.cancelled() and durable.exception() is not None:
                return  # nothing was intended; whoever refuses the call counts it
            durable.cancel()  # nobody waits for it any more; it is written all the same
        result = result_of(self.reason or error)
        self.vault.meters.calls.ended(self.timing, result, received, sent)
        self.vault.conclude(
            self._state,
            self._intent,
            result,
            status=status,
            received=received,
            sent=sent,
            scrubbed=int(masked or (self._loan is not None and self._loan.masked)),
            milliseconds=int((self.vault.clock.now() - self.since) * 1000),
        )

    def _answer(self, upstream: UpstreamAnswer | OwnAnswer) -> Answer:
        headers, reason = upstream.headers, upstream.reason
        scrubber = None
        if self._loan is not None:
            begun = monotonic()
            scrubber = self._loan.body(headers) if upstream.body is not None else None
            reason, headers = self._loan.head(reason, headers)
            self.timing.scrub += monotonic() - begun
        if scrubber is not None and scrubber.recoded:
            headers = without_stale(headers)
        if isinstance(upstream, ClientAnswer) and upstream.status == 101:
            stream = self.flowing = WebSocketStream(
                upstream.take_over(), self._loan, self._live.limits, self.end, self._watch, in_turn=self.in_turn
            )
            self.given = Answer(101, reason, headers, None, stream, WEBSOCKET)
            return self.given
        if upstream.body is None:
            self.end(status=upstream.status)
            return Answer(upstream.status, reason, headers, None)
        trailing = self._loan.trailers if self._loan is not None else None
        body = self.flowing = AnswerBody(self, self.end, upstream, scrubber, trailing, self._refusal)
        self.given = Answer(upstream.status, reason, headers, body)
        return self.given


async def _failing(error: KeyholeError) -> None:
    raise error


def result_of(error: BaseException | None) -> str:
    """How a call ended, for its record."""
    if error is None:
        return "ok"
    if isinstance(error, KeyholeError):
        return error.code
    return "aborted" if isinstance(error, asyncio.CancelledError) else InternalError.code

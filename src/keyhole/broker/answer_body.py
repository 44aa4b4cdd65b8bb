"""The body of an answer on its way from the upstream to the face."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import TypeVar

from keyhole.broker.connections import UpstreamAnswer
from keyhole.broker.exchange import OwnAnswer
from keyhole.broker.live import Ended, Flow
from keyhole.broker.loan import without_stale
from keyhole.core.errors import KeyholeError
from keyhole.core.message import Headers, Taker
from keyhole.net.http1.answer import ClientAnswer
from keyhole.net.tasks import heard
from keyhole.scrub import BodyScrubber, GrpcScrubber

T = TypeVar("T")
_BEGINNING = 0.2  # seconds


class AnswerBody:
    """The body of an answer, scrubbed as it is pulled; its end concludes the call.

    Args:
        flow: the call, which may be cut.
        ended: called once at the end.
        upstream: where the bytes come from.
        scrubber: what they go through, if anything was lent.
        trailing: gives what may be seen of the trailers.
        refusal: says in trailers why a body broke off, where the client expects to be told so.
    """

    __slots__ = (
        "_ahead",
        "_begun",
        "_done",
        "_ended",
        "_flow",
        "_received",
        "_refusal",
        "_scrubber",
        "_taker",
        "_trailing",
        "_unfolding",
        "_upstream",
        "length",
        "trailers",
    )

    def __init__(
        self,
        flow: Flow,
        ended: Ended,
        upstream: UpstreamAnswer | OwnAnswer,
        scrubber: BodyScrubber | GrpcScrubber | None,
        trailing: Callable[[Headers], Headers] | None,
        refusal: Callable[[KeyholeError], Headers] | None = None,
    ) -> None:
        self._flow = flow
        self._ended = ended
        self._upstream = upstream
        self._scrubber = scrubber
        self._received = 0
        self._done = self._unfolding = False
        self._ahead: asyncio.Task[bytes] | None = None
        self._begun: list[bytes] | None = []  # clean, and held until it is plain that it is the beginning of no bomb
        self._trailing = trailing
        self._refusal = refusal
        self._taker: Taker | None = None
        self.trailers: Headers = []
        self.length = None if scrubber is not None and scrubber.recoded else upstream.length

    def hand_on(self, taker: Taker) -> None:
        """While ``read`` waits, give small pieces of an open-ended body to ``taker``, scrubbed, as they come."""
        if isinstance(self._upstream, ClientAnswer):
            self._taker = taker
            self._upstream.hand_on(self)

    def has_room(self, size: int) -> bool:
        """Whether so much of the upstream's may be handed on. What is to wait for its turn, or for room, is read."""
        taker, flow, scrubber = self._taker, self._flow, self._scrubber
        if isinstance(scrubber, GrpcScrubber) or (scrubber is not None and scrubber.unfolds(b"")):
            return False  # any of the messages to come may be compressed
        return taker is not None and flow.reason is None and taker.has_room(size) and flow.may_go_on

    def take(self, piece: bytes) -> None:
        """Hand on a piece of the upstream's, as ``read`` would give it. Raises as ``read``."""
        self._received += len(piece)
        scrubber, flow = self._scrubber, self._flow
        if scrubber is not None:
            begun = monotonic()
            piece = scrubber.feed(piece)
            flow.timing.scrub += monotonic() - begun
        if piece and self._taker is not None:
            self._taker.take(piece)
        flow.went_on()

    async def begin(self) -> None:
        """Read ahead in a compressed body, so that one which cannot be inspected is refused before its head is sent.

        A beginning that is long in coming is not waited for, but what has come is looked through.
        """
        if self._scrubber is not None and self._scrubber.recoded:
            self._ahead = ahead = asyncio.create_task(self._read())
            ahead.add_done_callback(heard)  # whoever reads learns of a failure; where nobody reads, nobody has to
            try:
                while not (await asyncio.wait({ahead}, timeout=_BEGINNING))[0]:
                    if not (self._unfolding or self._swollen):
                        break
            except BaseException:
                ahead.cancel()
                raise

    @property
    def failure(self) -> KeyholeError | None:
        """Why nothing of it can be sent, where that is known before it is read."""
        ahead = self._ahead
        if ahead is None or not ahead.done() or ahead.cancelled():
            return None
        error = ahead.exception()
        return error if isinstance(error, KeyholeError) else None

    async def read(self) -> bytes:
        """The next scrubbed chunk; ``b""`` at the end.

        Raises:
            KeyholeError: the upstream broke off, or the body cannot be inspected; the rest is withheld.
        """
        if (ahead := self._ahead) is None:
            return await self._read()
        self._ahead = None
        return await ahead

    async def _read(self) -> bytes:
        if self._done:
            return b""
        scrubber = self._scrubber
        try:
            while chunk := await self._upstream.read():
                self._flow.require_uncut()
                first = not self._received
                if not first:  # the first one goes with its call
                    await self._flow.in_turn()
                self._received += len(chunk)
                if first and self._upstream.ended:
                    clean = await self._scrubbed(chunk, ended=True)
                    await self._finish(None)
                    return clean
                clean = await self._scrubbed(chunk)
                if clean and (self._begun is None or (clean := self._beginning(clean))):
                    return clean
            self._flow.require_uncut()
            rest = b"" if scrubber is None else scrubber.finish()
            if self._begun:
                rest = b"".join([*self._begun, rest])
        except BaseException as error:
            await self._finish(error)
            reason = self._flow.reason or error
            if self._refusal is None or not isinstance(reason, KeyholeError):
                self._flow.require_uncut()
                raise
            self.trailers = self._refusal(reason)
            return b""
        await self._finish(None)
        return rest

    @property
    def _swollen(self) -> bool:
        return isinstance(self._scrubber, BodyScrubber) and self._scrubber.swollen

    def _beginning(self, clean: bytes) -> bytes:
        """What may be sent of a beginning: all that there is, once it does not unfold as a bomb does."""
        assert self._begun is not None  # noqa: S101  # until now
        if self._swollen:
            self._begun.append(clean)
            return b""
        clean = b"".join([*self._begun, clean]) if self._begun else clean
        self._begun = None
        return clean

    async def _scrubbed(self, chunk: bytes, *, ended: bool = False) -> bytes:
        """What may be seen of a chunk. One that may be many times as long unfolded takes turns with others."""
        scrubber = self._scrubber
        if scrubber is None:
            return chunk
        if not scrubber.unfolds(chunk):
            return self._timed(scrubber.whole if ended else scrubber.feed, chunk)
        steps, clean = scrubber.steps(chunk), []
        self._unfolding = True
        while (piece := self._timed(lambda _: next(steps, None), chunk)) is not None:
            clean.append(piece)
            await self._flow.in_turn()
            self._flow.require_uncut()
        self._unfolding = False
        return b"".join([*clean, scrubber.finish()] if ended else clean)

    def _timed(self, scrub: Callable[[bytes], T], chunk: bytes) -> T:
        begun = monotonic()
        clean = scrub(chunk)
        self._flow.timing.scrub += monotonic() - begun
        return clean

    async def close(self) -> None:
        """The client went away: nothing more is read, and the connection is not used again."""
        if self._ahead is not None:
            self._ahead.cancel()
            await asyncio.wait({self._ahead})
        if not self._done:
            await self._finish(asyncio.CancelledError())

    def cut(self, _error: KeyholeError) -> None:
        """Nothing more comes; whoever reads learns from the call why."""
        self._upstream.abort()

    def overdue(self, _now: float) -> KeyholeError | None:
        """Never: reading from the upstream has a time limit of its own."""

    async def _finish(self, error: BaseException | None) -> None:
        self._done = True
        self._taker = None
        trailers = self._upstream.trailers if error is None else []
        if self._scrubber is not None and self._scrubber.recoded:
            trailers = without_stale(trailers)
        self.trailers = trailers if self._trailing is None else self._trailing(trailers)
        masked = self._scrubber is not None and self._scrubber.masked
        status = self._upstream.status
        self._ended(error, status=status, received=self._received, masked=masked)
        if error is not None:
            await self._upstream.close()

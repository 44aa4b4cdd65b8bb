"""Drives one injection: sends what it asks for, until it is content with an answer.

Most injections change a message once. Some answer a challenge with a second message, some first run an errand to
another place. Of the calls that would run the same errand at once, one does; the others begin again with what it
brought.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from keyhole.broker.connections import UpstreamAnswer
from keyhole.broker.held import HeldBody, RecodedBody, hold
from keyhole.broker.kept import Room
from keyhole.broker.lease import Lease
from keyhole.broker.loan import Loan
from keyhole.core.errors import InternalError, KeyholeError
from keyhole.core.message import Body, Headers, Heard, Message
from keyhole.injections import Steps
from keyhole.vault.shares import Turn

_STEPS = 8
_REPEATED = 64 * 1024  # bytes of a body that is held because it may have to be sent again
_SPARED = 64 * 1024  # bytes that are read so that a connection can be used again


class OwnAnswer:
    """An answer that is all there, as an injection gives one by itself; reads like one of an upstream."""

    def __init__(self, said: Heard, reason: bytes = b"OK") -> None:
        self.status = said.status
        self.reason = reason
        self.headers = said.headers
        self.length: int | None = len(said.content)
        self.body: OwnAnswer | None = self
        self._content = said.content

    async def read(self) -> bytes:
        """All of it, then ``b""``."""
        content, self._content = self._content, b""
        return content

    @property
    def trailers(self) -> Headers:
        """None."""
        return []

    @property
    def ended(self) -> bool:
        """Whether it was read."""
        return not self._content

    async def close(self) -> None:
        """Nothing is open."""

    def abort(self) -> None:
        """Nothing is open."""


class _BeginAgain(Exception):
    """Another call ran the errand meanwhile."""


@dataclass(slots=True)
class Exchange:
    """One loan on its way.

    Attributes:
        loan: what was lent.
        recorded: waits until the intent is durable, before which nothing leaves.
        reserve: makes a connection, where none is reserved yet or a further message goes to the same place.
        errand: sends a message elsewhere, with a record of its own, and reads its answer.
        room: what the injection keeps between calls; ``None`` for kinds that keep nothing.
        now: seconds since the epoch.
        turn: of the call; it holds what is held of its body.
        relend: looks for other values for the loan after an upstream refused those that it has; says whether there
            are any. ``None`` where there cannot be.
    """

    loan: Loan
    recorded: Callable[[], Awaitable[None]]
    reserve: Callable[[], Awaitable[Lease]]
    errand: Callable[[Message], Awaitable[Heard]]
    room: Room | None
    now: Callable[[], float]
    turn: Turn
    relend: Callable[[], Awaitable[bool]] | None = None

    async def run(self, lease: Lease | None, message: Message, body: Body | None) -> UpstreamAnswer | OwnAnswer:
        """Inject and send. Raises whatever refuses, fails or breaks off; then the lease is given back."""
        if body is None and self.room is None and self.relend is None:  # nearly every call
            try:
                answer = await self._drive(lease, self.loan.inject(message, self.now(), {}), None)
            except BaseException:
                if lease is not None:
                    lease.cancel()
                raise
        else:
            answer = await self._run(lease, message, body)
        self.turn.release()  # what was held has been sent
        return answer

    async def _run(self, lease: Lease | None, message: Message, body: Body | None) -> UpstreamAnswer | OwnAnswer:
        try:
            if body is not None:
                message.length = body.length
                if self.loan.needs_content(message):
                    message.content = await hold(body, self.loan.longest, taking=self.turn.take)
                elif self.relend is not None and body.length is not None and body.length <= _REPEATED:
                    message.content = await hold(body, _REPEATED, taking=self.turn.take)
            message.streams = body is not None and message.content is None
            answer = await self._once(lease, message, body)
            # RFC 9110 section 15.5.2: what is answered so was not done, whatever the method.
            if self.relend is None or answer.status != 401 or message.streams or isinstance(answer, OwnAnswer):
                return answer
        except BaseException:
            if lease is not None:
                lease.cancel()
            raise
        return await self._again(answer, message, body, self.relend)

    async def _again(
        self, refused: UpstreamAnswer, message: Message, body: Body | None, relend: Callable[[], Awaitable[bool]]
    ) -> UpstreamAnswer | OwnAnswer:
        """Send once more with other values, if there are any; else the refusal is the answer."""
        try:
            if not await relend():
                return refused
            await _spare(refused)
        except BaseException:
            await refused.close()
            raise
        return await self._once(None, message, body)

    async def _once(self, lease: Lease | None, message: Message, body: Body | None) -> UpstreamAnswer | OwnAnswer:
        if self.room is None and self.relend is None:
            return await self._drive(lease, self.loan.inject(message, self.now(), {}), body)
        while True:
            fresh = replace(message, headers=list(message.headers), forms=list(message.forms))
            steps = self.loan.inject(fresh, self.now(), {} if self.room is None else self.room.kept)
            try:
                return await self._drive(lease, steps, body)
            except _BeginAgain:
                continue

    async def _drive(self, lease: Lease | None, steps: Steps, body: Body | None) -> UpstreamAnswer | OwnAnswer:
        message = next(steps)
        await self.recorded()
        for _ in range(_STEPS):
            if message.errand:
                message = await self._run_errand(steps, message)
                continue
            self.loan.injected(message)
            if message.answered is not None:
                return OwnAnswer(message.answered)
            answer = await (lease or await self.reserve()).send(message, _sent(message, body))
            try:
                message = steps.send(Heard(answer.status, answer.headers))
            except StopIteration:
                return answer
            except BaseException:
                await answer.close()
                raise
            await _spare(answer)
            if message.streams:
                raise InternalError("an injection asked to send a body again that nobody holds")
            lease = None
        raise InternalError("an injection is never content")

    async def _run_errand(self, steps: Steps, message: Message) -> Message:
        if self.room is None:
            raise InternalError("an injection ran an errand and keeps nothing")
        room = self.room
        seen = room.ended
        async with room.errand:
            if room.ended != seen:  # another call ran it meanwhile
                if room.failure is not None:  # what failed for one would fail for all who waited for it
                    raise type(room.failure)(room.failure.reason, room.failure.hint)
                raise _BeginAgain
            try:
                message = steps.send(await self.errand(message))
            except StopIteration:
                raise InternalError("an injection ended with an errand") from None
            except KeyholeError as error:
                room.ended, room.failure = seen + 1, error
                raise
            room.ended, room.failure = seen + 1, None
            return message


def _sent(message: Message, body: Body | None) -> Body | None:
    if message.content is not None:
        return HeldBody(message.content, None if body is None else body.trailers)
    return RecodedBody(body, message.recode) if body is not None and message.recode is not None else body


async def _spare(answer: UpstreamAnswer) -> None:
    """Read the rest of an answer that is not passed on, where it is short; else its connection ends."""
    size = 0
    while not answer.ended and (answer.length or 0) <= _SPARED and size <= _SPARED:
        size += len(await answer.read())
    await answer.close()

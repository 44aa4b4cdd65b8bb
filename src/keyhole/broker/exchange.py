"""Drives one injection: sends what it asks for, until it is content with an answer.

Most injections change a message once. Some answer a challenge with a second message, some first run an errand to
another place. Of the calls that would run the same errand at once, one does; the others begin again with what it
brought.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from keyhole.broker.held import HeldBody, RecodedBody, hold
from keyhole.broker.kept import Room
from keyhole.broker.loan import Loan
from keyhole.broker.upstream import Lease, UpstreamAnswer
from keyhole.core.errors import InternalError
from keyhole.core.message import Body, Heard, Message
from keyhole.injections import Steps

_STEPS = 8
_SPARED = 64 * 1024  # bytes that are read so that a connection can be used again


class _BeginAgain(Exception):
    """Another call ran the errand meanwhile."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """One loan on its way.

    Attributes:
        loan: what was lent.
        reserve: makes a connection for a further message to the same place.
        errand: sends a message elsewhere, with a record of its own, and reads its answer.
        room: what the injection keeps between calls; ``None`` for kinds that keep nothing.
        now: seconds since the epoch.
    """

    loan: Loan
    reserve: Callable[[], Lease]
    errand: Callable[[Message], Awaitable[Heard]]
    room: Room | None
    now: Callable[[], float]

    async def run(self, lease: Lease, message: Message, body: Body | None) -> UpstreamAnswer:
        """Inject and send. Raises whatever refuses, fails or breaks off; then the lease is given back."""
        try:
            if body is not None and self.loan.needs_content(message):
                message.content = await hold(body)
            if self.room is None:
                return await self._drive(lease, self.loan.inject(message, self.now(), {}), body)
            while True:
                fresh = replace(message, headers=list(message.headers), forms=list(message.forms))
                steps = self.loan.inject(fresh, self.now(), self.room.kept)
                try:
                    return await self._drive(lease, steps, body)
                except _BeginAgain:
                    continue
        except BaseException:
            lease.cancel()
            raise

    async def _drive(self, lease: Lease, steps: Steps, body: Body | None) -> UpstreamAnswer:
        message = next(steps)
        for _ in range(_STEPS):
            if message.errand:
                message = await self._run_errand(steps, message)
                continue
            self.loan.injected(message)
            answer = await lease.send(message, _sent(message, body))
            try:
                message = steps.send(Heard(answer.status, answer.headers))
            except StopIteration:
                return answer
            except BaseException:
                await answer.close()
                raise
            await _spare(answer)
            if body is not None and message.content is None:
                raise InternalError("an injection asked to send a body again that nobody holds")
            lease = self.reserve()
        raise InternalError("an injection is never content")

    async def _run_errand(self, steps: Steps, message: Message) -> Message:
        if self.room is None:
            raise InternalError("an injection ran an errand and keeps nothing")
        if self.room.errand.locked():
            async with self.room.errand:
                raise _BeginAgain
        async with self.room.errand:
            heard = await self.errand(message)
            try:
                return steps.send(heard)
            except StopIteration:
                raise InternalError("an injection ended with an errand") from None


def _sent(message: Message, body: Body | None) -> Body | None:
    if message.content is not None:
        return HeldBody(message.content)
    return RecodedBody(body, message.recode) if body is not None and message.recode is not None else body


async def _spare(answer: UpstreamAnswer) -> None:
    """Read the rest of an answer that is not passed on, where it is short; else its connection ends."""
    size = 0
    while not answer.ended and (answer.length or 0) <= _SPARED and size <= _SPARED:
        size += len(await answer.read())
    await answer.close()

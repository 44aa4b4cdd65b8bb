"""Calls under way, judged again and again: whoever may no longer make one does not go on with it.

A call is decided once, before anything is sent. A stream that lasts for hours must not outlive by that the token, the
grant or the secret that it was begun with. So every call that has lasted for ``EVERY`` seconds is looked at each time
these have passed, all of them by one timer. While the store's generation stays the same and no token has come to its
end, that is all there is to it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from keyhole.broker.late import require_still
from keyhole.core.errors import KeyholeError, StoreUnavailable
from keyhole.core.identity import Caller
from keyhole.core.message import Answer
from keyhole.core.service import Service
from keyhole.core.timing import Timing
from keyhole.net.websocket import FrameLimits
from keyhole.vault.vault import Vault

EVERY = 2.0  # seconds; a call is cut at most twice that after the reason came up
_DOUBTS = 2  # looks in a row at a store that does not answer, before a call is cut for that


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Bounds on what goes on after an answer's head.

    Attributes:
        frames: bounds on the frames of either side.
        idle: seconds without a byte in either direction; pings count.
        write: seconds for a peer that does not read.
        farewell: seconds that an upstream gets to answer a close frame.
        tunnel_idle: seconds without a byte in either direction of a tunnel that is passed on.
    """

    frames: FrameLimits = field(default_factory=FrameLimits)
    idle: float = 900.0
    write: float = 60.0
    farewell: float = 1.0
    tunnel_idle: float = 3_600.0


class Flowing(Protocol):
    """What goes on after the head of an answer: a body or a stream."""

    def cut(self, error: KeyholeError) -> None:
        """End it now."""

    def overdue(self, now: float) -> KeyholeError | None:
        """Why it has to end by itself at a loop time, if it has to."""


class Ended(Protocol):
    """What is told at the end."""

    def __call__(
        self, error: BaseException | None, *, status: int = 0, received: int = 0, sent: int = 0, masked: bool = False
    ) -> None:
        """Record why it ended (``None`` when it was said goodbye), how much was said, and whether any was masked."""


class Flow:
    """A call under way; base of whoever carries one.

    Attributes:
        vault: where it was decided.
        caller: who makes it.
        service: through which it goes, if any.
        since: when it began, by the vault's clock.
        task: waits for the head of the answer, and may be cancelled until that is there.
        given: the answer, once there is one.
        flowing: its body or stream.
        reason: why it was cut, if it was.
        timing: where its time goes.
    """

    __slots__ = (
        "_doubts",
        "_expires",
        "_seen",
        "caller",
        "flowing",
        "given",
        "reason",
        "service",
        "since",
        "task",
        "timing",
        "vault",
    )

    def __init__(self, vault: Vault, caller: Caller, service: Service | None, timing: Timing) -> None:
        self.vault = vault
        self.timing = timing
        self.caller = caller
        self.service = service
        self.since = vault.clock.now()
        self.task: asyncio.Task[object] | None = None
        self.given: Answer | None = None
        self.flowing: Flowing | None = None
        self.reason: KeyholeError | None = None
        self._seen = -1
        self._expires = math.inf
        self._doubts = 0

    async def in_turn(self) -> None:
        """Wait with what costs the processor while it is others' turn."""
        await self.vault.shares.admission.pause((self.caller.org_id, self.caller.name))

    @property
    def may_go_on(self) -> bool:
        """Whether there is room for a little more in this pass of the loop; if not, wait ``in_turn``."""
        return self.vault.shares.admission.open

    def went_on(self) -> None:
        """It did go on, which counts in this pass of the loop."""
        self.vault.shares.admission.enter((self.caller.org_id, self.caller.name))

    def cut(self, error: KeyholeError) -> None:
        """End the call, wherever it is."""
        if self.reason is not None:
            return
        self.reason = error
        if self.task is not None:
            self.task.cancel()
        if self.flowing is not None:
            self.flowing.cut(error)
        if self.given is not None and self.given.on_cut is not None:
            self.given.on_cut()

    def require_uncut(self) -> None:
        """Raise why the call was cut, if it was."""
        if self.reason is not None:
            raise self.reason

    async def verdict(self, now: float, lendable: dict[tuple[str, str], int]) -> KeyholeError | None:
        """Why it has to end, if it has to.

        Args:
            now: loop time.
            lendable: services whose secrets were found to be there, with the generation of the store at that time.
        """
        overdue = self.flowing.overdue(now) if self.flowing is not None else None
        if overdue is not None:
            return overdue
        try:
            await self._require_still(lendable)
        except StoreUnavailable as error:
            self._doubts += 1
            return error if self._doubts >= _DOUBTS else None
        except KeyholeError as error:
            return error
        self._doubts = 0
        return None

    async def _require_still(self, lendable: dict[tuple[str, str], int]) -> None:
        vault = self.vault
        state = await vault.compiled.state(self.caller.org_id)
        generation = state.generation
        if generation == self._seen and vault.clock.now() < self._expires:
            return
        self._expires = await require_still(vault, self.caller, self.service)
        if self.service is not None:
            place = (state.org.id, self.service.name)
            if lendable.get(place) != generation:
                await vault.check_loan(state, self.caller, self.service)
                if not self.service.sourced:  # what is leased is the caller's own
                    lendable[place] = generation
        self._seen = generation


class Live:
    """All calls under way of one broker.

    Attributes:
        limits: bounds on their streams.
    """

    def __init__(self, limits: StreamLimits) -> None:
        self.limits = limits
        self._flows: set[Flow] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._judging: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._flows)

    def __iter__(self) -> Iterator[Flow]:
        return iter(self._flows)

    def add(self, flow: Flow) -> None:
        """Look after a call until ``discard``."""
        self._flows.add(flow)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(EVERY, self._look)

    def discard(self, flow: Flow) -> None:
        """It has ended."""
        self._flows.discard(flow)

    def cut(self, error: KeyholeError) -> None:
        """End all calls."""
        for flow in list(self._flows):
            flow.cut(error)

    def _look(self) -> None:
        self._timer = None
        if not self._flows:
            return
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(EVERY, self._look)
        if self._judging is None or self._judging.done():
            lasting = [flow for flow in self._flows if flow.vault.clock.now() - flow.since >= EVERY]
            if lasting:
                self._judging = loop.create_task(self._judge(loop, lasting))

    async def _judge(self, loop: asyncio.AbstractEventLoop, flows: list[Flow]) -> None:
        lendable: dict[tuple[str, str], int] = {}
        for flow in flows:
            error = await flow.verdict(loop.time(), lendable)
            if error is not None and flow in self._flows:
                flow.cut(error)

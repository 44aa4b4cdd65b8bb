"""What one org has judged at the same time: so much, and then its agents take turns.

Judging a request costs the processor, and what is written into the journal for it. A flood would have all of it done
side by side, and whoever is not part of the flood would wait for all of it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Protocol

from keyhole.core.errors import RateLimited
from keyhole.core.fair import FairQueue
from keyhole.core.shares import ShareLimits


class Starter(Protocol):
    """What starts; it is known by its identity."""


class Starting:
    """The calls and requests of one org that are being judged, and those that wait for it.

    What takes longer than ``patience``, because it waits for something else, counts no more as soon as others wait.
    """

    __slots__ = ("_limits", "_line", "_started", "_timer")

    def __init__(self, limits: ShareLimits) -> None:
        self._limits = limits
        self._started: OrderedDict[Starter, float] = OrderedDict()
        self._line: FairQueue[tuple[Starter, asyncio.Future[None]]] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def open(self) -> bool:
        """Whether there is room for one more."""
        return len(self._started) < self._limits.starting

    def enter(self, starter: Starter) -> bool:
        """Start at once, if there is room."""
        if not self.open:
            return False
        self._started[starter] = asyncio.get_running_loop().time()
        return True

    async def wait(self, agent: str, starter: Starter) -> None:
        """Start when it is an agent's turn. Raises ``RateLimited`` when too many wait."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        if self._line is None:
            self._line = FairQueue(self._limits.waiting, self._limits.waiting)
        refusal = RateLimited("too many calls of this agent wait for their turn", "try again", retry_after=1)
        out = self._line.put("", agent, (starter, turn))
        if out is not None and out[0] is starter:
            raise refusal
        if out is not None and not out[1].done():
            out[1].set_exception(refusal)
        self._let_in()
        try:
            await turn
        except asyncio.CancelledError:
            if self._line is not None:
                self._line.remove("", agent, (starter, turn))
            raise

    def leave(self, starter: Starter) -> None:
        """It has been judged, or is no longer wanted; said again, nothing happens."""
        if self._started.pop(starter, None) is not None and self._line is not None:
            self._let_in()

    def _let_in(self) -> None:
        """Start who is next, as far as there is room."""
        now, limits = asyncio.get_running_loop().time(), self._limits
        while self._line:
            if len(self._started) >= limits.starting:
                first, since = next(iter(self._started.items()))
                if now - since < limits.patience:
                    if self._timer is None:
                        self._timer = asyncio.get_running_loop().call_at(since + limits.patience, self._look)
                    return
                del self._started[first]
            found = self._line.take()
            if found is None:
                break
            starter, turn = found[1]
            if not turn.done():  # whoever waited may just have gone
                self._started[starter] = now
                turn.set_result(None)
        self._line = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        self._let_in()

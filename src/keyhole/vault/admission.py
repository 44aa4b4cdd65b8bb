"""Who begins next: in each pass of the event loop only so much, and tenants take turns with it.

A loop does in one pass all that is ready, and whoever comes then waits for all of it, at each step of the way: behind
a flood that is ready at once with hundreds of calls, a call waits for hundreds, several times. So what costs the
processor begins here, little in a pass, and the rest waits in a line where orgs take turns, and agents within an org.

Who is alone, because nobody else has come lately, gets more of a pass: small groups cost the journal a signature each,
and there is nobody whom it would help.

What was let in is not counted any further. There is nothing to give back, so whatever it waits for later, and however
long, holds up nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from time import monotonic

from keyhole.core.errors import RateLimited
from keyhole.core.fair import FairQueue

_MOST = 2
_ALONE = 64
_LATELY = 4096  # passes
_QUIET = 1.0  # seconds
_EACH = 5_000
_WAITING = 20_000


class Admission:
    """The line of one event loop.

    Where nobody waits, ``enter`` is all: it makes no future, and ``wait`` is not called.

    Args:
        most: how much may begin in one pass of the loop.
        alone: how much of somebody beside whom nobody else has come lately.
        lately: how many passes that is. Passes in which nothing begins are none, and where there were none for a
            second, nobody has come lately.
        each: how much may wait of one tenant.
        waiting: how much may wait in all.
        clock: seconds, which never go back.
    """

    __slots__ = (
        "_alone",
        "_clock",
        "_last",
        "_lately",
        "_left",
        "_line",
        "_most",
        "_number",
        "_passed",
        "_passing",
        "_together",
    )

    def __init__(
        self,
        most: int = _MOST,
        each: int = _EACH,
        waiting: int = _WAITING,
        *,
        alone: int = _ALONE,
        lately: int = _LATELY,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._most = most
        self._lately = lately
        self._alone = self._left = alone
        self._number = self._together = 0  # of this pass, and of the one until which somebody is not alone
        self._clock = clock
        self._passed = 0.0  # when the last pass was in which anything began
        self._last: tuple[str, str] | None = None
        self._line: FairQueue[asyncio.Future[None]] = FairQueue(each, waiting)
        self._passing = False

    @property
    def open(self) -> bool:
        """Whether there is room in this pass of the loop."""
        return self._left > 0

    def enter(self, whose: tuple[str, str]) -> bool:
        """Begin now, if there is room; else ``wait``.

        Args:
            whose: tenant and member, as for ``wait``.
        """
        if not self._passing and self._number < self._together and self._clock() - self._passed >= _QUIET:
            self._last, self._together, self._left = None, 0, self._alone
        if whose != self._last:
            if self._last is not None:
                self._together = self._number + self._lately
                self._left = min(self._left, self._most)
            self._last = whose
        if not self._left:
            return False
        if not self._passing:
            self._passing = True
            asyncio.get_running_loop().call_soon(self._pass)
        self._left -= 1
        return True

    async def wait(self, whose: tuple[str, str]) -> None:
        """Begin when it is a tenant's turn, and a member's within it.

        Args:
            whose: id of an org and name of an agent; of who is unknown, the address and what they say they are.

        Raises:
            RateLimited: too many wait, and of this tenant most.
        """
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        out = self._line.put(*whose, turn)
        if out is turn:
            raise _crowded()
        if out is not None and not out.done():
            out.set_exception(_crowded())
        await turn

    async def pause(self, whose: tuple[str, str]) -> None:
        """Go on when it is their turn, in the middle of something that is not broken off where too many wait."""
        if not self.enter(whose):
            with contextlib.suppress(RateLimited):
                await self.wait(whose)

    def _pass(self) -> None:
        """Another pass of the loop. Who has gone meanwhile is left out, and takes nobody's place."""
        self._number += 1
        most = self._left = self._most if self._number < self._together else self._alone
        while self._left and (found := self._line.take()) is not None:
            if not found[1].done():
                self._left -= 1
                found[1].set_result(None)
        self._passing = self._left < most
        if self._passing:
            asyncio.get_running_loop().call_soon(self._pass)
        elif self._number < self._together:
            self._passed = self._clock()


def _crowded() -> RateLimited:
    return RateLimited("too many calls wait for their turn", "try again", retry_after=1)

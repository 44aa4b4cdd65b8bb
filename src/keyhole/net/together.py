"""Work that many wait for and one does.

    connections: Together[Origin, Connection] = Together()
    await connections.wait(origin, lambda: self._dial(origin))

1. Whoever waits may go; the work goes on for the others, and to its end when nobody is left.
2. A failure is raised for each who waits as an error of their own: the door writes into it for which request it is.
3. Work that has ended is nobody's any more, also before the loop has told those who waited for it. Awaiting it would
   return at once, so that whoever looks again in a loop would never let the loop go on; the next one begins their own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Hashable
from functools import partial
from typing import Any, Generic, TypeVar

from keyhole.core.errors import KeyholeError, own
from keyhole.net.tasks import heard

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Together(Generic[K, T]):
    """Pieces of work that are under way, by their key."""

    __slots__ = ("_works",)

    def __init__(self) -> None:
        self._works: dict[K, asyncio.Task[T]] = {}

    def __len__(self) -> int:
        return len(self._works)

    def get(self, key: K) -> asyncio.Task[T] | None:
        """The work that is under way, if there is any."""
        work = self._works.get(key)
        return None if work is None or work.done() else work

    def begin(self, key: K, make: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """The work that is under way, or new work."""
        work = self.get(key)
        if work is None:
            work = self._works[key] = asyncio.get_running_loop().create_task(make())
            work.add_done_callback(partial(self._ended, key))
            work.add_done_callback(heard)  # nobody may be there any more
        return work

    async def wait(self, key: K, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What comes of the work, which is begun if none is under way. Raises what it raises."""
        return await awaited(self.begin(key, make))

    async def settle(self, seconds: float) -> None:
        """Wait so many seconds at most for what is under way."""
        if self._works:
            await asyncio.wait(list(self._works.values()), timeout=seconds)

    def _ended(self, key: K, work: asyncio.Task[T]) -> None:
        if self._works.get(key) is work:
            del self._works[key]


class OneByOne(Generic[K]):
    """Turns at what is to be done once at a time, by its key: unlike shared work, each who waits does their own."""

    __slots__ = ("_turns",)

    def __init__(self) -> None:
        self._turns: dict[K, tuple[asyncio.Lock, int]] = {}

    def __len__(self) -> int:
        return len(self._turns)

    @contextlib.asynccontextmanager
    async def turn(self, key: K) -> AsyncIterator[None]:
        """The turn of whoever came, in the order in which they did."""
        lock, waiting = self._turns.get(key) or (asyncio.Lock(), 0)
        self._turns[key] = lock, waiting + 1
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._turns[key]
            if waiting == 1:
                del self._turns[key]
            else:
                self._turns[key] = lock, waiting - 1


async def awaited(work: asyncio.Future[T]) -> T:
    """What comes of work that goes on for others when who waits is cancelled. Its error is one of their own."""
    try:
        return await asyncio.shield(work)
    except KeyholeError as error:
        raise own(error) from error.__cause__

"""Work that goes on by itself: held on to until it ends, waited for to its end, or left to end unheard.

A loop holds its tasks weakly, so somebody has to hold each one of which nobody waits for the outcome.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Tasks:
    """Tasks under way, of which nobody has to wait for any."""

    __slots__ = ("_tasks",)

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Have work done, and hold on to it."""
        return self.keep(asyncio.get_running_loop().create_task(work))

    def keep(self, task: asyncio.Task[T]) -> asyncio.Task[T]:
        """Hold on to a task until it ends."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def settle(self) -> None:
        """Wait until nothing is under way, also of what is begun meanwhile."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def end(self, seconds: float = 0.0) -> None:
        """Stop what is under way, after so many seconds for what ends by itself."""
        if self._tasks and seconds:
            await asyncio.wait(self._tasks, timeout=seconds)
        self.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cancel(self) -> None:
        """Stop what is under way, and wait for nothing."""
        for task in self._tasks:
            task.cancel()


async def to_its_end(work: asyncio.Future[T]) -> T:
    """What comes of work that is waited for however often who waits is cancelled: what follows must follow."""
    gone: asyncio.CancelledError | None = None
    while not work.done():
        try:
            await asyncio.wait([work])
        except asyncio.CancelledError as error:
            gone = error
    if gone is not None:
        heard(work)
        raise gone
    return work.result()


def heard(work: asyncio.Future[Any]) -> None:
    """Look at how work has ended: nobody else may, and then the loop would log a failure as one that was forgotten."""
    if not work.cancelled():
        work.exception()

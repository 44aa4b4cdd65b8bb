"""A bounded number of sessions at the same time. One that is free goes to whoever waits, else it is closed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from keyhole.engines.database.plugins import Session


class Pool:
    """The sessions of one connection.

    Args:
        most: at the same time.
    """

    def __init__(self, most: int) -> None:
        self._slots = asyncio.Semaphore(most)
        self._free: list[Session] = []
        self._waiting = 0

    @contextlib.asynccontextmanager
    async def session(self, log_in: Callable[[], Awaitable[Session]]) -> AsyncIterator[Session]:
        """A session for one piece of work, after which it is handed on. Raises what ``log_in`` raises."""
        self._waiting += 1
        try:
            await self._slots.acquire()
        except BaseException:
            self._waiting -= 1
            await self._close_unwanted()
            raise
        self._waiting -= 1
        try:
            session = self._free.pop() if self._free else await log_in()
            try:
                yield session
            except BaseException:
                await session.close()  # who knows in which state it is
                raise
            self._free.append(session)
            await self._close_unwanted()
        finally:
            self._slots.release()

    async def _close_unwanted(self) -> None:
        while len(self._free) > self._waiting:
            await self._free.pop().close()

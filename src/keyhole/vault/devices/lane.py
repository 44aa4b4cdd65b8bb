"""One device's queue: lines go out one batch at a time, and nobody waits longer for it than its time.

A device that did not keep up within its time is *behind*: requests go on without waiting for it as long as another
device has written, and it gets what is queued for it as it can take it. What no longer fits into the queue is lost to
this device, and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from keyhole.core.errors import KeyholeError

if TYPE_CHECKING:
    from keyhole.net.delivery import Way

QUEUE_LINES = 20_000
QUEUE_BYTES = 16 * 1024 * 1024
BATCH_BYTES = 256 * 1024
PAUSE = 0.5  # seconds after a failure in which a device is not tried: its failures would hold up each request


class _Waiting(NamedTuple):
    line: bytes
    written: asyncio.Future[bool]


class Lane:
    """Queue, task and state of one device.

    Args:
        way: where the lines go.
        seconds: how long a batch may take.

    Attributes:
        behind: it did not keep up within its time.
        lost: lines that it never got.
        problem: why it did not take the last batch; empty when it did.
    """

    def __init__(self, way: Way, seconds: float) -> None:
        self.behind = False
        self.lost = 0
        self.problem = ""
        self.seconds = seconds
        self._way = way
        self._queue: deque[_Waiting] = deque()
        self._size = 0
        self._task: asyncio.Task[None] | None = None
        self._paused_until = 0.0

    def put(self, line: bytes) -> asyncio.Future[bool]:
        """Queue a line; the future says whether the device has it."""
        loop = asyncio.get_running_loop()
        written: asyncio.Future[bool] = loop.create_future()
        full = len(self._queue) >= QUEUE_LINES or self._size + len(line) > QUEUE_BYTES
        if full or loop.time() < self._paused_until:
            self.lost += 1
            written.set_result(False)
            return written
        self._queue.append(_Waiting(line, written))
        self._size += len(line)
        if self._task is None:
            self._task = loop.create_task(self._run())
        return written

    async def close(self) -> None:
        """Hand over what is queued, within the device's time, and let it go."""
        task = self._task  # which forgets itself when it is done
        if task is not None:
            await asyncio.wait([task], timeout=self.seconds)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._way.close()

    async def _run(self) -> None:
        try:
            while self._queue:
                await self._send(self._take())
            self.behind = False
        finally:
            self._task = None

    def _take(self) -> list[_Waiting]:
        batch, size = [], 0
        while self._queue and size < BATCH_BYTES:
            batch.append(self._queue.popleft())
            size += len(batch[-1].line)
        self._size -= size
        return batch

    async def _send(self, batch: list[_Waiting]) -> None:
        sent = False
        try:
            await self._way.send([waiting.line for waiting in batch])
            sent, self.problem = True, ""
        except KeyholeError as error:
            self.problem = error.reason
        except OSError as error:
            self.problem = f"it cannot be reached (errno {error.errno})"
        finally:
            if not sent:
                self.lost += len(batch)
                self._paused_until = asyncio.get_running_loop().time() + PAUSE
            for waiting in batch:
                if not waiting.written.done():
                    waiting.written.set_result(sent)


async def write_all(lines: dict[Lane, bytes]) -> bool:
    """Hand each lane its line. True as soon as all that keep up have answered or had their time, and one has written.

    While one that is behind is the only one left, it is waited for as well.
    """
    futures = {lane.put(line): lane for lane, line in lines.items()}
    if await _any_written({future: lane for future, lane in futures.items() if not lane.behind}):
        return True
    return await _any_written(futures)


async def _any_written(futures: dict[asyncio.Future[bool], Lane]) -> bool:
    waiting = {future for future in futures if not future.done()}
    if waiting:
        _, late = await asyncio.wait(waiting, timeout=max(futures[future].seconds for future in waiting))
        for future in late:
            futures[future].behind = True
    return any(future.done() and future.result() for future in futures)

"""A file of lines, written by a thread of its own: a file system that hangs holds up nobody but this device.

1. Only a regular file is written to, and not through a symbolic link at its end. One that is there already and not
   empty must begin like an audit log, so that lines are not added to what means something to another program.
2. It is opened again when told to (log rotation: move the file, then send SIGHUP), and once when writing fails. A file
   that was removed is not made anew in silence: until it is opened again the lines go where they went before.
"""

from __future__ import annotations

import asyncio
import os
import queue
import stat
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from keyhole.core.errors import AuditUnavailable, InvalidRequest

STDOUT = "stdout"
_ENTRY = b'{"time":"'  # how each entry begins: a file of settings in JSON is none
_Job = tuple[Callable[[], None], asyncio.AbstractEventLoop, "asyncio.Future[None]"]


class File:
    """As ``net.delivery.Way``.

    Args:
        path: absolute, or ``stdout``.
        mode: permissions of a file that is made.
        prefix: what a line begins with, before its JSON.
    """

    def __init__(self, path: str, mode: int, prefix: bytes) -> None:
        self._path = path
        self._mode = mode
        self._beginnings = (_ENTRY, prefix + _ENTRY)
        self._descriptor: int | None = None
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def send(self, lines: Sequence[bytes]) -> None:
        """As ``Way.send``."""
        data = b"".join(lines)
        await self._do(lambda: self._write(data))

    async def open(self) -> None:
        """Open the file now. Raises ``InvalidRequest`` when that cannot be done."""
        await self._do(self._opened)

    def reopen(self) -> None:
        """Open the file of this name before the next line."""
        if self._thread is not None:
            loop = asyncio.get_running_loop()
            self._jobs.put((self._drop, loop, loop.create_future()))

    def close(self) -> None:
        """Let the file go, after what was handed over."""
        self.reopen()
        self._jobs.put(None)
        self._thread = None

    async def _do(self, job: Callable[[], None]) -> None:
        if self._thread is None:
            # Not one of the loop's own threads: the end of the process waits for those, and a hanging one never ends.
            self._jobs = queue.SimpleQueue()
            self._thread = threading.Thread(target=_work, args=(self._jobs,), name="keyhole-audit", daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._jobs.put((job, loop, future))
        await future

    def _write(self, data: bytes) -> None:
        try:
            _write_all(self._opened_descriptor(), data)
        except OSError:
            self._drop()
            _write_all(self._opened_descriptor(), b"\n" + data)  # what was cut off ends here

    def _opened(self) -> None:
        self._opened_descriptor()

    def _opened_descriptor(self) -> int:
        if self._descriptor is None:
            self._descriptor = (
                os.dup(sys.__stdout__.fileno()) if self._path == STDOUT and sys.__stdout__ else self._make()
            )
        return self._descriptor

    def _make(self) -> int:
        path = Path(self._path)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # Without O_NONBLOCK the opening of a pipe would wait for somebody who reads it.
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(path, flags, self._mode)
        except OSError as error:
            raise InvalidRequest(
                f"the audit file cannot be opened: {os.strerror(error.errno or 0).lower()}",
                "name a file in a folder where the server may write",
            ) from None
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or not self._is_log(descriptor, found.st_size):
            os.close(descriptor)
            raise InvalidRequest("that is a file of something else, not an audit log", "name another file")
        return descriptor

    def _is_log(self, descriptor: int, size: int) -> bool:
        return size == 0 or os.pread(descriptor, 64, 0).startswith(self._beginnings)

    def _drop(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _work(jobs: queue.SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        do, loop, future = job
        problem: Exception | None = None
        try:
            do()
        except OSError as error:
            problem = AuditUnavailable(f"the audit file cannot be written: {os.strerror(error.errno or 0).lower()}")
        except Exception as error:  # noqa: BLE001 - it belongs to whoever waits, and the thread goes on
            problem = error
        try:
            loop.call_soon_threadsafe(_settle, future, problem)
        except RuntimeError:
            return  # the loop has ended, and nobody waits any more


def _settle(future: asyncio.Future[None], problem: Exception | None) -> None:
    if future.done():
        return
    if problem is None:
        future.set_result(None)
    else:
        future.set_exception(problem)
        future.exception()  # looked at, also when nobody waits for it


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]

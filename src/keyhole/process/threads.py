"""Threads for work that would hold up the event loop, in which tenants take turns.

Keys, hashes and certificates are made in threads, of which there are few. Where they are all at work, what waits is
taken from each org in turn and within an org from each caller, and no org has all of them to itself.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from keyhole.core.errors import RateLimited
from keyhole.core.fair import ASKING, FairQueue

P = ParamSpec("P")
T = TypeVar("T")

_MOST = 32
_EACH = 1_000  # jobs of one org that may wait
_ALL = 10_000


class FairThreads(ThreadPoolExecutor):
    """An executor for an event loop (``set_default_executor``); whose a job is, ``ASKING`` says where it is handed in.

    Args:
        threads: how many; 0 for as many as the standard library would have.
    """

    def __init__(self, threads: int = 0) -> None:
        threads = threads or min(_MOST, (os.cpu_count() or 1) + 4)
        super().__init__(threads, "keyhole-work")
        self._each = max(1, threads // 2)
        self._lock = threading.Lock()
        self._jobs: FairQueue[tuple[Future[object], Callable[[], object]]] = FairQueue(_EACH, _ALL)
        self._running: Counter[str] = Counter()

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As an executor does. A job that there is no room for fails with ``RateLimited``."""
        future: Future[T] = Future()
        job: tuple[Future[object], Callable[[], object]] = (future, partial(fn, *args, **kwargs))  # type: ignore[assignment]  # only what the job gives is set
        with self._lock:
            out = self._jobs.put(*ASKING.get(), job)
        if out is not None and out[0].set_running_or_notify_cancel():
            out[0].set_exception(RateLimited("too much work of this org waits", "try again", retry_after=1))
        if out is not job:
            super().submit(self._work)
        return future

    def _work(self) -> None:
        """Do what there is to do, as long as it is anybody's turn."""
        while (found := self._next()) is not None:
            tenant, (future, job) = found
            try:
                if future.set_running_or_notify_cancel():
                    _do(future, job)
            finally:
                with self._lock:
                    self._running[tenant] -= 1
                    if not self._running[tenant]:
                        del self._running[tenant]

    def _next(self) -> tuple[str, tuple[Future[object], Callable[[], object]]] | None:
        with self._lock:
            found = self._jobs.take(lambda tenant: not tenant or self._running[tenant] < self._each)
            if found is not None:
                self._running[found[0]] += 1
            return found


def _do(future: Future[object], job: Callable[[], object]) -> None:
    try:
        result = job()
    except BaseException as error:  # noqa: BLE001 - whatever it is belongs to who waits for the job
        future.set_exception(error)
    else:
        future.set_result(result)

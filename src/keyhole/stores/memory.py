"""A store in the memory of this process: for development, tests and vaults that must not outlive their process.

It has one owner, the thread of the event loop; nothing else may call it.
"""

# ruff: noqa: D102 - the contract in keyhole.stores describes the methods
from __future__ import annotations

import asyncio
import time
from bisect import bisect_left, bisect_right, insort
from collections.abc import AsyncIterator, Iterable, Sequence

from keyhole.core.errors import InvalidRequest, StoreUnavailable
from keyhole.stores import Batch, Entries, Entry, JournalRow, Keys, Rows
from keyhole.stores.keys import AFTER_ASCII, changed_since, expectations, fold, out_of_order, validate

_NEVER = Entry(None, 0)


async def open_store(rest: str, *, create: bool) -> MemoryStore:
    """Open an empty store. Every call makes a new one, so ``create`` says nothing here.

    Raises:
        InvalidRequest: something follows the colon.
    """
    del create
    if rest:
        raise InvalidRequest("the memory store has no location", "use memory: alone")
    return MemoryStore()


class MemoryStore:
    """The contract on dictionaries. Nothing is suspended between judging a batch and applying it."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._live: list[str] = []
        self._due: list[tuple[float, str]] = []
        self._due_of: dict[str, float] = {}
        self._journals: dict[int, list[JournalRow]] = {}
        self._generation = 0
        self._changed = asyncio.Event()
        self._closed = False

    async def get(self, keys: Sequence[str]) -> Entries:
        self._require_open()
        return [self._entries.get(key, _NEVER) for key in keys]

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000, delimiter: str = "") -> Keys:
        self._require_open()
        end = bisect_left(self._live, prefix + AFTER_ASCII)

        def seek(start: str, inclusive: bool) -> Iterable[str]:  # noqa: FBT001 - the shape of keys.Seek
            first = bisect_left(self._live, start) if inclusive else bisect_right(self._live, start)
            return (self._live[index] for index in range(first, end))

        return fold(seek, prefix, after, limit, delimiter)

    async def commit(self, batch: Batch) -> None:
        self._require_open()
        validate(batch)
        self._judge(batch)
        for put in batch.puts:
            due = self._due_of.get(put.key) if put.keep_due else put.due
            self._forget(put.key)
            self._entries[put.key] = Entry(bytes(put.value), put.expected + 1)
            insort(self._live, put.key)
            if due is not None:
                self._due_of[put.key] = due
                insort(self._due, (due, put.key))
        for delete in batch.deletes:
            self._forget(delete.key)
            self._entries[delete.key] = Entry(None, delete.expected + 1)
        for row in batch.appends:
            self._journals.setdefault(row.writer, []).append(row)
        if batch.puts or batch.deletes:
            self._generation += 1
            self._wake()

    async def scan(self, writer: int, *, after: int = 0, limit: int = 1000) -> Rows:
        self._require_open()
        first = max(after, 0)
        return self._journals.get(writer, [])[first : first + max(limit, 0)]

    async def heads(self) -> dict[int, int]:
        self._require_open()
        return {writer: len(rows) for writer, rows in sorted(self._journals.items())}

    async def due(self, now: float, limit: int = 100) -> Keys:
        self._require_open()
        end = bisect_right(self._due, (now, AFTER_ASCII))
        return [key for _, key in self._due[: min(end, max(limit, 0))]]

    async def generation(self) -> int:
        self._require_open()
        return self._generation

    def latest(self) -> int | None:
        return None if self._closed else self._generation

    def watch(self) -> AsyncIterator[int]:
        return self._watch(self._generation)

    async def now(self) -> float:
        return time.time()

    async def close(self) -> None:
        self._closed = True
        self._wake()

    async def _watch(self, seen: int) -> AsyncIterator[int]:
        while not self._closed:
            if self._generation == seen:
                await self._changed.wait()
                continue
            seen = self._generation
            yield seen

    def _wake(self) -> None:
        # A fresh event for the next change: whoever waits holds the old one, which stays set.
        self._changed.set()
        self._changed = asyncio.Event()

    def _require_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed", "open it again")

    def _judge(self, batch: Batch) -> None:
        for key, expected in expectations(batch):
            stored = self._entries.get(key, _NEVER).revision
            if stored != expected:
                raise changed_since(key, expected, stored)
        heads: dict[int, int] = {}
        for row in batch.appends:
            head = heads.get(row.writer, len(self._journals.get(row.writer, ())))
            if row.sequence != head + 1:
                raise out_of_order(row.writer, row.sequence, head)
            heads[row.writer] = row.sequence

    def _forget(self, key: str) -> None:
        if self._entries.get(key, _NEVER).value is not None:
            del self._live[bisect_left(self._live, key)]
        due = self._due_of.pop(key, None)
        if due is not None:
            del self._due[bisect_left(self._due, (due, key))]

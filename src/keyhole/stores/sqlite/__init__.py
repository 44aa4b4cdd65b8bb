"""A store in one SQLite file, for one machine and any number of processes on it.

    sqlite:/var/lib/keyhole/vault.db

Acknowledged is durable: write-ahead log with ``synchronous=FULL``, one sync for all commits that wait together.
Reads run on the caller's thread through a connection of their own and never wait for writers. Each process is a node;
they see each other's changes through the file. Keep it on a local disk: SQLite's locks and shared memory do not work on
network shares. Copy it only with SQLite's own means or while no process has it open.
"""

# ruff: noqa: D102 - the contract in keyhole.stores describes the methods
from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

from keyhole.core.errors import StoreUnavailable
from keyhole.stores import Batch, Entries, Entry, JournalRow, Keys, Rows
from keyhole.stores.keys import AFTER_ASCII, fold, validate
from keyhole.stores.sqlite import place, schema
from keyhole.stores.sqlite.faults import FAULTS, damaged, translate
from keyhole.stores.sqlite.known import Known
from keyhole.stores.sqlite.writer import Writer

WATCH_SECONDS = 0.5
"""How often ``watch`` looks for changes of other processes."""

_give_way: Callable[[], None] = getattr(os, "sched_yield", lambda: None)
"""Lets the thread that writes begin. On one core it would else wait until this one has nothing left to do, and the disk
with it."""

_LOOK_SECONDS = 0.001  # also for a step of the event loop that takes long

_GET_ONE = "SELECT value, revision FROM entry WHERE key = ?"
_GET_MANY = "SELECT key, value, revision FROM entry WHERE key IN ({})"
_GET_CHUNK = 64
_GENERATION = "SELECT number FROM generation WHERE id = 0"
_LIST = "SELECT key FROM entry INDEXED BY live WHERE live = 1 AND key >= ? AND key < ? ORDER BY key"
_LIST_AFTER = "SELECT key FROM entry INDEXED BY live WHERE live = 1 AND key > ? AND key < ? ORDER BY key"
_DUE = "SELECT key FROM entry WHERE due <= ? ORDER BY due, key LIMIT ?"
_SCAN = (
    "SELECT writer, sequence, time, partition, body, digest, signature FROM journal"
    " WHERE writer = ? AND sequence > ? ORDER BY sequence LIMIT ?"
)
# A seek for each writer; GROUP BY would read the whole journal.
_HEADS = """
    WITH RECURSIVE one (writer) AS (
        SELECT min(writer) FROM journal
        UNION ALL
        SELECT (SELECT min(writer) FROM journal WHERE writer > one.writer) FROM one WHERE one.writer IS NOT NULL
    )
    SELECT writer, (SELECT max(sequence) FROM journal WHERE journal.writer = one.writer)
    FROM one WHERE writer IS NOT NULL
"""
_NEVER = Entry(None, 0)
_CLOSED = -1
_here = os.getpid()


def _forked() -> None:
    global _here  # noqa: PLW0603 - the process itself; asking the kernel for it every time costs a call each
    _here = os.getpid()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_forked)


async def open_store(rest: str, *, create: bool) -> SqliteStore:
    """Open the store in the file at the path ``rest``, and bring it to the format of this version.

    Raises:
        InvalidRequest: ``rest`` is not the path of a file.
        NotFound: there is no such file and ``create`` is false.
        StoreUnavailable: the place is unsafe, the file is not ours or of a newer version, or the medium fails.
        IntegrityError: the file is damaged.
    """
    path = place.locate(rest)
    return await asyncio.to_thread(_open, path, create=create)


def _open(path: Path, *, create: bool) -> SqliteStore:
    place.prepare(path, create=create)
    with place.admitted(path) as which, contextlib.ExitStack() as undo:
        try:
            writer = place.connect(path, writer=True)
            undo.callback(writer.close)
            schema.migrate(writer)
            (mode,) = writer.execute("PRAGMA journal_mode = WAL").fetchone()
            if mode != "wal":
                raise StoreUnavailable("the store's write-ahead log cannot be used", "keep the store on a local disk")
            schema.verify(writer)
            reader = place.connect(path, writer=False)
            undo.callback(reader.close)
            reader.execute(_GENERATION).fetchone()
        except FAULTS as error:
            raise translate(error) from None
        undo.pop_all()
        return SqliteStore(path, which, reader, writer)


class SqliteStore:
    """The contract on one file; made by ``open_store``."""

    def __init__(
        self, path: Path, which: place.Identity, reader: sqlite3.Connection, writer: sqlite3.Connection
    ) -> None:
        self._path = path
        self._which = which
        self._log = place.identity(place.log_of(path))
        self._reader = reader
        self._pid = os.getpid()
        self._released = False
        self._changed = asyncio.Event()
        self._known = Known()
        self._looked = 0
        self._looked_until = 0.0
        self._writer = Writer(writer, self._check_place, self._wake)

    async def get(self, keys: Sequence[str]) -> Entries:
        try:
            if len(keys) == 1:
                return [self._get_one(keys[0])]
            self._require_usable()
            return self._get_many(keys)
        except FAULTS as error:
            raise translate(error) from None

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000, delimiter: str = "") -> Keys:
        self._require_usable()
        end = prefix + AFTER_ASCII

        def seek(start: str, inclusive: bool) -> Iterator[str]:  # noqa: FBT001 - the shape of keys.Seek
            with contextlib.closing(self._reader.execute(_LIST if inclusive else _LIST_AFTER, (start, end))) as cursor:
                for (key,) in cursor:
                    if type(key) is not str:
                        raise damaged()
                    yield key

        with self._snapshot():
            return fold(seek, prefix, after, limit, delimiter)

    async def commit(self, batch: Batch) -> None:
        await self._handed(batch)

    def submit(self, batch: Batch) -> asyncio.Future[None]:
        written = self._handed(batch)
        _give_way()
        return written

    def _handed(self, batch: Batch) -> asyncio.Future[None]:
        self._require_usable()
        validate(batch)
        return self._writer.submit(batch)

    async def scan(self, writer: int, *, after: int = 0, limit: int = 1000) -> Rows:
        self._require_usable()
        with self._translated():
            return [JournalRow(*row) for row in self._reader.execute(_SCAN, (writer, after, max(limit, 0)))]

    async def heads(self) -> dict[int, int]:
        self._require_usable()
        with self._translated():
            return dict(self._reader.execute(_HEADS))

    async def due(self, now: float, limit: int = 100) -> Keys:
        self._require_usable()
        with self._translated():
            return [key for (key,) in self._reader.execute(_DUE, (now, max(limit, 0)))]

    async def generation(self) -> int:
        return self.latest()

    def latest(self) -> int:
        self._require_usable()
        # Everything that is under way in one step of the event loop had arrived before the step began, so one look at
        # the file, made within the step, is late enough for all of it.
        now = time.monotonic()
        if now < self._looked_until:
            return self._looked
        self._looked = self._generation()
        self._looked_until = now + _LOOK_SECONDS
        asyncio.get_running_loop().call_soon(self._look_again)
        return self._looked

    def _look_again(self) -> None:
        self._looked_until = 0.0

    def watch(self) -> AsyncIterator[int]:
        self._require_usable()
        return self._watch(self._generation())

    async def now(self) -> float:
        return time.time()

    async def close(self) -> None:
        if self._pid not in {os.getpid(), _CLOSED}:
            # Inherited through a fork: those connections are the parent's to close.
            return
        self._pid = _CLOSED
        self._wake()
        await self._writer.close()
        if not self._released:
            self._released = True
            self._reader.close()
            place.release(self._which)

    def _require_usable(self) -> None:
        if self._pid != _here:
            if self._pid == _CLOSED:
                raise StoreUnavailable("the store is closed", "open it again")
            raise place.forked()

    def _get_one(self, key: str) -> Entry:
        entry = self._known.get(key, self.latest())
        if entry is None:
            entry = _entry(self._reader.execute(_GET_ONE, (key,)).fetchone())
            self._known.keep(key, entry)
        return entry

    def _get_many(self, keys: Sequence[str]) -> Entries:
        found: dict[str, Entry] = {}
        # One statement is a snapshot by itself.
        with self._snapshot() if len(keys) > _GET_CHUNK else contextlib.nullcontext():
            for start in range(0, len(keys), _GET_CHUNK):
                chunk = keys[start : start + _GET_CHUNK]
                for key, *row in self._reader.execute(_get_many(len(chunk)), chunk):
                    found[key] = _entry(row)
        return [found.get(key, _NEVER) for key in keys]

    def _generation(self) -> int:
        try:
            row = self._reader.execute(_GENERATION).fetchone()
        except FAULTS as error:
            raise translate(error) from None
        if row is None or type(row[0]) is not int:
            raise damaged()
        number: int = row[0]
        return number

    async def _watch(self, seen: int) -> AsyncIterator[int]:
        while self._pid != _CLOSED:
            changed = self._changed
            with contextlib.suppress(StoreUnavailable):
                current = self._generation()
                if current != seen:
                    seen = current
                    yield seen
                    continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), WATCH_SECONDS)

    def _wake(self) -> None:
        # A fresh event for the next change: whoever waits holds the old one, which stays set.
        self._look_again()
        self._changed.set()
        self._changed = asyncio.Event()

    def _check_place(self, *, folding: bool = False) -> None:
        """SQLite would go on writing into a file that has lost its name, and everything there would be lost.

        A log that lost its name is still folded into the file, unless another one has its name.
        """
        if place.identity(self._path) != self._which:
            raise StoreUnavailable(f"{self._path} was replaced by another file", "restart every process that uses it")
        log = place.log_of(self._path)
        if (folding and not os.path.lexists(log)) or place.named(log) == self._log:
            return
        raise StoreUnavailable(
            f"{log} was removed or replaced while it was in use", "restart every process that uses it"
        )

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except FAULTS as error:
            raise translate(error) from None

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[None]:
        with self._translated():
            self._reader.execute("BEGIN")
            try:
                yield
            finally:
                self._reader.execute("ROLLBACK")


@functools.cache
def _get_many(count: int) -> str:
    return _GET_MANY.format(", ".join("?" * count))


def _entry(row: Sequence[object] | None) -> Entry:
    if row is None:
        return _NEVER
    value, revision = row
    if not (value is None or isinstance(value, bytes)) or type(revision) is not int:
        raise damaged()
    return Entry(value, revision)

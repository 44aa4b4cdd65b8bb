"""The one thread of a store that writes: it takes every batch that waits, applies them in one transaction, syncs once.

A batch is judged under the write lock before anything of it is written, so a refusal needs no savepoint: the others
of its group go on as if it had never been there.
"""

from __future__ import annotations

import asyncio
import functools
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from keyhole.core.errors import Conflict, KeyholeError, StoreUnavailable
from keyhole.stores import Batch, JournalRow
from keyhole.stores.keys import changed_since, expectations, out_of_order
from keyhole.stores.sqlite.faults import FAULTS, primary_code, translate
from keyhole.stores.sqlite.place import BUSY_MS

GROUP_LIMIT = 512
"""Most batches in one transaction."""

SETTLE_SECONDS = 1.0
"""After this long without a write the log is folded into the file, so that overwritten values leave the disk.

A log that has rows of the journal only keeps its place there, for the next rows: a sync of what lengthens a file waits
for the file system's own journal too, and takes half as long again.
"""

_Item = tuple[Batch, "asyncio.Future[None]"]
_Outcome = KeyholeError | None


class Check(Protocol):
    """What ``Writer`` asks before it writes."""

    def __call__(self, *, folding: bool = False) -> None:
        """Raises ``StoreUnavailable``."""


_REVISIONS = "SELECT key, revision FROM entry WHERE key IN ({})"
_REVISION_CHUNK = 64
_INSERT = "INSERT INTO entry (key, revision, live, due, value) VALUES (?1, ?2, 1, ?3, ?4)"
_REPLACE = "UPDATE entry SET revision = ?2, due = ?3, value = ?4 WHERE key = ?1 AND live = 1"
_RESEAL = "UPDATE entry SET revision = ?2, value = ?3 WHERE key = ?1 AND live = 1"
_REVIVE = "UPDATE entry SET revision = ?2, live = 1, due = ?3, value = ?4 WHERE key = ?1 AND live = 0"
_BURY = "UPDATE entry SET revision = ?2, live = 0, due = NULL, value = NULL WHERE key = ?1"
_BURY_UNBORN = "INSERT INTO entry (key, revision, live, due, value) VALUES (?1, ?2, 0, NULL, NULL)"
_HEAD = "SELECT coalesce(max(sequence), 0) FROM journal WHERE writer = ?"
_APPEND = "INSERT INTO journal (writer, sequence, time, partition, body, digest, signature) VALUES {}"
_APPEND_ROW = "(?, ?, ?, ?, ?, ?, ?)"
_APPEND_CHUNK = 64
_UNSIGNED = bytearray()
_COUNT = "UPDATE generation SET number = number + 1 WHERE id = 0"


class Writer:
    """Queue, thread and connection.

    Args:
        connection: used by the thread only, and closed by it.
        check: raises ``StoreUnavailable`` when the file or its log is no longer where it was; with ``folding`` only
            where folding the log into the file would do harm.
        changed: called on the loop of a commit after entries changed.
    """

    def __init__(self, connection: sqlite3.Connection, check: Check, changed: Callable[[], None]) -> None:
        self._connection = connection
        self._check = check
        self._changed = changed
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._unsettled = False
        self._overwrote = True  # what another process left in the log is not known
        self._thread = threading.Thread(target=self._run, name="keyhole-store", daemon=True)
        self._thread.start()

    def submit(self, batch: Batch) -> asyncio.Future[None]:
        """Queue a batch; the future is done once it is durable or refused."""
        future = asyncio.get_running_loop().create_future()
        self._queue.put((batch, future))
        return future

    async def close(self) -> None:
        """Finish what was queued, fold the log into the file, and end the thread. Idempotent."""
        if self._thread.is_alive():
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        closing = False
        while not closing:
            try:
                item = self._queue.get(timeout=SETTLE_SECONDS if self._unsettled else None)
            except queue.Empty:
                self._settle()
                continue
            group: list[_Item] = []
            while item is not None:
                group.append(item)
                if len(group) >= GROUP_LIMIT or self._queue.empty():
                    break
                item = self._queue.get()
            closing = item is None
            if group:
                outcomes, changed = self._apply([batch for batch, _ in group])
                _release([future for _, future in group], outcomes, self._changed if changed else None)
        self._settle()
        self._connection.close()

    def _apply(self, batches: Sequence[Batch]) -> tuple[list[_Outcome], bool]:
        try:
            self._check()
            return self._transaction(batches)
        except StoreUnavailable as error:
            self._unsettled = True
            return [StoreUnavailable(error.reason, error.hint) for _ in batches], False
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to the callers; the thread must go on
            self._roll_back()
            if len(batches) == 1 or primary_code(error) in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
                return [translate(error) for _ in batches], False
        # One of them may be the reason, by its size for example: each gets its own transaction and its own answer.
        outcomes: list[_Outcome] = []
        any_changed = False
        for batch in batches:
            [outcome], changed = self._apply([batch])
            outcomes.append(outcome)
            any_changed = any_changed or changed
        return outcomes, any_changed

    def _transaction(self, batches: Iterable[Batch]) -> tuple[list[_Outcome], bool]:
        self._connection.execute("BEGIN IMMEDIATE")
        outcomes: list[_Outcome] = []
        heads: dict[int, int] = {}
        rows: list[JournalRow] = []
        changed = False
        for batch in batches:
            try:
                self._judge_entries(batch)
                heads = self._judge_appends(batch.appends, heads)
            except Conflict as conflict:
                outcomes.append(conflict)
                continue
            outcomes.append(None)
            rows += batch.appends
            if batch.puts or batch.deletes:
                self._write(batch)
                changed = True
        self._append(rows)
        if changed:
            self._connection.execute(_COUNT)
        self._connection.execute("COMMIT")
        self._unsettled = self._unsettled or changed or bool(rows)
        self._overwrote = self._overwrote or changed
        return outcomes, changed

    def _judge_entries(self, batch: Batch) -> None:
        expected = expectations(batch)
        for start in range(0, len(expected), _REVISION_CHUNK):
            chunk = expected[start : start + _REVISION_CHUNK]
            marks = ", ".join("?" * len(chunk))
            stored = dict(self._connection.execute(_REVISIONS.format(marks), [key for key, _ in chunk]))
            for key, revision in chunk:
                if stored.get(key, 0) != revision:
                    raise changed_since(key, revision, stored.get(key, 0))

    def _judge_appends(self, rows: Sequence[JournalRow], heads: dict[int, int]) -> dict[int, int]:
        if not rows:
            return heads
        heads, last, head = dict(heads), -1, 0
        for writer, sequence, _, _, _, _, _ in rows:
            if writer != last:
                known = heads.get(writer)
                (head,) = self._connection.execute(_HEAD, (writer,)).fetchone() if known is None else (known,)
                last = writer
            if sequence != head + 1:
                raise out_of_order(writer, sequence, head)
            heads[writer] = head = sequence
        return heads

    def _write(self, batch: Batch) -> None:
        execute = self._connection.execute
        for put in batch.puts:
            values = (put.key, put.expected + 1, put.due, put.value)
            if put.keep_due:
                execute(_RESEAL, (put.key, put.expected + 1, put.value))
            elif put.expected == 0:
                execute(_INSERT, values)
            elif execute(_REPLACE, values).rowcount == 0:
                # Apart from _REPLACE, because setting ``live`` would rewrite its index with every put.
                execute(_REVIVE, values)
        for delete in batch.deletes:
            execute(_BURY_UNBORN if delete.expected == 0 else _BURY, (delete.key, delete.expected + 1))

    def _append(self, rows: Sequence[JournalRow]) -> None:
        # Many rows a statement: each statement gives up the interpreter lock and has to win it back from the loop.
        for start in range(0, len(rows), _APPEND_CHUNK):
            chunk, values = rows[start : start + _APPEND_CHUNK], list[object]()
            for writer, sequence, time, partition, body, digest, signature in chunk:
                # The module asks for each ``bytes`` whether anybody has said how to adapt it, which takes longer than
                # all else of a row. It does not ask for a ``bytearray``.
                sign = bytearray(signature) if signature else _UNSIGNED
                values += (writer, sequence, time, partition, bytearray(body), bytearray(digest), sign)
            self._connection.execute(_appending(len(chunk)), values)

    def _roll_back(self) -> None:
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except FAULTS:
            # SQLite has rolled back by itself (https://sqlite.org/lang_transaction.html, "Response to errors").
            return

    def _settle(self) -> None:
        try:
            self._check(folding=True)
            self._connection.execute("PRAGMA busy_timeout = 100")
            try:
                mode = "TRUNCATE" if self._overwrote else "PASSIVE"
                (busy, size, done) = self._connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
            finally:
                self._connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
            self._unsettled = bool(busy) or done < size
            self._overwrote = self._overwrote and self._unsettled
        except (StoreUnavailable, *FAULTS):
            # The log keeps everything; the next write or the next open tries again.
            self._unsettled = False


@functools.cache
def _appending(count: int) -> str:
    """Appends so many rows; the columns stand in the order of ``JournalRow``."""
    return _APPEND.format(", ".join([_APPEND_ROW] * count))


def _release(
    futures: Sequence[asyncio.Future[None]], outcomes: Sequence[_Outcome], changed: Callable[[], None] | None
) -> None:
    """Answer a group with one wake-up for each loop that waits, which is nearly always one."""
    waiting: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[None], _Outcome]]] = {}
    for future, outcome in zip(futures, outcomes, strict=True):
        waiting.setdefault(future.get_loop(), []).append((future, outcome))
    for loop, answers in waiting.items():
        try:
            loop.call_soon_threadsafe(_answer, answers, changed)
        except RuntimeError:
            # The loop was closed with the commit under way: it is durable, and nobody is left to be told.
            continue


def _answer(answers: Sequence[tuple[asyncio.Future[None], _Outcome]], changed: Callable[[], None] | None) -> None:
    for future, outcome in answers:
        if future.done():
            continue
        if outcome is None:
            future.set_result(None)
        else:
            future.set_exception(outcome)
    if changed is not None:
        changed()

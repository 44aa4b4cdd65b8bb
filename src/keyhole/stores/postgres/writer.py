"""The one task of a store that writes: it takes every batch that waits, and applies them in one transaction.

1. Whoever changes or checks entries holds the lock of the row in ``generation``, so that all servers commit such
   batches one after the other; appends alone only lock the head of their journal.
2. A batch is judged under the locks and before anything is written, so a refusal leaves the others of its group alone.
3. Writes and COMMIT are sent together. When the answer is lost, the fate of the transaction is asked for by its number
   (``pg_xact_status``); what was undone is judged and done again, and what was carried out is not. A database that was
   replaced or crashed meanwhile may have given the number to another transaction, so that "committed" alone proves
   nothing: what was written must be there.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import psycopg

from keyhole.core.errors import Conflict, KeyholeError, StoreUnavailable
from keyhole.stores import Batch, JournalRow
from keyhole.stores.keys import changed_since, expectations, out_of_order
from keyhole.stores.postgres.faults import damaged, lost, means_lost, repeatable, translate, undecided
from keyhole.stores.postgres.place import Connection, Place, reconnect

GROUP_LIMIT = 512
"""Most batches in one transaction."""

GROUP_BYTES = 16 * 1024 * 1024
"""A group that has reached this size takes no further batch."""

REPEATS = 20
"""How often a group is done again after the database undid it or was lost."""

DECIDE_SECONDS = 10.0
"""How long the fate of a transaction is asked for."""

_PARTITIONS = "SELECT set_config('keyhole.partitions', %s::text[]::text, true)"
_NUMBER = "SELECT pg_current_xact_id()::text"
_LOCK = "SELECT number FROM generation WHERE id = 0 FOR UPDATE"
_LOCK_SHARED = "SELECT number FROM generation WHERE id = 0 FOR SHARE"
_REVISIONS = "SELECT key, revision FROM entry WHERE key = ANY (%s::text[])"
_HEADS = "SELECT writer, sequence FROM head WHERE writer = ANY (%s::bigint[]) ORDER BY writer FOR UPDATE"
_WRITE = """
    INSERT INTO entry (key, revision, due, value)
    SELECT * FROM unnest(%s::text[], %s::bigint[], %s::double precision[], %s::bytea[])
    ON CONFLICT (key) DO UPDATE SET
        revision = excluded.revision,
        due = CASE WHEN excluded.due = 'NaN' THEN entry.due ELSE excluded.due END,
        value = excluded.value
"""
_AS_IT_IS = float("nan")  # stands for the time that an entry is due already; no put may bring it
_APPEND = """
    INSERT INTO journal (writer, sequence, time, partition, body, digest, signature)
    SELECT * FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::text[], %s::bytea[], %s::bytea[], %s::bytea[])
"""
_BEGIN_HEADS = "INSERT INTO head (writer, sequence) SELECT * FROM unnest(%s::bigint[], %s::bigint[])"
_MOVE_HEADS = """
    UPDATE head SET sequence = new.sequence FROM unnest(%s::bigint[], %s::bigint[]) AS new (writer, sequence)
    WHERE head.writer = new.writer
"""
# A stride by chance: a database that replaces one which lost its last commits comes to no number that was seen there.
_COUNT = "UPDATE generation SET number = number + 1 + floor(random() * 2147483648)::bigint WHERE id = 0"
_STATUS = "SELECT pg_xact_status(%s::xid8)"
_ROW = (
    "SELECT writer, sequence, time, partition, body, digest, signature FROM journal WHERE writer = %s AND sequence = %s"
)
_ENTRIES = "SELECT key, revision, value FROM entry WHERE key = ANY (%s::text[])"

_Outcome = KeyholeError | None
_Item = tuple[Batch, "asyncio.Future[None]"]


@dataclass(slots=True)
class _Work:
    """What one transaction has judged and will write."""

    number: str
    revisions: dict[str, int]
    heads: dict[int, int]
    known: frozenset[int]
    outcomes: list[_Outcome] = field(default_factory=list)
    entries: dict[str, tuple[int, float | None, bytes | None]] = field(default_factory=dict)
    rows: list[JournalRow] = field(default_factory=list)

    def take(self, batch: Batch) -> None:
        """Judge a batch as if all before it in the group were done."""
        try:
            for key, expected in expectations(batch):
                if self.revisions.get(key, 0) != expected:
                    raise changed_since(key, expected, self.revisions.get(key, 0))
            heads: dict[int, int] = {}
            for row in batch.appends:
                head = heads.get(row.writer, self.heads.get(row.writer, 0))
                if row.sequence != head + 1:
                    raise out_of_order(row.writer, row.sequence, head)
                heads[row.writer] = row.sequence
        except Conflict as conflict:
            self.outcomes.append(conflict)
            return
        self.outcomes.append(None)
        for put in batch.puts:
            due = put.due
            if put.keep_due:
                due = self.entries[put.key][1] if put.key in self.entries else _AS_IT_IS
            self.entries[put.key] = (put.expected + 1, due, bytes(put.value))
        for delete in batch.deletes:
            self.entries[delete.key] = (delete.expected + 1, None, None)
        self.revisions.update((key, entry[0]) for key, entry in self.entries.items())
        self.heads.update(heads)
        self.rows += batch.appends


class Writer:
    """Queue, task and connection.

    Args:
        place: where to connect again.
        connection: used by the task only, and closed by it.
        changed: called after entries changed.
    """

    def __init__(self, place: Place, connection: Connection, changed: Callable[[], None]) -> None:
        self._place = place
        self._connection: Connection | None = connection
        self._changed = changed
        self._waiting: list[_Item] = []
        self._wake = asyncio.Event()
        self._closing = False
        self._task = asyncio.get_running_loop().create_task(self._run(), name="keyhole-store")

    def submit(self, batch: Batch) -> asyncio.Future[None]:
        """Queue a batch; the future is done once it is durable or refused."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append((batch, future))
        self._wake.set()
        return future

    async def close(self) -> None:
        """Finish what was queued, and close the connection. Idempotent."""
        self._closing = True
        self._wake.set()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        while self._waiting or not self._closing:
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
                continue
            group = self._next_group()
            outcomes = await self._apply([batch for batch, _ in group])
            for (_, future), outcome in zip(group, outcomes, strict=True):
                if future.done():
                    continue
                if outcome is None:
                    future.set_result(None)
                else:
                    future.set_exception(outcome)
        await self._drop()

    def _next_group(self) -> list[_Item]:
        size, count = 0, 0
        for batch, _ in self._waiting[:GROUP_LIMIT]:
            count += 1
            size += sum(len(put.value) for put in batch.puts) + sum(len(row.body) for row in batch.appends)
            if size >= GROUP_BYTES:
                break
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        return group

    async def _apply(self, batches: Sequence[Batch]) -> list[_Outcome]:
        try:
            return await self._repeat(batches)
        except StoreUnavailable as error:
            return [StoreUnavailable(error.reason, error.hint) for _ in batches]
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to the callers; the task must go on
            # The state of the connection is not known, and its transaction must not stay open.
            await self._drop()
            if len(batches) == 1:
                return [translate(error)]
        # One of them may be the reason, by its size for example: each gets its own transaction and its own answer.
        return [(await self._apply([batch]))[0] for batch in batches]

    async def _repeat(self, batches: Sequence[Batch]) -> list[_Outcome]:
        for turn in range(REPEATS):
            if self._connection is None or self._connection.closed:
                self._connection = await reconnect(self._place)
            connection, work = self._connection, None
            try:
                work = await self._judge(connection, batches)
                await self._write(connection, work)
            except (psycopg.Error, OSError) as error:
                was_lost = means_lost(error, closed=connection.closed)
                await self._drop()
                if not was_lost and not repeatable(error):
                    raise
                if was_lost and work is not None and await self._was_committed(work):
                    return self._finished(work)
            else:
                return self._finished(work)
            await asyncio.sleep(random.uniform(0, 0.002 * min(turn, 10)))  # noqa: S311 - a pause, no secret
        raise lost()

    def _finished(self, work: _Work) -> list[_Outcome]:
        if work.entries:
            self._changed()
        return work.outcomes

    async def _judge(self, connection: Connection, batches: Sequence[Batch]) -> _Work:
        keys = sorted({key for batch in batches for key, _ in expectations(batch)})
        partitions = {key.split("/", 1)[0] for key in keys}
        partitions.update(row.partition for batch in batches for row in batch.appends)
        writers = sorted({row.writer for batch in batches for row in batch.appends})
        changes = any(batch.puts or batch.deletes for batch in batches)
        async with connection.pipeline():
            await connection.execute("BEGIN")
            await connection.execute(_PARTITIONS, (sorted(partitions),))
            number = await connection.execute(_NUMBER)
            if keys:
                await connection.execute(_LOCK if changes else _LOCK_SHARED)
            # Each statement has a snapshot of its own, so these see whatever was committed before the locks were held.
            revisions = await connection.execute(_REVISIONS, (keys,))
            heads = await connection.execute(_HEADS, (writers,))
            row = await number.fetchone()
            known_revisions, known_heads = await revisions.fetchall(), await heads.fetchall()
        if row is None:
            raise damaged()
        ends: dict[int, int] = dict(known_heads)
        work = _Work(str(row[0]), dict(known_revisions), ends, frozenset(ends))
        for batch in batches:
            work.take(batch)
        return work

    async def _write(self, connection: Connection, work: _Work) -> None:
        ends = {row.writer: row.sequence for row in work.rows}
        begun = sorted(ends.keys() - work.known)
        moved = sorted(ends.keys() & work.known)
        async with connection.pipeline():
            if work.entries:
                columns = [list(column) for column in zip(*work.entries.values(), strict=True)]
                await connection.execute(_WRITE, (list(work.entries), *columns))
                await connection.execute(_COUNT)
            if work.rows:
                await connection.execute(_APPEND, [list(column) for column in zip(*work.rows, strict=True)])
            for statement, writers in ((_BEGIN_HEADS, begun), (_MOVE_HEADS, moved)):
                if writers:
                    await connection.execute(statement, (writers, [ends[writer] for writer in writers]))
            await connection.execute("COMMIT")

    async def _was_committed(self, work: _Work) -> bool:
        """The fate of a transaction whose answer was lost. Its session may still be busy with it."""
        loop = asyncio.get_running_loop()
        end = loop.time() + DECIDE_SECONDS
        while loop.time() < end:
            try:
                if self._connection is None or self._connection.closed:
                    self._connection = await reconnect(self._place)
                row = await (await self._connection.execute(_STATUS, (work.number,))).fetchone()
                there = await _is_there(self._connection, work) if row in {("committed",), (None,)} else False
            except psycopg.errors.InvalidParameterValue:
                return False  # this server has never given the number to a transaction
            except (psycopg.Error, OSError, StoreUnavailable):
                await self._drop()
                continue
            if there is None:
                break
            if row != ("in progress",):
                return there
            await asyncio.sleep(0.02)
        raise undecided()

    async def _drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(psycopg.Error, OSError):
                await self._connection.close()
            self._connection = None


async def _is_there(connection: Connection, work: _Work) -> bool | None:
    """Whether the database holds what a transaction wrote, of which any part proves the whole.

    ``None`` when others have written over it since, so that nobody can tell.
    """
    partitions = {key.split("/", 1)[0] for key in work.entries} | {row.partition for row in work.rows}
    async with connection.transaction():
        await connection.execute(_PARTITIONS, (sorted(partitions),))
        if work.rows:
            last = work.rows[-1]
            found = await connection.execute(_ROW, (last.writer, last.sequence))
            return await found.fetchone() == tuple(last)
        rows = await (await connection.execute(_ENTRIES, (list(work.entries),))).fetchall()
    stored = {key: (revision, value) for key, revision, value in rows}
    wanted = {key: (revision, value) for key, (revision, _, value) in work.entries.items()}
    if any(stored.get(key) == written for key, written in wanted.items()):
        return True
    written_over = all(stored.get(key, (0, None))[0] >= revision for key, (revision, _) in wanted.items())
    return None if written_over and wanted else False

"""A store in a PostgreSQL database (13 or newer), for any number of servers on any number of machines.

    postgres://keyhole@db.example/vault        the password in the file that PGPASSFILE names

Acknowledged is durable, as far as the database's own ``synchronous_commit`` and replication are. No answer comes from
memory: ``generation`` asks the database, one question for all requests that wait at that moment, so that a change by
one server holds on every other from its next request on.
"""

# ruff: noqa: D102 - the contract in keyhole.stores describes the methods
from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, LiteralString

from keyhole.core.errors import InvalidRequest, KeyholeError, StoreUnavailable, own
from keyhole.stores import Batch, Entries, Entry, JournalRow, Keys, Rows
from keyhole.stores.keys import AFTER_ASCII, validate

try:
    import psycopg
except ImportError:
    raise InvalidRequest(
        "this installation has no driver for PostgreSQL", "install it with the extra: keyhole[postgres]"
    ) from None

from keyhole.stores.postgres import schema
from keyhole.stores.postgres.faults import damaged, lost, means_lost, translate
from keyhole.stores.postgres.place import Connection, Place, connect, locate, reconnect
from keyhole.stores.postgres.writer import Writer

WATCH_SECONDS = 0.5
"""How often ``watch`` looks for changes of other servers."""

READERS = 4
"""Most connections for reads; one more is for writes."""

_CLOSED = -1
_SCOPE = "SELECT set_config('keyhole.partitions', %s::text[]::text, false), set_config('keyhole.every', %s, false)"
_GET = "SELECT key, value, revision FROM entry WHERE key = ANY (%s::text[])"
_GENERATION = "SELECT number FROM generation WHERE id = 0"
_LIST = "SELECT key FROM entry WHERE value IS NOT NULL AND key >= %s AND key < %s ORDER BY key LIMIT %s"
_LIST_AFTER = "SELECT key FROM entry WHERE value IS NOT NULL AND key > %s AND key < %s ORDER BY key LIMIT %s"
_DUE = "SELECT key FROM entry WHERE due <= %s ORDER BY due, key LIMIT %s"
_SCAN = (
    "SELECT writer, sequence, time, partition, body, digest, signature FROM journal"
    " WHERE writer = %s AND sequence > %s ORDER BY sequence LIMIT %s"
)
_HEADS = "SELECT writer, sequence FROM head ORDER BY writer"
_NOW = "SELECT extract(epoch FROM clock_timestamp())::double precision"
_NEVER = Entry(None, 0)
_PAGE = 256

# ``list`` is hidden inside the class body.
_Fetched = list[tuple[Any, ...]]
_Scope = tuple[str, ...] | None
"""The partitions that a statement may see; ``None`` is all."""


async def open_store(rest: str, *, create: bool) -> PostgresStore:
    """Open the store in the database that ``rest`` names, and bring it to the format of this version.

    Raises:
        InvalidRequest: the location is not one, or holds a password.
        NotFound: there is no store in the database and ``create`` is false.
        StoreUnavailable: the database cannot be reached or used, or a newer version wrote the store.
        IntegrityError: the tables are not as our steps leave them.
    """
    place = locate(rest)
    connection = await connect(place)
    try:
        await schema.prepare(connection, place.schema, create=create)
        row = await (await connection.execute(_GENERATION)).fetchone()
    except Exception as error:  # noqa: BLE001 - translated
        await connection.close()
        raise translate(error) from None
    return PostgresStore(place, connection, _number(row))


class PostgresStore:
    """The contract on one database; made by ``open_store`` and used on the same event loop."""

    shared = True

    def __init__(self, place: Place, connection: Connection, generation: int) -> None:
        self._place = place
        self._pid = os.getpid()
        self._seen = generation
        self._changed = asyncio.Event()
        self._asking: asyncio.Task[int] | None = None
        self._next: asyncio.Task[int] | None = None
        self._idle: list[tuple[Connection, _Scope]] = []
        self._slots = asyncio.Semaphore(READERS)
        self._writer = Writer(place, connection, self._wake)

    async def get(self, keys: Sequence[str]) -> Entries:
        self._require_usable()
        if not keys:
            return []
        rows = await self._read(_scope(keys), _GET, (list(keys),))
        found = {row[0]: _entry(row[1], row[2]) for row in rows}
        return [found.get(key, _NEVER) for key in keys]

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000, delimiter: str = "") -> Keys:
        self._require_usable()
        scope = _scope([prefix]) if "/" in prefix else None
        names: list[str] = []
        start, inclusive = (prefix, True) if after < prefix else (after, False)
        if delimiter and after.startswith(prefix) and (cut := after.find(delimiter, len(prefix))) >= 0:
            start = after[: cut + len(delimiter)] + AFTER_ASCII
        while len(names) < limit:
            count = _PAGE if delimiter else limit - len(names)
            rows = await self._read(scope, _LIST if inclusive else _LIST_AFTER, (start, prefix + AFTER_ASCII, count))
            inclusive = False
            for (key,) in rows:
                if not isinstance(key, str):
                    raise damaged()
                if key < start:
                    continue  # below a name that was folded on this page
                start = key
                cut = key.find(delimiter, len(prefix)) if delimiter else -1
                names.append(key if cut < 0 else key[: cut + len(delimiter)])
                if cut >= 0:
                    start = names[-1] + AFTER_ASCII
                if len(names) >= limit:
                    return names
            if len(rows) < count:
                break
        return names

    async def commit(self, batch: Batch) -> None:
        self._require_usable()
        validate(batch)
        await self._writer.submit(batch)

    async def scan(self, writer: int, *, after: int = 0, limit: int = 1000) -> Rows:
        self._require_usable()
        rows = await self._read(None, _SCAN, (writer, after, max(limit, 0)))
        return [JournalRow(*row) for row in rows]

    async def heads(self) -> dict[int, int]:
        self._require_usable()
        return dict(await self._read((), _HEADS, ()))

    async def due(self, now: float, limit: int = 100) -> Keys:
        self._require_usable()
        return [str(key) for (key,) in await self._read(None, _DUE, (now, max(limit, 0)))]

    async def generation(self) -> int:
        self._require_usable()
        # A question that is on its way may have been answered before this request came; the next one was not sent yet.
        if self._next is None:
            self._next = asyncio.get_running_loop().create_task(self._ask(self._asking))
        try:
            return await asyncio.shield(self._next)
        except KeyholeError as error:
            raise own(error) from error.__cause__  # many may wait for the same question

    def latest(self) -> int | None:
        return None

    def watch(self) -> AsyncIterator[int]:
        self._require_usable()
        return self._watch(self._seen)

    async def now(self) -> float:
        self._require_usable()
        [(now,)] = await self._read((), _NOW, ())
        if not isinstance(now, float):
            raise damaged()
        return now

    async def close(self) -> None:
        if self._pid not in {os.getpid(), _CLOSED}:
            # Inherited through a fork: those connections are the parent's to close.
            return
        self._pid = _CLOSED
        self._wake()
        await self._writer.close()
        while self._idle:
            connection, _ = self._idle.pop()
            await _close(connection)

    def _require_usable(self) -> None:
        if self._pid != os.getpid():
            if self._pid == _CLOSED:
                raise StoreUnavailable("the store is closed", "open it again")
            raise StoreUnavailable("the store was opened before the process forked", "open it in the new process")

    async def _ask(self, before: asyncio.Task[int] | None) -> int:
        if before is not None:
            await asyncio.wait([before])
        self._asking, self._next = self._next, None
        rows = await self._read((), _GENERATION, ())
        self._seen = _number(rows[0] if rows else None)
        return self._seen

    async def _read(self, scope: _Scope, statement: LiteralString, parameters: Sequence[object]) -> _Fetched:
        """The rows of one statement. A connection that was lost meanwhile is replaced, once by itself."""
        async with self._slots:
            for _ in range(READERS + 1):
                connection, current = self._idle.pop() if self._idle else (await reconnect(self._place), ())
                try:
                    if scope not in {current, ()}:
                        await connection.execute(_SCOPE, (list(scope or ()), "on" if scope is None else "off"))
                        current = scope
                    async with connection.cursor(binary=True) as cursor:
                        rows = await (await cursor.execute(statement, parameters)).fetchall()
                except Exception as error:  # noqa: BLE001 - translated below
                    was_lost = means_lost(error, closed=connection.closed)
                    await _close(connection)
                    if not was_lost:
                        raise translate(error) from None
                except BaseException:
                    # Cancelled in the middle of a conversation: this connection cannot be used again.
                    await _close(connection)
                    raise
                else:
                    if self._pid == _CLOSED:
                        await _close(connection)
                    else:
                        self._idle.append((connection, current))
                    return rows
            raise lost()

    async def _watch(self, seen: int) -> AsyncIterator[int]:
        while self._pid != _CLOSED:
            changed = self._changed
            with contextlib.suppress(StoreUnavailable):
                current = await self.generation()
                if current != seen:
                    seen = current
                    yield seen
                    continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(changed.wait(), WATCH_SECONDS)

    def _wake(self) -> None:
        # A fresh event for the next change: whoever waits holds the old one, which stays set.
        self._changed.set()
        self._changed = asyncio.Event()


async def _close(connection: Connection) -> None:
    with contextlib.suppress(psycopg.Error, OSError):
        await connection.close()


def _scope(keys: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({key.split("/", 1)[0] for key in keys}))


def _number(row: Sequence[object] | None) -> int:
    if row is None or not isinstance(row[0], int):
        raise damaged()
    return row[0]


def _entry(value: object, revision: object) -> Entry:
    if not (value is None or isinstance(value, bytes)) or not isinstance(revision, int):
        raise damaged()
    return Entry(value, revision)

"""The journal: typed records, sealed per org, chained per writer, signed per commit, durable before any release.

A writer is a slot. A process takes the lowest free one, continues its chain, and proves at each commit that it still
holds it: the entry of the slot stands as a check in the same batch as the rows, so that a writer which lost its slot
cannot write. The slot's entry also names the head of its chain, which only a holder of the keys can write.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from keyhole.core.errors import AuditUnavailable, Conflict, IntegrityError, InternalError, KeyholeError
from keyhole.core.record import GENESIS, Intent, Record, link
from keyhole.crypto.keyring import Keyring, Where
from keyhole.crypto.signing import SigningKey
from keyhole.stores import Batch, Check, JournalRow, Put, Store
from keyhole.stores.keys import merged
from keyhole.vault.clock import Clock
from keyhole.vault.keys import SYSTEM, new_id

SLOT_LEASE = 30.0
_RENEW_AFTER = 10.0
_OUTCOME_DELAY = 0.05
_BACKLOG = 100_000
_QUICK = 0.002  # seconds of a commit
_PLACE, _RECORD = struct.Struct(">7sIQ"), b"record\0"
_SIGNATURE = b"keyhole journal signature 1\0"
_new = tuple.__new__  # what a class of tuples does itself, without its function in Python around it


class Slot:
    """A writer's place: number, entry revision, and the head of the chain it continues."""

    __slots__ = ("digest", "expires", "number", "revision", "sequence")

    def __init__(self, number: int, revision: int, expires: float, sequence: int, digest: bytes) -> None:
        self.number = number
        self.revision = revision
        self.expires = expires
        self.sequence = sequence
        self.digest = digest


class _Joined:
    """Changes that go along with the next records, and who waits for them.

    In one commit all that is expected is judged before anything is changed. So a change joins only if no other one
    changes what it expects, or expects what it changes: else both could hold, which one after the other do not.
    """

    __slots__ = ("_changed", "_checked", "_late", "answers", "changes")

    def __init__(self) -> None:
        self.changes: list[Batch] = []
        self.answers: list[asyncio.Future[bool]] = []
        self._late: set[asyncio.Future[bool]] = set()
        self._changed: set[str] = set()
        self._checked: set[str] = set()

    def add(self, change: Batch, answer: asyncio.Future[bool]) -> None:
        """Take a change, if it can go with the others."""
        self.answers.append(answer)
        changed = {put.key for put in change.puts} | {delete.key for delete in change.deletes}
        checked = {each.key for each in change.checks}
        if changed & self._changed or changed & self._checked or checked & self._changed:
            self._late.add(answer)
            return
        self.changes.append(change)
        self._changed |= changed
        self._checked |= checked

    def settle(self, both: bool) -> None:  # noqa: FBT001 - a result
        """The records are durable; so are the changes, or are not."""
        for answer in self.answers:
            if not answer.done():
                answer.set_result(both and answer not in self._late)


class _Pending(NamedTuple):
    org_id: str
    time: int
    body: bytes
    keep: bool = False


class _Begun(NamedTuple):
    pending: list[_Pending]
    waiters: list[asyncio.Future[None]]
    head: Slot
    written: asyncio.Future[None]


class Intended:
    """An intent that goes to the disk in one commit with the change that it is of, where there is one.

    Nobody may change or release anything for it before ``durable`` or ``along`` has returned.

    Args:
        journal: where it goes.
        record: what is intended.
        org_id: of the org.
    """

    def __init__(self, journal: Journal, record: Intent, org_id: str) -> None:
        self._journal = journal
        self._record = record
        self._org = org_id
        self._queued = False
        self._durable = False

    def queue(self) -> None:
        """Have it written, also if nothing comes of it."""
        if not self._queued:
            self._queued = True
            # Nobody waits for it, so nobody hears if it fails; the outcome behind it stays queued then.
            written = self._journal.intend(self._record, self._org)
            written.add_done_callback(lambda it: it.cancelled() or it.exception())

    async def durable(self) -> None:
        """Return when it is durable. Raises ``AuditUnavailable``."""
        if not self._durable:
            self._queued = True
            await self._journal.intend(self._record, self._org)
            self._durable = True

    async def along(self, change: Batch) -> bool:
        """Make it durable together with a change. Raises ``AuditUnavailable``, and then neither is.

        Whether both are. If not, the intent alone is: what the change expects is not so, or it was durable already.
        """
        if self._durable:
            return False
        self._queued = True
        both = await self._journal.intend_with(self._record, self._org, change)
        self._durable = True
        return both


class Journal:
    """Writes records. One per process and vault.

    Attributes:
        ending: nobody should wait for further records: it is being closed, or its process is about to end.

    Args:
        store: where the rows go.
        signing: signs the last digest of each commit.
        ring: gives the keyring of an org.
        clock: gives the time of the records.
    """

    def __init__(self, store: Store, signing: SigningKey, ring: Callable[[str], Keyring], clock: Clock) -> None:
        self._store = store
        self._signing = signing
        self._ring = ring
        self._clock = clock
        self.ending = False
        self._holder = new_id()
        self._slot: Slot | None = None
        self._pending: list[_Pending] = []
        self._waiters: list[asyncio.Future[None]] = []
        self._joined = _Joined()
        self._alone = False
        self._took = 0.0  # seconds of the last commit
        self._submit: Callable[[Batch], asyncio.Future[None]] | None = getattr(store, "submit", None)
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def intend(self, record: Record | Intent, org_id: str) -> asyncio.Future[None]:
        """Queue a record; the future is done when it is durable, or fails with ``AuditUnavailable``."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._queue(org_id, record.encode())
        self._waiters.append(waiter)
        if self._task is None:
            self._task = loop.create_task(self._flush(self._begin()))
        return waiter

    def intend_with(self, record: Record | Intent, org_id: str, change: Batch) -> asyncio.Future[bool]:
        """As ``intend``, with a change that shares its commit: both are durable, or (false) the record alone is."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[bool] = loop.create_future()
        self._queue(org_id, record.encode())
        self._joined.add(change, answer)
        if self._task is None:
            self._task = loop.create_task(self._flush())
        return answer

    def outcome(self, body: bytes, org_id: str) -> None:
        """Queue an encoded record that nobody waits for; it is durable within 100 ms, or with the next intent."""
        if len(self._pending) < _BACKLOG:
            self._queue(org_id, body, keep=True)
        if self._task is None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_OUTCOME_DELAY, self._start)

    async def drain(self) -> None:
        """Wait until everything queued is durable."""
        self._start()
        while self._task is not None:
            await asyncio.shield(self._task)

    async def close(self) -> None:
        """Write what is queued and give the slot back."""
        self.ending = True
        with contextlib.suppress(KeyholeError):
            await self.drain()
            if self._slot is not None:
                await self._store.commit(Batch(puts=[self._slot_put(self._slot, expires=0.0)]))
        self._slot = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _queue(self, org_id: str, body: bytes, *, keep: bool = False) -> None:
        self._pending.append(_new(_Pending, (org_id, int(self._clock.now() * 1e9), body, keep)))

    def _start(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is None and self._pending:
            self._task = asyncio.get_running_loop().create_task(self._flush())

    def _begin(self) -> _Begun | None:
        """Hand what is queued to the store at once, where the last commit was for one request alone.

        The sync runs then while the request goes on. Where many come together, those of a step of the loop share one.
        """
        slot = self._slot
        if not self._alone or slot is None or self._joined.changes or self._submit is None:
            return None
        if self._clock.now() > slot.expires - SLOT_LEASE + _RENEW_AFTER:
            return None
        try:
            rows = self._rows(slot, self._pending)
            written = self._submit(Batch(checks=[Check(_slot_key(slot.number), slot.revision)], appends=rows))
        except Exception:  # noqa: BLE001 - whoever waits is told when the same is tried again
            return None
        pending, self._pending = self._pending, []
        waiters, self._waiters = self._waiters, []
        head = Slot(slot.number, slot.revision, slot.expires, rows[-1].sequence, rows[-1].digest)
        return _Begun(pending, waiters, head, written)

    async def _end(self, begun: _Begun) -> bool:
        """Wait for what was handed in. Whether to go on with what is queued."""
        try:
            await begun.written
        except Conflict:  # the slot was taken over: what was handed in is queued again, and finds that out
            self._pending, self._waiters = [*begun.pending, *self._pending], [*begun.waiters, *self._waiters]
            return True
        except KeyholeError as error:
            self._failed(begun.pending, begun.waiters, error)
            return False
        except Exception:
            self._failed(begun.pending, begun.waiters, InternalError("the journal failed"))
            raise
        self._slot = begun.head
        for waiter in begun.waiters:
            if not waiter.done():
                waiter.set_result(None)
        return True

    async def _flush(self, begun: _Begun | None = None) -> None:
        """Commit what is queued, batch after batch; requests that arrive meanwhile form the next batch."""
        others = begun is not None or not self._alone
        try:
            if begun is not None and not await self._end(begun):
                return
            while self._pending:
                # Where several ask, those whose commit has just ended ask again in the next step of the loop. They
                # share this commit if it waits for that: else each half of them waits for the other, by turns. While
                # commits take long, by turns is better: one half is worked at while the other waits for the disk.
                if others and self._took < _QUICK:
                    await asyncio.sleep(0)
                others = True
                pending, self._pending = self._pending, []
                waiters, self._waiters = self._waiters, []
                joined, self._joined = self._joined, _Joined()
                if waiters:
                    self._alone = len(waiters) == 1
                begun_at = self._clock.now()
                try:
                    both = await self._commit(pending, joined.changes)
                except KeyholeError as error:
                    self._failed(pending, [*waiters, *joined.answers], error)
                    return
                except Exception:  # whoever waits must not wait for ever, whatever went wrong
                    self._failed(pending, [*waiters, *joined.answers], InternalError("the journal failed"))
                    raise
                for waiter in waiters:
                    if not waiter.done():
                        waiter.set_result(None)
                joined.settle(both)
                self._took = self._clock.now() - begun_at
        finally:
            self._task = None

    def _failed(self, pending: list[_Pending], waiters: Sequence[asyncio.Future[Any]], error: KeyholeError) -> None:
        """Refuse whoever waits; keep the outcomes, which have happened, for the next attempt."""
        for waiter in (*waiters, *self._waiters, *self._joined.answers):
            if not waiter.done():
                # Each has one of its own: the door writes into it for which request it is.
                refusal = AuditUnavailable(f"the audit record could not be written ({error.reason})", error.hint)
                waiter.set_exception(refusal)
        self._waiters, self._joined = [], _Joined()
        self._pending = [item for item in (*pending, *self._pending) if item.keep]
        if self._pending and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(1.0, self._start)

    async def _commit(self, pending: list[_Pending], changes: Sequence[Batch]) -> bool:
        """Write what is queued, with the changes that go with it; whether those were made too."""
        together = merged(changes)
        for _ in range(4):
            slot = self._slot or await self._take_slot()
            rows = self._rows(slot, pending)
            renewed = self._clock.now() > slot.expires - SLOT_LEASE + _RENEW_AFTER
            head = Slot(slot.number, slot.revision, slot.expires, rows[-1].sequence, rows[-1].digest)
            try:
                puts, checks = [*together.puts], [*together.checks]
                if renewed:
                    head.expires = self._clock.now() + SLOT_LEASE
                    puts.append(self._slot_put(head, expires=head.expires))
                else:
                    checks.append(Check(_slot_key(slot.number), slot.revision))
                await self._store.commit(Batch(puts, together.deletes, checks, rows))
            except Conflict:
                if changes:
                    # One of them, or the slot: the records go first, and who has a change learns by it what is wrong.
                    changes, together = (), Batch()
                else:
                    self._slot = None  # it was taken over while this process slept; go on in another chain
                continue
            head.revision += renewed
            self._slot = head
            return bool(changes)
        raise AuditUnavailable("no journal slot could be held", "are very many processes using this vault?")

    def _rows(self, slot: Slot, pending: list[_Pending]) -> list[JournalRow]:
        number, digest, sequence, rows = slot.number, slot.digest, slot.sequence, []
        for (org_id, time, _, _), body in zip(pending, self._sealed(number, sequence + 1, pending), strict=True):
            sequence += 1
            digest = link(digest, number, sequence, time, org_id, body)
            rows.append(_new(JournalRow, (number, sequence, time, org_id, body, digest, b"")))
        rows[-1] = rows[-1]._replace(signature=self._signing.sign(_SIGNATURE + digest))
        return rows

    def _sealed(self, number: int, first: int, pending: list[_Pending]) -> list[bytes]:
        """The bodies, each sealed for its place, with one call for each org."""
        by_org: dict[str, list[int]] = {}
        for index, item in enumerate(pending):
            by_org.setdefault(item.org_id, []).append(index)
        sealed = [b""] * len(pending)
        for org_id, indices in by_org.items():
            org = org_id.encode()
            records = [(pending[index][2], _PLACE.pack(_RECORD, number, first + index) + org) for index in indices]
            for index, body in zip(indices, self._ring(org_id).seal_records(records), strict=True):
                sealed[index] = body
        return sealed

    async def _take_slot(self) -> Slot:
        """Lease the lowest free slot and find the head of its chain."""
        number = 0
        while True:
            [entry] = await self._store.get([_slot_key(number)])
            if entry.value is not None and not await self._is_free(number, entry.value, entry.revision):
                number += 1
                continue
            slot = Slot(number, entry.revision, self._clock.now() + SLOT_LEASE, 0, GENESIS)
            try:
                slot.sequence, slot.digest = await self._head(number)
                await self._store.commit(Batch(puts=[self._slot_put(slot, expires=slot.expires)]))
            except Conflict:
                continue
            slot.revision += 1
            # Read again now that the lease is ours: nobody else can append to this chain any more.
            slot.sequence, slot.digest = await self._head(number)
            self._slot = slot
            return slot

    async def _is_free(self, number: int, value: bytes, revision: int) -> bool:
        """Did the lease end, and is the chain as the last holder left it? One that was cut is left for ``verify``."""
        try:
            known = open_slot(self._ring(SYSTEM), number, value, revision)
        except IntegrityError:
            return False
        if known["expires"] >= self._clock.now():
            return False
        if not known["head"]:
            return True
        rows = await self._store.scan(number, after=known["head"] - 1, limit=1)
        return bool(rows) and rows[0].sequence == known["head"] and rows[0].digest.hex() == known["digest"]

    async def _head(self, number: int) -> tuple[int, bytes]:
        last = (await self._store.heads()).get(number, 0)
        if not last:
            return 0, GENESIS
        rows = await self._store.scan(number, after=last - 1, limit=1)
        if not rows:
            raise IntegrityError(f"the journal of writer {number} has no row {last}", "run keyhole audit verify")
        return last, rows[0].digest

    def _slot_put(self, slot: Slot, *, expires: float) -> Put:
        key = _slot_key(slot.number)
        data = {"holder": self._holder, "expires": expires, "head": slot.sequence, "digest": slot.digest.hex()}
        data["time"] = self._clock.now()
        where = Where(SYSTEM, "journal", key, slot.revision + 1)
        return Put(key, self._ring(SYSTEM).seal(json.dumps(data).encode(), where), slot.revision)


def open_slot(ring: Keyring, number: int, value: bytes, revision: int) -> dict[str, Any]:
    """What the entry of a slot says: holder, expires, head, digest, time."""
    where = Where(SYSTEM, "journal", _slot_key(number), revision)
    data: dict[str, Any] = json.loads(ring.open(value, where))
    return data


def open_row(ring: Keyring, row: JournalRow) -> Record:
    """The record of a row. Raises ``IntegrityError`` when the body is not what was sealed for this place."""
    return Record.decode(ring.open_record(row.body, _where(row.writer, row.sequence, row.partition)))


def signed(digest: bytes) -> bytes:
    """The bytes that a journal signature covers."""
    return _SIGNATURE + digest


def _slot_key(number: int) -> str:
    return f"sys/journal/{number}"


def _where(writer: int, sequence: int, org_id: str) -> bytes:
    return _PLACE.pack(_RECORD, writer, sequence) + org_id.encode()


async def high_water(store: Store, ring: Callable[[str], Keyring]) -> float:
    """The latest time that any writer of the journal has noted."""
    latest = 0.0
    for number in (await store.heads()) or {}:
        [entry] = await store.get([f"sys/journal/{number}"])
        if entry.value is None:
            continue
        with contextlib.suppress(IntegrityError):  # ``verify`` names a slot that was changed
            noted = open_slot(ring(SYSTEM), number, entry.value, entry.revision)
            latest = max(latest, float(noted.get("time", 0.0)))
    return latest

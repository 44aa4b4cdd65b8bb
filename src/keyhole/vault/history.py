"""Reading the journal back: queries, verification, checkpoints.

A hash chain alone cannot show that its tail was cut off. The slot of each writer names a recent head, sealed under a
key of the vault, which catches a careless cut; against somebody with the keys only a checkpoint that is kept elsewhere
helps, and ``verify`` says which of the two it had.
"""

from __future__ import annotations

import asyncio
import base64
import heapq
import json
import re
import struct
from collections.abc import AsyncIterator, Mapping
from typing import Any, NamedTuple

from keyhole.core.errors import IntegrityError, InvalidRequest
from keyhole.core.fields import parse_switch
from keyhole.core.numbers import parse_count
from keyhole.core.record import GENESIS, Phase, Record, link
from keyhole.core.request import Operation
from keyhole.core.times import DAY, format_time, parse_moment
from keyhole.crypto.signing import verify
from keyhole.stores import JournalRow, Store
from keyhole.vault.audit import open_row, open_slot, signed
from keyhole.vault.keys import SYSTEM, Keys

_PAGE = 200
_SLOTS = "sys/journal/"
_WRITER = re.compile(r"0|[1-9][0-9]{0,9}")
_FOLLOWED = 1000  # records of one answer to who follows
_WATCHING = ("sys/audit-log", "sys/capture/")
_SEEN = frozenset({"read", "list"})
_CHECKPOINT = b"keyhole checkpoint 1\0"
BEGINNING = "beginning"
"""Stands for the cursor before all records."""
CONTEXT = ("workflow", "run", "step", "tool", "on_behalf_of", "trace", "span")
"""Fields of a record that say for what work something was asked."""
_EXACT = ("agent", "accessor", "service", "result", "id", "operation", *CONTEXT)


class Filter(NamedTuple):
    """What a query is for. Empty fields match everything.

    Attributes:
        exact: record field to the text it must have.
        secret: name of a secret that was read, written or lent.
        after, before: seconds since the epoch, 0 for no bound.
        limit: how many of the latest matches are given.
        whole: does who follows get the records of who reads the journal too?
        own: for who asked for it. What a service lends to others is no business of one who was refused its use.
    """

    exact: Mapping[str, str]
    secret: str = ""
    after: float = 0.0
    before: float = 0.0
    limit: int = 100
    whole: bool = False
    own: bool = False

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Filter:
        """Read the parameters of ``sys/audit-log``. Raises ``InvalidRequest`` for unknown or bad ones."""
        unknown = data.keys() - {*_EXACT, "secret", "after", "before", "limit", "list", "cursor", "wait", "whole"}
        if unknown:
            raise InvalidRequest(f"unknown parameter {min(unknown)[:40]!r}")
        usual = _FOLLOWED if data.get("cursor") else 100
        limit = parse_count(data.get("limit") or usual, "limit", least=1, most=100_000)
        exact = {name: str(data[name]) for name in _EXACT if data.get(name)}
        if agent := exact.pop("agent", ""):
            exact["caller"] = agent if "/" in agent else f"agent/{agent}"
        return cls(
            exact=exact,
            secret=str(data.get("secret") or ""),
            after=parse_moment(data.get("after")),
            before=parse_moment(data.get("before")),
            limit=limit,
            whole=parse_switch(data.get("whole"), "whole"),
        )

    def accepts(self, record: Record, seconds: float) -> bool:
        """Does a record of this time match?"""
        if (self.after and seconds < self.after) or (self.before and seconds > self.before):
            return False
        if self.secret and self.secret not in self.shown(record).secrets:
            return False
        return all(getattr(record, name) == text for name, text in self.exact.items())

    def shown(self, record: Record) -> Record:
        """A record that matched, as whoever asked may see it."""
        hides = self.own and record.phase is Phase.REFUSED and record.operation == Operation.USE
        return record._replace(secrets=()) if hides else record


class Cursor(NamedTuple):
    """A place in the journal: which row of each writer was read last. Its text is opaque to clients.

    A writer that is not named had no rows, so those that begin later are read from their beginning.
    """

    read: Mapping[int, int]

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read the text of a cursor. Raises ``InvalidRequest``."""
        if text == BEGINNING:
            return cls({})
        try:
            plain = base64.b64decode(text.encode("ascii"), altchars=b"-_", validate=True).decode("ascii")
            version, _, rest = plain.partition(" ")
            pairs = [part.split(":") for part in rest.split(",")] if rest else []
            if version != "1" or not all(number.isdecimal() and len(number) < 19 for pair in pairs for number in pair):
                raise ValueError  # noqa: TRY301 - one place says what is wrong
            return cls({int(writer): int(last) for writer, last in pairs})
        except ValueError:
            raise InvalidRequest("this is no cursor", "give the one that sys/audit-log answered with") from None

    def __str__(self) -> str:
        pairs = ",".join(f"{writer}:{last}" for writer, last in sorted(self.read.items()))
        return base64.urlsafe_b64encode(f"1 {pairs}".encode()).decode()


class History:
    """The journal of a vault, for reading.

    Args:
        store: where the rows lie.
        keys: to open them.
        vault_id: stands in checkpoints.
    """

    def __init__(self, store: Store, keys: Keys, vault_id: str) -> None:
        self._store = store
        self._keys = keys
        self._vault_id = vault_id

    async def query(self, org_id: str, wanted: Filter) -> tuple[list[dict[str, Any]], Cursor]:
        """The latest matching records of an org, oldest first, and where whoever follows goes on."""
        heads = await self._store.heads()
        found: list[tuple[JournalRow, Record]] = []
        for writer, head in heads.items():
            latest: list[tuple[JournalRow, Record]] = []
            async for row in self._backwards(writer, head, wanted.after):
                if row.partition != org_id or not _within(row, wanted.after, wanted.before):
                    continue
                record = await self._record(row)
                if wanted.accepts(record, row.time / 1e9):
                    latest.append((row, record))
                    if len(latest) == wanted.limit:
                        break
            found += latest
        found.sort(key=lambda item: (item[0].time, item[0].writer, item[0].sequence))
        shown = [_shown(row, wanted.shown(record)) for row, record in found[-wanted.limit :]]
        return shown, Cursor(heads)

    async def records(
        self, org_id: str, after: float = 0.0, before: float = 0.0
    ) -> AsyncIterator[tuple[JournalRow, Record]]:
        """The records of an org in a window, one after the other, so that they may be more than memory holds.

        Args:
            org_id: of the org.
            after: seconds since the epoch, 0 for no bound.
            before: likewise.
        """
        for writer, head in (await self._store.heads()).items():
            async for row in self._backwards(writer, head, after):
                if row.partition == org_id and _within(row, after, before):
                    yield row, await self._record(row)

    async def follow(self, org_id: str, wanted: Filter, cursor: Cursor) -> tuple[list[dict[str, Any]], Cursor, bool]:
        """Matching records behind a cursor, in the order of their time as far as they are read together.

        Left out is that somebody reads along, unless the whole is wanted: whoever follows would see nothing but
        followers.

        Returns:
            the records, the next cursor, and whether there is more to be read at once.

        Raises:
            InvalidRequest: the cursor knows rows that are not there.
        """
        heads = await self._store.heads()
        if any(heads.get(writer, 0) < last for writer, last in cursor.read.items()):
            raise InvalidRequest(
                "the cursor is not of this journal", "ask without a cursor, and go on with the new one"
            )
        read = dict(cursor.read)
        behind = [writer for writer, head in heads.items() if head > read.get(writer, 0)]
        pages = [await self._store.scan(writer, after=read.get(writer, 0), limit=_PAGE) for writer in behind]
        ends = {page[-1].writer: page[-1] for page in pages if len(page) == _PAGE}
        found: list[dict[str, Any]] = []
        for row in heapq.merge(*pages, key=lambda row: row.time):
            read[row.writer] = row.sequence
            if row.partition != org_id:
                continue
            record = await self._record(row)
            if wanted.accepts(record, row.time / 1e9) and (wanted.whole or not _watches(record)):
                found.append(_shown(row, record))
                if len(found) == wanted.limit:
                    break
            if row is ends.get(row.writer):
                break  # what this writer wrote next may be older than the others' next
        return found, Cursor(read), any(head > read.get(writer, 0) for writer, head in heads.items())

    async def verify(self, anchor: Mapping[str, Any] | None = None, *, since: bool = False) -> dict[str, Any]:
        """Check every chain and signature, the heads that the slots name, and a checkpoint when one is given.

        Args:
            anchor: a checkpoint.
            since: check only what came after it; the rows that it names must still be there.

        Returns:
            ``valid``, ``records``, ``problems`` (writer, sequence, what is wrong), ``anchored``, ``anomalies``.
        """
        heads = self.read_checkpoint(anchor) if anchor else {}
        problems: list[dict[str, Any]] = []
        anomalies: list[dict[str, Any]] = []
        records = 0
        stored = await self._store.heads()
        slots, odd = await self._slots()
        problems += [{"writer": -1, "sequence": 0, "problem": "a slot has a name that no writer has"}] * odd
        for writer in sorted({*stored, *heads, *slots}):
            chain = _Chain(writer, self._keys.signing.public)
            chain.expect("checkpoint", heads.get(writer))
            start = heads[writer][0] if since and writer in heads else 0
            if start:
                chain.begin_at(start)
            try:
                chain.expect("writer's slot", await self._slot_head(writer))
            except IntegrityError:
                problems.append({"writer": writer, "sequence": 0, "problem": "the writer's slot was changed"})
            async for row in self._rows(writer, after=max(start - 1, 0)):
                chain.take(row)
            chain.end()
            problems += chain.problems
            anomalies += chain.anomalies
            records += chain.count
        return {
            "valid": not problems,
            "records": records,
            "problems": problems,
            "anomalies": anomalies,
            "anchored": bool(anchor),
        }

    async def checkpoint(self, now: float) -> dict[str, Any]:
        """The heads of all writers, signed; to be kept where this vault's administrators cannot reach."""
        heads = {}
        for writer, last in (await self._store.heads()).items():
            [row] = await self._store.scan(writer, after=last - 1, limit=1)
            heads[str(writer)] = {"sequence": last, "digest": row.digest.hex()}
        body = {"vault": self._vault_id, "time": format_time(now), "heads": heads}
        signature = self._keys.signing.sign(_CHECKPOINT + _canonical(body))
        return {
            **body,
            "public_key": base64.b64encode(self._keys.signing.public).decode(),
            "signature": base64.b64encode(signature).decode(),
        }

    def read_checkpoint(self, anchor: Mapping[str, Any]) -> dict[int, tuple[int, bytes]]:
        """Heads by writer of a checkpoint of this vault. Raises ``InvalidRequest`` when it is not one."""
        try:
            body = {name: anchor[name] for name in ("vault", "time", "heads")}
            signature = base64.b64decode(anchor["signature"])
            verify(self._keys.signing.public, _CHECKPOINT + _canonical(body), signature)
            return {
                int(writer): (int(head["sequence"]), bytes.fromhex(head["digest"]))
                for writer, head in body["heads"].items()
            }
        except (KeyError, ValueError, TypeError, AttributeError, IntegrityError):
            raise InvalidRequest(
                "this is not a checkpoint of this vault", "make one with: keyhole audit checkpoint"
            ) from None

    async def _record(self, row: JournalRow) -> Record:
        """The record of a row, which another node may have written under a key that this one has not heard of."""
        while True:
            ring = self._keys.ring(row.partition)
            try:
                return open_row(ring, row)
            except (IntegrityError, struct.error):  # the latter for numbers that no row of ours has
                if not await self._keys.newer(row.partition, ring):
                    raise IntegrityError(
                        f"record {row.sequence} of writer {row.writer} was damaged or changed",
                        "see what else was: keyhole audit verify; --after and --before show what lies around it",
                    ) from None

    async def _rows(self, writer: int, *, after: int = 0) -> AsyncIterator[JournalRow]:
        while page := await self._store.scan(writer, after=after, limit=_PAGE):
            for row in page:
                yield row
            after = page[-1].sequence
            await asyncio.sleep(0)  # a long journal is read between other requests, not before them

    async def _backwards(self, writer: int, head: int, after: float = 0.0) -> AsyncIterator[JournalRow]:
        """The rows up to a head, the latest first; the journal is as long as it is, and most ask for its end.

        With ``after`` it ends at the first page whose rows are all a day older than that. So rows from before the
        clock was set back by more than a day are not found, which is an event in the journal and a note of ``verify``.
        """
        while head > 0:
            first = max(0, head - _PAGE)
            page = await self._store.scan(writer, after=first, limit=head - first)
            for row in reversed(page):
                if row.sequence <= head:  # not so where rows were taken out, which ``verify`` names
                    yield row
            if after and page and all(row.time / 1e9 < after - DAY for row in page):
                return
            head = first
            await asyncio.sleep(0)

    async def _slots(self) -> tuple[list[int], int]:
        """The writers that have a slot, and how many slots have a name that none has."""
        names = [key.removeprefix(_SLOTS) for key in await self._store.list(_SLOTS)]
        writers = [int(name) for name in names if _WRITER.fullmatch(name)]
        return writers, len(names) - len(writers)

    async def _slot_head(self, writer: int) -> tuple[int, bytes] | None:
        [entry] = await self._store.get([f"sys/journal/{writer}"])
        if entry.value is None:
            return None
        data = open_slot(self._keys.ring(SYSTEM), writer, entry.value, entry.revision)
        return int(data["head"]), bytes.fromhex(data["digest"])


class _Chain:
    """Follows the rows of one writer and notes what does not fit."""

    def __init__(self, writer: int, public: bytes) -> None:
        self._writer = writer
        self._public = public
        self._known: list[tuple[str, tuple[int, bytes]]] = []
        self._digest = GENESIS
        self._time = 0
        self._unsigned = 0
        self._begin = 0
        self.count = 0
        self.last = 0
        self.problems: list[dict[str, Any]] = []
        self.anomalies: list[dict[str, Any]] = []

    def expect(self, who: str, head: tuple[int, bytes] | None) -> None:
        """Somebody knows that this row is in the chain."""
        if head is not None:
            self._known.append((who, head))

    def begin_at(self, sequence: int) -> None:
        """The first row is to be this one, which somebody knows; what was before it is not looked at."""
        self._begin, self.last = sequence, sequence - 1

    def take(self, row: JournalRow) -> None:
        """One row, in order of sequence."""
        if row.sequence == self._begin:
            self._note_head(row)
            self._digest, self._time, self.last = row.digest, row.time, row.sequence
            return
        if row.sequence != self.last + 1:
            self._problem(self.last + 1, f"rows {self.last + 1} to {row.sequence - 1} are missing")
        if _linked(self._digest, row) != row.digest:
            self._problem(row.sequence, "the row was changed, or one before it")
        if row.time < self._time:
            self.anomalies.append(
                {"writer": self._writer, "sequence": row.sequence, "anomaly": "the clock went backwards"}
            )
        if row.signature:
            try:
                verify(self._public, signed(row.digest), row.signature)
                self._unsigned = 0
            except IntegrityError:
                self._problem(row.sequence, "the signature is wrong")
        else:
            self._unsigned = self._unsigned or row.sequence
        self._note_head(row)
        # Going on from the stored digest keeps one changed row from spoiling the report on all that follow.
        self._digest, self._time, self.last = row.digest, row.time, row.sequence
        self.count += 1

    def end(self) -> None:
        """No more rows: check the tail against the signature, the slot and the checkpoint."""
        if self._unsigned:
            self._problem(self._unsigned, "the last rows carry no signature")
        for who, head in self._known:
            if head[0] > self.last:
                self._problem(self.last + 1, f"the {who} knows rows up to {head[0]}")

    def _note_head(self, row: JournalRow) -> None:
        for who, head in self._known:
            if row.sequence == head[0] and row.digest != head[1]:
                self._problem(row.sequence, f"the row is not the one that the {who} names")

    def _problem(self, sequence: int, text: str) -> None:
        self.problems.append({"writer": self._writer, "sequence": sequence, "problem": text})


def _watches(record: Record) -> bool:
    """Whether somebody looked at what goes on, and might."""
    return record.path.startswith(_WATCHING) and record.operation in _SEEN and record.phase != Phase.REFUSED


def _within(row: JournalRow, after: float, before: float) -> bool:
    """Whether a row is of this window; told without opening it."""
    seconds = row.time / 1e9
    return seconds >= after and (not before or seconds <= before)


def _shown(row: JournalRow, record: Record) -> dict[str, Any]:
    return {
        "time": format_time(row.time / 1e9),
        "writer": row.writer,
        "sequence": row.sequence,
        **record.as_data(),
    }


def _linked(previous: bytes, row: JournalRow) -> bytes:
    try:
        return link(previous, row.writer, row.sequence, row.time, row.partition, row.body)
    except OverflowError:  # a number or a size that no row of ours has
        return b""


def _canonical(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()

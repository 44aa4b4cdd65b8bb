"""Reading the journal back: queries, verification, checkpoints.

A hash chain alone cannot show that its tail was cut off. The slot of each writer names a recent head, sealed under a
key of the vault, which catches a careless cut; against somebody with the keys only a checkpoint that is kept elsewhere
helps, and ``verify`` says which of the two it had.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

from keyhole.core.errors import IntegrityError, InvalidRequest
from keyhole.core.numbers import parse_count
from keyhole.core.record import GENESIS, Record, link
from keyhole.core.times import format_time, parse_time
from keyhole.crypto.keyring import Keyring
from keyhole.crypto.signing import verify
from keyhole.stores import JournalRow, Store
from keyhole.vault.audit import open_row, open_slot, signed
from keyhole.vault.keys import SYSTEM, Keys

_PAGE = 200
_CHECKPOINT = b"keyhole checkpoint 1\0"
_EXACT = ("agent", "service", "run", "step", "result", "id", "operation", "workflow")


@dataclass(frozen=True, slots=True)
class Filter:
    """What a query is for. Empty fields match everything.

    Attributes:
        exact: record field to the text it must have.
        secret: name of a secret that was read, written or lent.
        after, before: seconds since the epoch, 0 for no bound.
        limit: how many of the latest matches are given.
    """

    exact: Mapping[str, str]
    secret: str = ""
    after: float = 0.0
    before: float = 0.0
    limit: int = 100

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> Filter:
        """Read the parameters of ``sys/audit-log``. Raises ``InvalidRequest`` for unknown or bad ones."""
        unknown = data.keys() - {*_EXACT, "secret", "after", "before", "limit", "list"}
        if unknown:
            raise InvalidRequest(f"unknown parameter {min(unknown)[:40]!r}")
        limit = parse_count(data.get("limit") or 100, "limit", least=1, most=100_000)
        exact = {name: str(data[name]) for name in _EXACT if data.get(name)}
        if agent := exact.pop("agent", ""):
            exact["caller"] = agent if "/" in agent else f"agent/{agent}"
        return cls(
            exact=exact,
            secret=str(data.get("secret") or ""),
            after=_moment(data.get("after")),
            before=_moment(data.get("before")),
            limit=limit,
        )

    def accepts(self, record: Record, seconds: float) -> bool:
        """Does a record of this time match?"""
        if (self.after and seconds < self.after) or (self.before and seconds > self.before):
            return False
        if self.secret and self.secret not in record.secrets:
            return False
        return all(getattr(record, name) == text for name, text in self.exact.items())


def _moment(value: Any) -> float:
    if not value:
        return 0.0
    text = str(value)
    return float(text) if text.replace(".", "", 1).isdecimal() else parse_time(text)


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

    async def query(self, ring: Keyring, org_id: str, wanted: Filter) -> list[dict[str, Any]]:
        """The latest matching records of an org, oldest first."""
        found: list[tuple[int, int, int, Record]] = []
        for writer in await self._store.heads():
            latest: deque[tuple[int, int, int, Record]] = deque(maxlen=wanted.limit)
            async for row in self._rows(writer):
                if row.partition != org_id:
                    continue
                record = open_row(ring, row)
                if wanted.accepts(record, row.time / 1e9):
                    latest.append((row.time, row.writer, row.sequence, record))
            found += latest
        found.sort(key=lambda item: item[:3])
        return [
            {"time": format_time(time / 1e9), "writer": writer, "sequence": sequence, **record.as_data()}
            for time, writer, sequence, record in found[-wanted.limit :]
        ]

    async def verify(self, anchor: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Check every chain and signature, the heads that the slots name, and a checkpoint when one is given.

        Returns:
            ``valid``, ``records``, ``problems`` (writer, sequence, what is wrong), ``anchored``, ``anomalies``.
        """
        heads = self.read_checkpoint(anchor) if anchor else {}
        problems: list[dict[str, Any]] = []
        anomalies: list[dict[str, Any]] = []
        records = 0
        stored = await self._store.heads()
        for writer in sorted({*stored, *heads, *await self._slots()}):
            chain = _Chain(writer, self._keys.signing.public)
            chain.expect("checkpoint", heads.get(writer))
            try:
                chain.expect("writer's slot", await self._slot_head(writer))
            except IntegrityError:
                problems.append({"writer": writer, "sequence": 0, "problem": "the writer's slot was changed"})
            async for row in self._rows(writer):
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

    async def _rows(self, writer: int) -> AsyncIterator[JournalRow]:
        after = 0
        while page := await self._store.scan(writer, after=after, limit=_PAGE):
            for row in page:
                yield row
            after = page[-1].sequence
            await asyncio.sleep(0)  # a long journal is read between other requests, not before them

    async def _slots(self) -> list[int]:
        keys = await self._store.list("sys/journal/")
        return [int(key.rpartition("/")[2]) for key in keys]

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
        self.count = 0
        self.last = 0
        self.problems: list[dict[str, Any]] = []
        self.anomalies: list[dict[str, Any]] = []

    def expect(self, who: str, head: tuple[int, bytes] | None) -> None:
        """Somebody knows that this row is in the chain."""
        if head is not None:
            self._known.append((who, head))

    def take(self, row: JournalRow) -> None:
        """One row, in order of sequence."""
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


def _linked(previous: bytes, row: JournalRow) -> bytes:
    try:
        return link(previous, row.writer, row.sequence, row.time, row.partition, row.body)
    except OverflowError:  # a number or a size that no row of ours has
        return b""


def _canonical(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()

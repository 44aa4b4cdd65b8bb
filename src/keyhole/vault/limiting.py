"""How often agents use services and tools, measured: rates and calls under way by each server, counts in the store.

- A **rate** and the number of **concurrent** calls hold for one server, whose workers count together. Several servers
  over one store let through as much each.
- A **count** holds for all processes together and after a restart: it is never exceeded. A process takes calls from the
  store in blocks of a twentieth, so that not every call is a write; what it has taken and not used when it ends is lost
  until the next window, so that fewer calls than counted may be let through. Counts below 40 are taken one by one.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from keyhole.core.bucket import Bucket
from keyhole.core.checks.limits import Limits, Quota
from keyhole.core.errors import Conflict, RateLimited
from keyhole.core.identity import Caller
from keyhole.core.tally import Tallies
from keyhole.vault.compiled import OrgState
from keyhole.vault.storage import Change, Storage, Write

if TYPE_CHECKING:
    from keyhole.vault.vault import Vault

MOUNT = "limits"
_KEPT = 20_000  # meters; those that are under way stay
_RETRIES = 50
_BLOCKS = 20
_LARGEST_BLOCK = 1000
_ANY = 10**9
_KEEP = 3600.0  # seconds for which a count is kept after its window


@dataclass(slots=True, eq=False, repr=False)
class UnderWay:
    """Calls under way in this process. It outlives a change of limits, because the calls do."""

    calls: int = 0

    def enter(self, most: int, tallies: Tallies | None, key: str) -> bool:
        """One more, if there may be; ``most`` is 0 for any number."""
        if tallies is not None:
            if not tallies.enter(key, most or _ANY):
                return False
        elif most and self.calls >= most:
            return False
        self.calls += 1
        return True

    def leave(self, tallies: Tallies | None, key: str) -> None:
        """One less."""
        self.calls -= 1
        if tallies is not None:
            tallies.leave(key)


@dataclass(slots=True, eq=False, repr=False)
class Meter:
    """What one agent uses of one thing, in this process.

    Attributes:
        name: what it uses, in words, such as ``the service 'pay'``.
        tallies: where it is counted, if processes share that.
        key: there.
    """

    limits: Limits
    name: str
    storage: Storage
    path: str
    now: Callable[[], float]
    bucket: Bucket
    under_way: UnderWay
    tallies: Tallies | None
    key: str
    window: int = -1
    left: int = 0
    taking: asyncio.Lock = field(default_factory=asyncio.Lock)

    def take_rate(self) -> None:
        """Take one call of the rate. Raises ``RateLimited``."""
        rate = self.limits.rate
        if rate is None:
            return
        wait = self._take_one(rate)
        if wait:
            raise RateLimited(
                f"{self.name} lets each agent through at {rate.text}",
                f"try again in {wait} s",
                retry_after=wait,
            )

    def _take_one(self, rate: Quota) -> int:
        if self.tallies is None:
            return self.bucket.take(rate.number, rate.seconds, self.limits.burst, self.now())
        with self.tallies.held("rates", f"{self.key}\0{rate.text}\0{self.limits.burst}") as cell:
            bucket = Bucket(cell[0], cell[1])  # one that was never used has filled since long
            wait = bucket.take(rate.number, rate.seconds, self.limits.burst, self.now())
            cell[:2] = bucket.left, bucket.at
            return wait

    async def begin(self) -> Turn:
        """Count a call that is about to be made. Raises ``RateLimited``."""
        limits = self.limits
        if not self.under_way.enter(limits.concurrent, self.tallies, self.key):
            raise RateLimited(
                f"{self.name} lets each agent make {limits.concurrent} calls at once",
                "wait for one to end",
                retry_after=1,
            )
        turn = Turn(self)
        try:
            if limits.count is not None:
                await self._take_count(limits.count)
        except BaseException:
            turn.end()
            raise
        turn.window = self.window
        return turn

    async def _take_count(self, count: Quota) -> None:
        async with self.taking:
            window = count.window(self.now())
            if self.window != window or not self.left:
                self.window, self.left = window, await self._take_block(count, window)
            self.left -= 1

    async def _take_block(self, count: Quota, window: int) -> int:
        """Take a block of calls out of the store. Raises ``RateLimited`` when none is left in this window."""
        for _ in range(_RETRIES):
            item = await self.storage.get_one(self.path)
            stored = json.loads(item.data) if item.data is not None else {}
            same = stored.get("window") == window and stored.get("seconds") == count.seconds
            taken = int(stored["taken"]) if same else 0
            block = min(count.number - taken, _LARGEST_BLOCK, max(1, count.number // _BLOCKS))
            if block <= 0:
                wait = max(1, int(window + count.seconds - self.now()) + 1)
                raise RateLimited(
                    f"{self.name} lets each agent make {count.text} calls",
                    f"try again in {wait} s",
                    retry_after=wait,
                )
            data = json.dumps({"window": window, "seconds": count.seconds, "taken": taken + block}).encode()
            due = window + count.seconds + _KEEP
            with contextlib.suppress(Conflict):
                await self.storage.commit(Change([Write(self.path, data, item.revision, due)]))
                return block
        raise Conflict("calls are being counted by many at once", "try again")


class Turn:
    """One call under way, which was counted."""

    __slots__ = ("_ended", "_meter", "window")

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._ended = False
        self.window = -1

    def end(self) -> None:
        """It has ended; said again, nothing happens."""
        if not self._ended:
            self._ended = True
            self._meter.under_way.leave(self._meter.tallies, self._meter.key)

    def undo(self) -> None:
        """It was not made after all, and does not count."""
        meter = self._meter
        if not self._ended and meter.limits.count is not None and meter.window == self.window:
            meter.left += 1
        self.end()


class Limiting:
    """All meters of this process.

    Attributes:
        tallies: where rates and calls under way are counted, if processes share that.
    """

    def __init__(self, _vault: object = None) -> None:
        self.tallies: Tallies | None = None
        self._meters: OrderedDict[tuple[str, str, str], Meter] = OrderedDict()

    def at(
        self, vault: Vault, state: OrgState, caller: Caller, key: str, name: str, limits: Limits | None
    ) -> Meter | None:
        """The meter of an agent at one thing; ``None`` without limits. An agent's tokens have one together.

        Args:
            vault: whose store has the counts.
            state: of the caller's org.
            caller: the agent.
            key: of the thing, a part of a path in the store.
            name: of it in words.
            limits: that hold for it.
        """
        if limits is None:
            return None
        kept = (state.org.id, key, caller.name)
        meter = self._meters.get(kept)
        storage = vault.storage(state.org.id, MOUNT)
        if meter is None or meter.limits != limits or meter.storage is not storage:
            meter = self._meters[kept] = self._new(
                vault, storage, (state.org.id, key, name), caller.name, limits, meter
            )
        self._meters.move_to_end(kept)
        if len(self._meters) > _KEPT:
            self._drop()
        return meter

    @staticmethod
    def _new(
        vault: Vault, storage: Storage, names: tuple[str, str, str], agent: str, limits: Limits, old: Meter | None
    ) -> Meter:
        org_id, key, name = names
        path = f"{key}/{hashlib.sha256(agent.encode()).hexdigest()[:32]}"
        now = vault.clock.now
        bucket = Bucket(float(limits.burst), now())
        under_way = old.under_way if old is not None else UnderWay()
        whole = f"{org_id}/{path}"
        return Meter(limits, name, storage, path, now, bucket, under_way, vault.limiting.tallies, whole)

    def _drop(self) -> None:
        for key, meter in self._meters.items():
            if not meter.under_way.calls:
                del self._meters[key]
                return

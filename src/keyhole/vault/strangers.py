"""What somebody without a valid credential can make the journal hold.

Every refusal of a stranger is a record, so strangers could fill the disk. A bucket of tokens for each address, and one
for all addresses together, bound how many are recorded one by one; the rest are counted, and the counts are recorded
once an interval. So nothing is silent, and nothing grows with the number of guesses.

A valid credential never meets these buckets: nobody can lock out others who come from the same address.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import NamedTuple

from keyhole.core.cidr import network
from keyhole.core.errors import KeyholeError, RateLimited
from keyhole.core.record import Phase, Record
from keyhole.vault.audit import Journal
from keyhole.vault.clock import Clock
from keyhole.vault.keys import new_request_id

_NAMED = 16  # addresses that an interval's records name; the others share one record


class RefusalLimits(NamedTuple):
    """Bounds on records of refused strangers, for each process that serves the vault.

    Attributes:
        rate: refusals a second of one address that are recorded one by one, in the long run.
        burst: refusals of one address at once. All addresses together have ten times both.
        addresses: buckets that are kept; the one that was used least lately is forgotten first.
        interval: seconds between two records of how many were not recorded one by one.
    """

    rate: float = 1.0
    burst: int = 100
    addresses: int = 4096
    interval: float = 30.0


_ALL = 10  # how much more all addresses together may have than one


class _Bucket:
    """Tokens that come back with time."""

    __slots__ = ("_filled", "_tokens")

    def __init__(self, burst: float, now: float) -> None:
        self._tokens = burst
        self._filled = now

    def take(self, rate: float, burst: float, now: float) -> bool:
        """One token, if there is one."""
        self._tokens = min(burst, self._tokens + (now - self._filled) * rate)
        self._filled = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Strangers:
    """Counts the refusals of strangers, by address.

    Args:
        clock: gives the time.
        journal: where records go.
        root_org: id of the org root, whose records they are.

    Attributes:
        limits: bounds; set them before the first refusal.
    """

    def __init__(self, clock: Clock, journal: Journal, root_org: str, limits: RefusalLimits | None = None) -> None:
        self.limits = limits = limits or RefusalLimits()
        self._clock = clock
        self._journal = journal
        self._root_org = root_org
        self._all = _Bucket(limits.burst * _ALL, clock.now())
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._counts: dict[str, int] = {}
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def admit(self, remote: str) -> None:
        """Another refusal of this address, which is to be recorded.

        Raises:
            RateLimited: it was counted, and is not recorded by itself.
        """
        if remote and not self._take(network(remote)):  # without an address it is this process itself
            raise RateLimited(
                "too many requests without a valid token came from this address",
                "use a token that is valid; requests with one are not limited",
            )

    def note(self, error: KeyholeError, remote: str) -> None:
        """Record a refusal that nobody's credential was asked for, such as of a request that cannot be read.

        The record names the code and the address, and nothing that the stranger sent. It is durable a little later.
        """
        if self._take(network(remote)):
            error.request_id = error.request_id or new_request_id()
            self._write(Record(phase=Phase.REFUSED, id=error.request_id, result=error.code, remote=remote))

    def flush(self) -> None:
        """Record now what was only counted."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        counts, self._counts = self._counts, {}
        if not counts:
            return
        elapsed = int((self._clock.now() - self._since) * 1000)
        ordered = sorted(counts.items(), key=lambda item: -item[1])
        rows = ordered[:_NAMED]
        rest = sum(count for _, count in ordered[_NAMED:])
        if rest:
            rows.append(("", rest))
        for address, count in rows:
            self._write(
                Record(
                    phase=Phase.REFUSED,
                    id=new_request_id(),
                    result=RateLimited.code,
                    remote=address,
                    count=count,
                    milliseconds=elapsed,
                )
            )

    def _write(self, record: Record) -> None:
        self._journal.outcome(record.encode(), self._root_org)

    def _take(self, address: str) -> bool:
        limits, now = self.limits, self._clock.now()
        bucket = self._buckets.get(address)
        if bucket is None:
            bucket = self._buckets[address] = _Bucket(limits.burst, now)
            if len(self._buckets) > limits.addresses:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(address)
        if bucket.take(limits.rate, limits.burst, now) and self._all.take(limits.rate * _ALL, limits.burst * _ALL, now):
            return True
        self._count(address, now)
        return False

    def _count(self, address: str, now: float) -> None:
        if not self._counts:
            self._since = now
            self._timer = asyncio.get_running_loop().call_later(self.limits.interval, self.flush)
        if address not in self._counts and len(self._counts) >= self.limits.addresses:
            address = ""
        self._counts[address] = self._counts.get(address, 0) + 1

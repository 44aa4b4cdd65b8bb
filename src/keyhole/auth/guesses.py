"""Bounds on guessing at logins: by address, and by name with a lock-out as Vault's.

Counted in each process that serves the vault, for names that exist and names that do not alike, so that a lock says
nothing about a name.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

from keyhole.core.cidr import network
from keyhole.core.errors import InvalidRequest, PolicyDenied, RateLimited


@dataclass(frozen=True, slots=True)
class GuessLimits:
    """How much may be guessed; each process counts for itself.

    Attributes:
        threshold: failures that lock a name.
        duration: seconds that it stays locked.
        reset: seconds after which failures are forgotten.
        burst: failures of one address at once; then its logins are refused, also good ones.
        rate: failures a second that are forgiven it.
        kept: names and addresses that are kept; the one that failed least lately is forgotten first.
        waiting: proofs that may wait for their turn.
    """

    threshold: int = 5
    duration: float = 900.0
    reset: float = 900.0
    burst: int = 60
    rate: float = 0.5
    kept: int = 16_384
    waiting: int = 32


class Guesses:
    """Counts failures at all login methods of a vault together. Times are seconds since the epoch.

    A name counts at its place, which is the org as it was asked for and the path of the mount: so it does for an org or
    a mount that is not there.
    """

    def __init__(self, limits: GuessLimits | None = None) -> None:
        self.limits = limits or GuessLimits()
        self._names: OrderedDict[tuple[str, str], tuple[int, float]] = OrderedDict()
        self._addresses: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._one = asyncio.Lock()
        self._waiting = 0

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """One costly proof at a time, so that memory stays bounded. Raises ``RateLimited`` when too many wait."""
        if self._waiting >= self.limits.waiting:
            raise RateLimited("too many logins wait for their turn", "try again in a few seconds")
        self._waiting += 1
        try:
            await self._one.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._one.release()

    def check_address(self, remote: str, now: float) -> None:
        """Raises ``RateLimited`` for an address that has failed too often; without one it is this process itself."""
        failures, since = self._addresses.get(network(remote), (0.0, now))
        if failures - max(0.0, now - since) * self.limits.rate > self.limits.burst - 1:
            raise RateLimited("too many failed logins came from this address", "wait a minute")

    @contextlib.contextmanager
    def one(self, remote: str, now: float) -> Iterator[None]:
        """One login that names and proves in one: each refusal of it is a failure of its address.

        Raises:
            RateLimited: the address has failed too often.
        """
        self.check_address(remote, now)
        try:
            yield
        except (InvalidRequest, PolicyDenied):
            self.fail_address(remote, now)
            raise

    def check_name(self, place: str, name: str, now: float) -> None:
        """Raises ``PolicyDenied`` for a name that is locked."""
        count, last = self._names.get((place, name), (0, now))
        if count >= self.limits.threshold and now - last < self.limits.duration:
            minutes = int(self.limits.duration // 60)
            raise PolicyDenied("permission denied", f"too many failed logins: wait {minutes} minutes")

    def fail_address(self, remote: str, now: float) -> None:
        """One more failure of an address."""
        if not remote:
            return
        key = network(remote)
        failures, since = self._addresses.pop(key, (0.0, now))
        self._addresses[key] = max(0.0, failures - max(0.0, now - since) * self.limits.rate) + 1, now
        self._forget(self._addresses)

    def fail_name(self, place: str, name: str, now: float) -> None:
        """One more failure at a name."""
        count, last = self._names.pop((place, name), (0, now))
        over = self.limits.duration if count >= self.limits.threshold else self.limits.reset
        self._names[place, name] = (1 if now - last >= over else count + 1), now
        self._forget(self._names)

    def forgive(self, place: str, name: str) -> None:
        """The name was proved, or has a new password."""
        self._names.pop((place, name), None)

    def _forget(self, counted: OrderedDict[Any, Any]) -> None:
        if len(counted) > self.limits.kept:
            counted.popitem(last=False)

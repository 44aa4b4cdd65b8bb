"""Bounds on guessing at logins: by address, and by name with a lock-out as Vault's.

Counted by each server, for names that exist and names that do not alike, so that a lock says nothing about a name.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

from keyhole.core.cidr import network
from keyhole.core.errors import InvalidRequest, PolicyDenied, RateLimited
from keyhole.core.fair import FairQueue
from keyhole.core.tally import LocalTallies, Tallies

_ADDRESSES, _NAMES = "addresses", "names"


class GuessLimits(NamedTuple):
    """How much may be guessed; each server counts for itself.

    Attributes:
        threshold: failures that lock a name.
        duration: seconds that it stays locked.
        reset: seconds after which failures are forgotten.
        burst: failures of one address at once; then its logins are refused, also good ones.
        rate: failures a second that are forgiven it.
        kept: names and addresses that are kept; the one that failed least lately is forgotten first.
        waiting: proofs of one org that may wait for their turn.
        waiting_all: proofs of all orgs that may.
    """

    threshold: int = 5
    duration: float = 900.0
    reset: float = 900.0
    burst: int = 60
    rate: float = 0.5
    kept: int = 16_384
    waiting: int = 32
    waiting_all: int = 128


class Turns:
    """One at a time, so that memory stays bounded. Orgs take turns, and of one org the addresses that ask.

    So a flood at one org is no wait for another, and one that comes from an address little for others at the same org.
    """

    def __init__(self, limits: GuessLimits) -> None:
        self._taken = False
        self._queue: FairQueue[asyncio.Future[None]] = FairQueue(limits.waiting, limits.waiting_all)

    async def take(self, org: str, source: str = "") -> None:
        """Wait for a turn. Raises ``RateLimited`` when too many wait."""
        if not self._taken:
            self._taken = True
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        out = self._queue.put(org, source, turn)
        refusal = RateLimited("too many logins wait for their turn", "try again in a few seconds", retry_after=2)
        if out is turn:
            raise refusal
        if out is not None and not out.done():
            out.set_exception(refusal)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._queue.remove(org, source, turn)
            elif turn.exception() is None:  # it had just been given
                self.give()
            raise

    def give(self) -> None:
        """The turn of whoever had it has ended; the next one gets it."""
        while (found := self._queue.take()) is not None:
            if not found[1].done():  # whoever waited may just have gone
                found[1].set_result(None)
                return
        self._taken = False


class Guesses:
    """Counts failures at all login methods of a vault together. Times are seconds since the epoch.

    A name counts at its place, which is the org as it was asked for and the path of the mount: so it does for an org or
    a mount that is not there.

    Attributes:
        tallies: where it is counted; those that processes share are set before the first login.
    """

    def __init__(self, limits: GuessLimits | None = None) -> None:
        self.limits = limits or GuessLimits()
        self.tallies: Tallies = LocalTallies(self.limits.kept)
        self._turns = Turns(self.limits)

    @contextlib.asynccontextmanager
    async def turn(self, org: str, source: str = "") -> AsyncIterator[None]:
        """One costly proof at a time, for an address or a caller of an org.

        Raises:
            RateLimited: too many of this address or org wait, or of all orgs.
        """
        await self._turns.take(org, network(source))
        try:
            yield
        finally:
            self._turns.give()

    def check_address(self, remote: str, now: float) -> None:
        """Raises ``RateLimited`` for an address that has failed too often; without one it is this process itself."""
        failures, since, _ = self.tallies.read(_ADDRESSES, network(remote))
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
        count, last, _ = self.tallies.read(_NAMES, f"{place}\0{name}")
        if count >= self.limits.threshold and now - last < self.limits.duration:
            minutes = int(self.limits.duration // 60)
            raise PolicyDenied("permission denied", f"too many failed logins: wait {minutes} minutes")

    def fail_address(self, remote: str, now: float) -> None:
        """One more failure of an address."""
        if not remote:
            return
        with self.tallies.held(_ADDRESSES, network(remote)) as cell:
            failures, since, _ = cell
            cell[:2] = max(0.0, failures - max(0.0, now - since) * self.limits.rate) + 1, now

    def fail_name(self, place: str, name: str, now: float) -> None:
        """One more failure at a name."""
        with self.tallies.held(_NAMES, f"{place}\0{name}") as cell:
            count, last, _ = cell
            over = self.limits.duration if count >= self.limits.threshold else self.limits.reset
            cell[:2] = (1 if now - last >= over else count + 1), now

    def forgive(self, place: str, name: str) -> None:
        """The name was proved, or has a new password."""
        self.tallies.forget(_NAMES, f"{place}\0{name}")

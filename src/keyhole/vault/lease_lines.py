"""Lines of leases that wait to be taken back: one for each place where that has to be done, so that none delays others.

A line notes whether its target is away. One lease of it, the scout, is then tried again and again, and when it comes
through, all others of the line are tried at once.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from keyhole.core.errors import KeyholeError
from keyhole.core.lease import Lease

Tried = dict[str, KeyholeError | None]
"""Last segment of a lease's id to why it could not be taken back."""

Job = asyncio.Task[Tried]
_JITTER = 0.25
_RALLY_EVERY = 5.0  # seconds; all that waits for a target is not looked through more often


class LeaseLimits(NamedTuple):
    """Bounds on taking leases back. Seconds, unless it says otherwise.

    Attributes:
        making: how long something leased may take to be made; what was not given out by then is taken back.
        attempt: how long one try may take.
        claim: for how long no other node tries; more than the tries in a full line take that succeed.
        first_retry: wait after the first failed try, doubled with each further one, a quarter more or less by chance.
        longest_retry: what the wait grows to.
        tries: failed ones after which a lease is irrevocable; a number.
        slow_retry: wait between tries of an irrevocable one.
        stuck: a line in which nothing was taken back for so long lets others pass.
        jobs: tries at the same time, of one line; a number.
        line: leases of one line that are claimed and wait for their try; a number.
        batch: leases that are taken back in one try, where the engine can; a number.
    """

    making: float = 30.0
    attempt: float = 30.0
    claim: float = 90.0
    first_retry: float = 10.0
    longest_retry: float = 20.0
    tries: int = 6
    slow_retry: float = 86_400.0
    stuck: float = 5.0
    jobs: int = 16
    line: int = 512
    batch: int = 50

    def wait(self, attempts: int) -> float:
        """Until the next try, after so many that failed."""
        return min(self.first_retry * 2.0 ** (attempts - 1), self.longest_retry) * chance()


class Line:
    """The leases of one mount and one target that are being taken back.

    Attributes:
        length: how many are claimed.
        moved: when one was last taken back.
        turns: for the tries at the same time.
        away: the target could not be reached the last time, or some had to step back.
        scout: last segment of the irrevocable lease that finds out whether it is back; empty for none.
    """

    __slots__ = ("_rallied", "away", "length", "moved", "scout", "turns")

    def __init__(self, jobs: int, now: float) -> None:
        self.length = 0
        self.moved = now
        self.turns = asyncio.Semaphore(jobs)
        self.away = False
        self.scout = ""
        self._rallied = 0.0

    def is_stuck(self, now: float, limits: LeaseLimits) -> bool:
        """Has nothing been taken back for long, though somebody waits?"""
        return self.length > 0 and now - self.moved >= limits.stuck

    def next_wait(self, lease: Lease, limits: LeaseLimits, *, lost: bool) -> float:
        """Until the next try of a lease that has just failed.

        Args:
            lease: with the failures that it has had.
            limits: bounds.
            lost: it is irrevocable.
        """
        if not lost:
            return limits.wait(lease.attempts)
        if self.away and self.scout in ("", lease.mark):
            self.scout = lease.mark
            return limits.longest_retry * chance()
        return limits.slow_retry * chance()

    def relieve(self, mark: str) -> bool:
        """A lease waits no more; whether it was the scout."""
        was = self.scout == mark
        if was:
            self.scout = ""
        return was

    def may_rally(self, now: float) -> bool:
        """Is it time to try all that waits for the target, which has just answered?"""
        if now - self._rallied < _RALLY_EVERY:
            return False
        self._rallied, self.away = now, False
        return True


def batches(leases: Sequence[Lease], most: int) -> Iterator[list[Lease]]:
    """These in groups for one try each. Every second try of a lease is its own, in case one keeps a group from it."""
    together = [lease for lease in leases if lease.attempts % 2 == 0]
    for start in range(0, len(together), most):
        yield together[start : start + most]
    for lease in leases:
        if lease.attempts % 2:
            yield [lease]


def chance() -> float:
    """A quarter more or less."""
    import random  # noqa: PLC0415  # a command that leases nothing starts without it

    return random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - spreads retries, protects nothing

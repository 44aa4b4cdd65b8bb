"""When the end of a secret comes near: the dates that it has, and when somebody is to be told. Pure.

A secret may have two dates: it expires, or a new value is due. Before each there are thresholds, in days, and the date
itself. A threshold that is crossed is told once; when several were crossed at once, the latest alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from keyhole.core.times import DAY

_PART = 0.5  # thresholds of a new value that lie further before it would be crossed as soon as there is one


class End(NamedTuple):
    """One date of a secret.

    Attributes:
        what: ``expires`` or ``rotation``.
        at: seconds since the epoch.
        longest: seconds before it from which on a threshold counts.
    """

    what: str
    at: float
    longest: float

    def mark(self, days: int) -> str:
        """What a notice of this date at a threshold is known by."""
        return f"{self.what} {self.at:.0f} {days}"


def ends_of(expires: float, rotate_every: int, rotated: float) -> list[End]:
    """The dates of a secret.

    Args:
        expires: seconds since the epoch; 0 for never.
        rotate_every: seconds after which a new value is due; 0 for never.
        rotated: when it got its value.
    """
    ends = [End("expires", expires, float("inf"))] if expires else []
    if rotate_every:
        ends.append(End("rotation", rotated + rotate_every, rotate_every * _PART))
    return ends


def crossed(ends: Sequence[End], days: Sequence[int], now: float) -> Iterator[tuple[End, int]]:
    """Each date that is near, with the latest threshold that was crossed; 0 once the date itself has passed."""
    for end in ends:
        found = [day for day in _thresholds(end, days) if end.at - day * DAY <= now]
        if found:
            yield end, min(found)


def next_time(ends: Sequence[End], days: Sequence[int], told: Sequence[str], now: float) -> float | None:
    """When somebody is to be told next, seconds since the epoch; now or earlier for what was not told yet."""
    if any(end.mark(day) not in told for end, day in crossed(ends, days, now)):
        return now
    times = [end.at - day * DAY for end in ends for day in _thresholds(end, days)]
    return min((time for time in times if time > now), default=None)


def _thresholds(end: End, days: Sequence[int]) -> list[int]:
    return [0, *(day for day in days if day * DAY <= end.longest)]

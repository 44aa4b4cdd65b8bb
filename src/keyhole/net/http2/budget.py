"""A budget for what costs us more than the peer: so much at once, so much a second."""

from __future__ import annotations


class Budget:
    """A token bucket. It is handed the time, so that asking it costs nothing else.

    Args:
        most: units at once.
        rate: units a second.
        now: loop time.
    """

    __slots__ = ("_last", "_left", "_most", "_rate")

    def __init__(self, most: int, rate: float, now: float) -> None:
        self._most = float(most)
        self._left = float(most)
        self._rate = rate
        self._last = now

    def spend(self, now: float, cost: float = 1.0) -> bool:
        """Take some; whether there was enough."""
        left = min(self._most, self._left + (now - self._last) * self._rate)
        self._last = now
        self._left = left - cost
        return self._left >= 0

    def earn(self, gain: float) -> None:
        """Give some back, up to the most."""
        self._left = min(self._most, self._left + gain)

"""A token bucket. Pure: it is a value, and time is handed in."""

from __future__ import annotations

import math


class Bucket:
    """How many calls are left, and when that was so (seconds)."""

    __slots__ = ("at", "left")

    def __init__(self, left: float, at: float) -> None:
        self.left = left
        self.at = at

    def take(self, number: int, seconds: int, burst: int, now: float) -> int:
        """Take one call of those that come back: so many in so many seconds, up to ``burst``.

        Returns 0, or after how many seconds (at least 1) there is one again.
        """
        grown = max(0.0, now - self.at) * number / seconds
        self.left, self.at = min(float(burst), self.left + grown), now
        if self.left >= 1.0:
            self.left -= 1.0
            return 0
        return max(1, math.ceil((1.0 - self.left) * seconds / number))

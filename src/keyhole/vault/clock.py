"""Time that does not jump while the process lives: the store's time at open plus the monotonic clock."""

from __future__ import annotations

import time
from collections.abc import Callable

TOLERATED_STEP_BACK = 600.0


class Clock:
    """Seconds since the epoch that never go backwards.

    Args:
        store_now: the store's time at open.
        high_water: the latest time that an earlier process is known to have written; time does not start before it
            unless it lies more than ten minutes ahead, which is reported as an anomaly instead of expiring everything.
        monotonic: source of elapsed seconds.
    """

    def __init__(
        self, store_now: float, high_water: float = 0.0, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.anomaly = max(0.0, high_water - store_now)
        start = max(store_now, high_water) if self.anomaly <= TOLERATED_STEP_BACK else store_now
        self._monotonic = monotonic
        self._offset = start - monotonic()

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._offset + self._monotonic()

    def resynchronise(self, store_now: float) -> None:
        """Follow the store's clock forward; a step back is not taken while the process lives."""
        self._offset = max(self._offset, store_now - self._monotonic())

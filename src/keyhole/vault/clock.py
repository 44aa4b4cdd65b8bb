"""Time that does not jump while the process lives: the store's time at open plus the seconds that have passed since."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial

_log = logging.getLogger("keyhole")
TOLERATED_STEP_BACK = 600.0
_SET = 60.0  # seconds that a clock is ahead when somebody must have set it
_DRIFT = 0.001  # of a second in a second: more than clocks drift apart, and than NTP turns one (500 ppm)

# One that counts on while the machine sleeps, where there is one: what was leased for an hour does not outlive the lid.
_COUNTS_SLEEP = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))
elapsed: Callable[[], float] = (
    partial(time.clock_gettime, _COUNTS_SLEEP) if _COUNTS_SLEEP is not None else time.monotonic
)
"""Seconds since some moment in the past."""


class Clock:
    """Seconds since the epoch that never go backwards.

    Args:
        store_now: the store's time at open.
        high_water: the latest time that an earlier process is known to have written; time does not start before it
            unless it lies more than ten minutes ahead, which is reported as an anomaly instead of expiring everything.
        monotonic: source of elapsed seconds.
    """

    def __init__(self, store_now: float, high_water: float = 0.0, monotonic: Callable[[], float] = elapsed) -> None:
        self.anomaly = max(0.0, high_water - store_now)
        start = max(store_now, high_water) if self.anomaly <= TOLERATED_STEP_BACK else store_now
        self._monotonic = monotonic
        self._told = False
        self._followed = monotonic()
        self._offset = start - self._followed

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._offset + self._monotonic()

    def resynchronise(self, store_now: float) -> float:
        """Follow the store's clock forward as fast as clocks drift, and no faster: whoever sets it ends no lease.

        A step back is not taken while the process lives.

        Returns:
            How many seconds the store's clock is ahead then.
        """
        at = self._monotonic()
        ahead = store_now - self.now()
        self._offset += min(max(ahead, 0.0), (at - self._followed) * _DRIFT)
        self._followed = at
        ahead = max(0.0, store_now - self.now())
        if (ahead > _SET) != self._told:
            self._told = ahead > _SET
            how = f"{ahead:.0f} s ahead: the server goes on by its own" if self._told else "right again"
            _log.warning("the clock of the store is %s", how)
        return ahead

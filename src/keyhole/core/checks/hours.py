"""Time windows: when a service may be used. Pure but for the system's time zone data, which a window is judged by.

    Mon-Fri 08:00-18:00 Europe/Berlin        Sat,Sun 10:00-16:00 UTC        daily 22:00-06:00 America/New_York

A window is local wall-clock time: it opens and closes by the clock on the wall, also on the days when that is changed.
One that ends before it begins goes past midnight and belongs to the day on which it began.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from keyhole.core.errors import InvalidRequest

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_FORM = re.compile(r"(\S+) +([0-2][0-9]):([0-5][0-9])-([0-2][0-9]):([0-5][0-9]) +([A-Za-z][A-Za-z0-9_+/-]{1,63})")
_MOST = 16
_DAY = 24 * 60
_HINT = "for example Mon-Fri 08:00-18:00 Europe/Berlin"


@dataclass(frozen=True, slots=True)
class Window:
    """One window.

    Attributes:
        text: as it was written.
        days: numbers of the days on which it begins; 0 is Monday.
        start, end: minutes since midnight on the wall.
        zone: name of the time zone (IANA).
    """

    text: str
    days: frozenset[int]
    start: int
    end: int
    zone: str

    @classmethod
    def parse(cls, text: Any) -> Window:
        """Read ``DAYS HH:MM-HH:MM ZONE``. Raises ``InvalidRequest``; whether the zone is known is asked later."""
        match = _FORM.fullmatch(text.strip()) if isinstance(text, str) else None
        if match is None:
            raise InvalidRequest("hours are not written as DAYS HH:MM-HH:MM ZONE", _HINT)
        start, end = int(match[2]) * 60 + int(match[3]), int(match[4]) * 60 + int(match[5])
        if start >= _DAY or end > _DAY or start == end:
            raise InvalidRequest("hours go from 00:00 to 24:00 and do not end where they begin", _HINT)
        return cls(match[0], _days(match[1]), start, end, match[6])

    def is_open(self, now: float) -> bool:
        """Whether it is open at ``now``, seconds since the epoch. Raises ``InvalidRequest`` for an unknown zone."""
        local = datetime.fromtimestamp(now, zone(self.zone))
        minute, day = local.hour * 60 + local.minute, local.weekday()
        if self.start < self.end:
            return day in self.days and self.start <= minute < self.end
        return (day in self.days and minute >= self.start) or ((day - 1) % 7 in self.days and minute < self.end)


def parse_windows(data: Any) -> tuple[Window, ...]:
    """The windows of a service: a text, or a list of texts. Raises ``InvalidRequest``."""
    texts = [data] if isinstance(data, str) else data
    if not isinstance(texts, list | tuple) or not 0 < len(texts) <= _MOST:
        raise InvalidRequest(f"hours are a text or a list of at most {_MOST} texts", _HINT)
    return tuple(Window.parse(text) for text in texts)


@functools.lru_cache(maxsize=256)
def zone(name: str) -> tzinfo:
    """The time zone of this name. Raises ``InvalidRequest`` where this machine does not know it."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidRequest(
            f"this machine knows no time zone {name!r}", "write it like Europe/Berlin, or install the system's tzdata"
        ) from None


def _days(text: str) -> frozenset[int]:
    if text.lower() in {"daily", "*"}:
        return frozenset(range(7))
    days: set[int] = set()
    for part in text.lower().split(","):
        first, dash, last = part.partition("-")
        if first not in _DAYS or (dash and last not in _DAYS):
            raise InvalidRequest("the days of hours are not Mon to Sun, or daily", _HINT)
        begin, end = _DAYS.index(first), _DAYS.index(last or first)
        days.update((begin + offset) % 7 for offset in range((end - begin) % 7 + 1))
    return frozenset(days)

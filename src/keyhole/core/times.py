"""Times as people and Vault write them: RFC 3339 in UTC."""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from typing import Any

from keyhole.core.errors import InvalidRequest

DAY = 86_400  # seconds


@functools.lru_cache(maxsize=1024)
def format_time(seconds: float) -> str:
    """RFC 3339 with microseconds and ``Z``, from seconds since the epoch."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_time(value: Any) -> float:
    """Seconds since the epoch, from RFC 3339 or a plain date (midnight UTC). Raises ``InvalidRequest``."""
    try:
        moment = datetime.fromisoformat(str(value).strip())
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return moment.timestamp()
    except (ValueError, OverflowError):
        raise InvalidRequest("this is not a time", "write 2027-01-31 or 2027-01-31T12:00:00Z") from None


def parse_moment(value: Any) -> float:
    """Seconds since the epoch, from a number of them or a time; 0 where nothing is said. Raises ``InvalidRequest``."""
    if not value:
        return 0.0
    text = str(value)
    return float(text) if text.replace(".", "", 1).isdecimal() else parse_time(text)

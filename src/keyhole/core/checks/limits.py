"""How often an agent may use a service. Pure: a bucket is a value, and time is handed in.

    {"rate": "10/m", "burst": 20, "count": "100/d", "concurrent": 4}

``rate`` fills a bucket of ``burst`` calls (as many as the rate's number unless said) evenly. ``count`` is for a window
that begins at a whole multiple of its length since the epoch: a day at midnight UTC.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from keyhole.core.errors import InvalidRequest
from keyhole.core.numbers import parse_count

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_FORM = re.compile(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,4})?([smhdw])")
_KNOWN = frozenset({"rate", "burst", "count", "concurrent"})
_HINT = '{"rate": "10/m", "count": "100/d", "concurrent": 4}'


class Quota(NamedTuple):
    """So many in so many seconds."""

    text: str
    number: int
    seconds: int

    @classmethod
    def parse(cls, text: Any, name: str) -> Quota:
        """Read ``10/m``, ``100/d`` or ``5/30s``. Raises ``InvalidRequest``."""
        match = _FORM.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise InvalidRequest(f"{name} is not a number of calls in a time", "for example 10/m, 100/d or 5/30s")
        return cls(text, int(match[1]), int(match[2] or 1) * _UNITS[match[3]])

    def window(self, now: float) -> int:
        """When the window of ``now`` began."""
        return int(now // self.seconds) * self.seconds


class Limits(NamedTuple):
    """The limits of a service, for each agent by itself.

    Attributes:
        rate: calls that are let through evenly.
        burst: calls that may come at once.
        count: calls in a window.
        concurrent: calls under way; 0 for any number.
    """

    rate: Quota | None = None
    burst: int = 0
    count: Quota | None = None  # type: ignore[assignment]  # a tuple's own method of that name is not missed
    concurrent: int = 0

    @classmethod
    def from_data(cls, data: Any) -> Limits:
        """Read ``limits`` of a service. Raises ``InvalidRequest``."""
        if not isinstance(data, Mapping) or not data or data.keys() - _KNOWN:
            raise InvalidRequest(f"limits have {', '.join(sorted(_KNOWN))}", _HINT)
        rate = Quota.parse(data["rate"], "rate") if data.get("rate") else None
        burst = parse_count(data.get("burst") or 0, "burst", most=10**6)
        if burst and rate is None:
            raise InvalidRequest("burst says how many calls may come at once within a rate", _HINT)
        return cls(
            rate,
            burst or (rate.number if rate else 0),
            Quota.parse(data["count"], "count") if data.get("count") else None,
            parse_count(data.get("concurrent") or 0, "concurrent", most=10**6),
        )

    def as_data(self) -> dict[str, Any]:
        """JSON-ready, in the form that ``from_data`` reads."""
        data: dict[str, Any] = {}
        if self.rate is not None:
            data["rate"] = self.rate.text
            if self.burst != self.rate.number:
                data["burst"] = self.burst
        if self.count is not None:
            data["count"] = self.count.text
        return data | ({"concurrent": self.concurrent} if self.concurrent else {})

    def describe(self) -> list[str]:
        """In words, one line each."""
        lines = [f"rate: {self.rate.text}, {self.burst} at once"] if self.rate else []
        lines += [f"count: {self.count.text}"] if self.count else []
        return lines + ([f"concurrent: {self.concurrent}"] if self.concurrent else [])

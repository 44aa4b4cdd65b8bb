"""Arithmetic of times to live. Seconds everywhere; 0 means "not set".

Source of the rules: Vault's token and lease documentation (``/docs/concepts/lease``, ``/docs/concepts/tokens``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from keyhole.core.errors import InvalidRequest

SYSTEM_DEFAULT_TTL = 2_764_800  # 32 days, as Vault's
SYSTEM_MAX_TTL = 2_764_800
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[smhd])+")
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_MAX_DIGITS = 100
_LONGEST = 100 * 365 * 86_400


def parse_duration(value: Any, *, name: str = "ttl") -> int:
    """Seconds from ``30``, ``"30"``, ``"30s"``, ``"1h30m"`` or ``"7d"``; ``InvalidRequest`` for anything else."""
    seconds: float | None = None
    if isinstance(value, bool):
        seconds = None
    elif isinstance(value, int | float):
        seconds = value
    elif isinstance(value, str):
        text = value.strip().lower()
        if not text:
            seconds = 0
        elif len(text) > _MAX_DIGITS:
            seconds = None  # also more digits than Python turns into a number
        elif text.isdecimal() and text.isascii():
            seconds = int(text)
        elif _DURATION.fullmatch(text) and text.isascii():
            seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    if seconds is None or not 0 <= seconds <= _LONGEST:
        raise InvalidRequest(f"{name} is not a duration", "write seconds, or like 90s, 1h30m, 7d")
    return int(seconds)


@dataclass(frozen=True, slots=True)
class Term:
    """How long something granted now lives, and the warning to give with it.

    Attributes:
        ttl: seconds from now; 0 for without end.
        warning: set when the caller asked for more than it gets.
    """

    ttl: int
    warning: str = ""


def compute_term(
    *,
    requested: int,
    default: int = SYSTEM_DEFAULT_TTL,
    maximum: int = SYSTEM_MAX_TTL,
    explicit_max: int = 0,
    period: int = 0,
    age: int = 0,
) -> Term:
    """The time to live for a grant or a renewal.

    Args:
        requested: seconds asked for from now; 0 for the default.
        default: what is given when nothing is asked for.
        maximum: no life longer than this since the issue; a period is exempt from it.
        explicit_max: a cap that even a period cannot exceed.
        period: a periodic grant gets this much at each renewal.
        age: seconds since the issue.

    Raises:
        InvalidRequest: the age has already reached the cap.
    """
    ttl = period or requested or default
    cap = explicit_max if period else min(filter(None, (maximum, explicit_max)), default=0)
    if not cap:
        return Term(ttl)
    left = cap - age
    if left <= 0:
        raise InvalidRequest("past the max TTL, cannot renew", "ask for a new one")
    if ttl > left:
        asked = requested or period
        warning = f'TTL of "{ttl}s" exceeded the effective max_ttl of "{left}s"; TTL value is capped accordingly'
        return Term(left, warning if asked else "")
    return Term(ttl)

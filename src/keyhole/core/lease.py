"""Leases, and the arithmetic of times to live. Seconds everywhere; 0 means "not set".

Source of the rules: Vault's token and lease documentation (``/docs/concepts/lease``, ``/docs/concepts/tokens``).
"""

import math
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from keyhole.core.errors import InvalidRequest

SYSTEM_DEFAULT_TTL = 2_764_800  # 32 days, as Vault's
SYSTEM_MAX_TTL = 2_764_800
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = r"(?:\d+(?:\.\d+)?[smhd])+"
_PART = r"(\d+(?:\.\d+)?)([smhd])"
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
        elif re.fullmatch(_DURATION, text) and text.isascii():
            seconds = sum(float(number) * _UNITS[unit] for number, unit in re.findall(_PART, text))
    if seconds is None or not 0 <= seconds <= _LONGEST:
        raise InvalidRequest(f"{name} is not a duration", "write seconds, or like 90s, 1h30m, 7d")
    return int(seconds)


def format_duration(seconds: int) -> str:
    """Seconds as Vault's texts have them: Go's form without what is zero at its end, ``1m40s``, ``1h``, ``1h0m5s``."""
    hours, rest = divmod(seconds, 3600)
    minutes, left = divmod(rest, 60)
    text = (f"{hours}h" if hours else "") + (f"{minutes}m" if minutes or (hours and left) else "")
    return text + (f"{left}s" if left or not text else "")


class LeaseState(StrEnum):
    """How far something that was leased has come.

    ``pending``: it is being made, and nobody has it yet. ``active``: it was given out. ``revoking``: it is to be taken
    back, and cannot be renewed any more. ``irrevocable``: taking it back failed so often that a person has to look.
    """

    PENDING = "pending"
    ACTIVE = "active"
    REVOKING = "revoking"
    IRREVOCABLE = "irrevocable"


class Term(NamedTuple):
    """How long something granted now lives, and the warning to give with it.

    Attributes:
        ttl: seconds from now; 0 for without end.
        warning: set when the caller asked for more than it gets.
    """

    ttl: int
    warning: str = ""


class Lease(NamedTuple):
    """Something that was made for somebody for a time, and is taken back at its end.

    Attributes:
        id: request path, a slash and 24 base62 characters.
        issued: seconds since the epoch.
        expires: seconds since the epoch.
        ttl: seconds that the last grant or renewal gave.
        default_ttl: seconds that a renewal gives when none are asked for.
        max_ttl: no life longer than this since the issue.
        renewable: may it be renewed.
        internal: what its engine needs to take it back, without any value.
        mount: id of the mount whose engine made it.
        target: where it has to be taken back, as its engine calls that; empty where there is one such place.
        token: id of the token for which it was made, and with which it ends; empty for the owner of a local vault.
        caller: identity of that token, for people.
        accessor: of that token.
        state: see ``LeaseState``.
        renewed: when it was last renewed, seconds since the epoch; 0 for never.
        until: somebody may still be making it, who takes it back himself if he may not give it out; 0 for nobody.
        attempts: how often taking it back has failed.
        error: why it failed the last time.
        warning: for who asked, where it got less.
        queue: revision of its place in the queue, while it does not lie there.
        revision: of the entry.
    """

    id: str
    issued: float
    expires: float
    ttl: int
    default_ttl: int
    max_ttl: int
    renewable: bool
    internal: Mapping[str, Any]
    mount: str
    target: str = ""
    token: str = ""
    caller: str = ""
    accessor: str = ""
    state: LeaseState = LeaseState.PENDING
    renewed: float = 0.0
    until: float = 0.0
    attempts: int = 0
    error: str = ""
    warning: str = ""
    queue: int = 0
    revision: int = 0

    def __repr__(self) -> str:
        return f"Lease({self.id!r}, {self.state})"

    @property
    def mark(self) -> str:
        """The last segment of the id, which no other lease has."""
        return self.id.rpartition("/")[2]

    @property
    def path(self) -> str:
        """Of the request that made it."""
        return self.id.rpartition("/")[0]

    def remaining(self, now: float) -> int:
        """Whole seconds left."""
        return max(0, int(self.expires - now))

    def term(self, increment: int, now: float) -> Term:
        """What a renewal gives now. Raises ``InvalidRequest`` when it cannot be renewed."""
        if not self.renewable:
            raise InvalidRequest("lease is not renewable")
        age = math.ceil(now - self.issued)
        return compute_term(requested=increment, default=self.default_ttl, maximum=self.max_ttl, age=age)


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
        warning = (
            f'TTL of "{format_duration(ttl)}" exceeded the effective max_ttl of "{format_duration(left)}"; '
            "TTL value is capped accordingly"
        )
        return Term(left, warning if asked else "")
    return Term(ttl)

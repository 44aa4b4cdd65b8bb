"""How long a leased credential may be used, and what is to be done when. Pure: times are handed in.

1. A lease counts from before it was asked for, so that no delay makes it seem longer than it is.
2. It is renewed at about two thirds of its time, more or less by chance, so that many clients do not come at once.
3. What cannot be renewed, or not for longer, is read anew, which makes another credential.
4. It is served for nine tenths of its time. While nobody can be asked, for a grace beyond, and never past its end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from keyhole.client.core import Result
from keyhole.core.errors import Expired, KeyholeError, NotFound

RENEW_AT = 2 / 3
SPREAD = 0.1
SERVED = 0.9
_MARGIN = 0.02  # part of the time before the end that is left for what is on its way
_FIRST_RETRY, _LAST_RETRY = 0.5, 15.0
_GROWN = 1.0  # seconds by which a renewal has to move the end to be one

Step = Literal["renew", "read"]


@dataclass(frozen=True, slots=True)
class Held:
    """A credential that was given out.

    Attributes:
        fields: of it.
        lease_id: empty for what is not leased.
        renewable: its lease can be renewed.
        began: when it, or its last renewal, was asked for.
        seconds: that it lives from then.
    """

    fields: Mapping[str, str] = field(repr=False)
    lease_id: str
    renewable: bool
    began: float
    seconds: float

    @property
    def end(self) -> float:
        """When it is over; never for what is not leased."""
        return self.began + self.seconds * (1 - _MARGIN) if self.lease_id else math.inf


@dataclass(slots=True)
class Tenure:
    """One credential after another, from one source.

    Attributes:
        path: of the source.
        grace: seconds beyond nine tenths for which it is served while nobody can be asked.
        unleased: seconds for which to rely on what has no lease of its own.
        random: a number from 0 to 1.
        version: grows with every new credential.
        held: the current one.
        failure: why the last try failed; ``None`` after one that did not.
        past: ids of leases that may still be alive.
    """

    path: str
    grace: float
    unleased: float
    random: Callable[[], float]
    version: int = 0
    held: Held | None = None
    failure: KeyholeError | None = None
    past: list[str] = field(default_factory=list)
    _next: float = 0.0
    _step: Step = "read"
    _tries: int = 0
    _away: float | None = None
    _asking: float | None = None

    def due(self) -> tuple[float, Step]:
        """When the next step is to be made, and which."""
        return self._next, self._step

    def asking(self, now: float) -> None:
        """A step begins. A server that does not answer yet is as good as away."""
        self._asking = now

    def read(self, result: Result, began: float) -> None:
        """A new credential is there. Raises ``NotFound`` for an answer without any field."""
        fields = _fields(result)
        if not fields:
            raise NotFound(f"nothing is at {self.path}", "look at it: keyhole leases list")
        if result.lease_id:
            self.past.append(result.lease_id)
        seconds = float(result.lease_duration) if result.lease_id else self.unleased
        if self.held is None or dict(self.held.fields) != fields or result.lease_id:
            self.version += 1
        self.held = Held(fields, result.lease_id, result.renewable, began, seconds)
        self._well()

    def renewed(self, result: Result, began: float) -> None:
        """The lease lives on; one that was not made longer is replaced when it is due again."""
        held = self.held
        if held is None:
            return
        after = Held(held.fields, held.lease_id, result.renewable, began, float(result.lease_duration))
        longer = after.began + after.seconds > held.began + held.seconds + _GROWN
        self.held = after if longer else held
        self._well()
        if not longer:
            self._next, self._step = began, "read"

    def unreachable(self, error: KeyholeError, now: float) -> None:
        """Nobody could be asked; it is tried again, later each time."""
        self.failure = error
        if self._away is None:
            self._away = now if self._asking is None else self._asking
        self._asking = None
        self._tries += 1
        wait = min(_FIRST_RETRY * 2 ** min(self._tries - 1, 16), _LAST_RETRY)
        self._next = now + wait * (0.5 + self.random())

    def refused(self, error: KeyholeError, now: float, *, gone: bool) -> None:
        """The vault said no: to a renewal, after which it is read anew at once, or to a reading, which is tried later.

        Args:
            error: what it said.
            now: of this moment.
            gone: the credential is dead, and is not served any more.
        """
        if gone:
            self.held = None
        if self._step == "renew":
            self.failure, self._away, self._asking = error, None, None
            self._next, self._step, self._tries = now, "read", 0
        else:
            self.unreachable(error, now)
            self._away = None

    def current(self, now: float) -> Held:
        """The credential, if it may be used now.

        Raises:
            Expired: there is none any more; says why none could be had.
        """
        held = self.held
        if held is not None and now < self.served_until():
            return held
        why = f": {self.failure.reason}" if self.failure is not None else ""
        raise Expired(f"the credential of {self.path} has ended, and there is no other yet{why}", "try again")

    def served_until(self) -> float:
        """When the current one is not served any more."""
        held = self.held
        if held is None:
            return 0.0
        until = held.began + held.seconds * SERVED
        alone = self._asking if self._away is None else self._away
        if alone is not None:
            until = max(until, alone + self.grace)
        return min(until, held.end)

    def _well(self) -> None:
        held = self.held
        self.failure, self._away, self._asking, self._tries = None, None, None, 0
        if held is not None:
            spread = (self.random() - 0.5) * SPREAD
            self._next = held.began + held.seconds * (RENEW_AT + spread)
            self._step = "renew" if held.lease_id and held.renewable else "read"


def _fields(result: Result) -> dict[str, str]:
    """The fields of an answer as texts; of a secret of KV those of the secret."""
    data = result.data
    inner = data.get("data")
    if isinstance(inner, Mapping) and set(data) <= {"data", "metadata"}:
        data = dict(inner)
    return {name: value if isinstance(value, str) else str(value) for name, value in data.items() if value is not None}

"""What this process counts of calls: how they ended, and how long each stage took, by org and service.

There is a series for each service that calls went through, never for what a request says by itself: no host, path or
agent is in it, and what is beyond the bounds is counted together as ``OTHER``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from typing import Any

from keyhole.core.errors import (
    AuditUnavailable,
    InternalError,
    ScrubFailedClosed,
    StoreUnavailable,
    UpstreamTimeout,
    UpstreamTls,
    UpstreamUnreachable,
)
from keyhole.core.timing import STAGES, Timing

BOUNDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Seconds; the upper ends of the buckets."""
SERVICES = 1000
"""Services with series of their own, of all orgs together; so that no org takes all, of one org ``SERVICES_OF_ORG``."""
SERVICES_OF_ORG = 250
OTHER = "(other)"
"""Stands for all services or orgs beyond the bounds; none can be called so."""
ORGS = 1000
ALL = "(all)"
"""Stands for all services of an org; none can be called so."""
_FAILED = frozenset(
    error.code
    for error in (
        UpstreamTls,
        UpstreamUnreachable,
        UpstreamTimeout,
        ScrubFailedClosed,
        StoreUnavailable,
        AuditUnavailable,
        InternalError,
    )
)
_ALLOWED = frozenset({"ok", "aborted"})


def outcome_of(code: str) -> str:
    """``allowed``, ``refused`` or ``failed``, by how a call ended."""
    if code in _ALLOWED:
        return "allowed"
    return "failed" if code in _FAILED else "refused"


class Histogram:
    """How often something took how long. Counts by bucket, the last one without an end."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    @property
    def number(self) -> int:
        """How many there were."""
        return sum(self.counts)

    def merge(self, other: Histogram) -> None:
        """Add all that another one has."""
        self.counts = [one + more for one, more in zip(self.counts, other.counts, strict=True)]
        self.seconds += other.seconds

    def quantile(self, part: float) -> float:
        """Seconds below which this part of them stayed, spread evenly within the bucket; 0 where there are none.

        Args:
            part: from 0 to 1.
        """
        rank, seen = part * self.number, 0
        for number, upper in enumerate(BOUNDS):
            count = self.counts[number]
            if count and seen + count >= rank:
                lower = BOUNDS[number - 1] if number else 0.0
                return lower + (upper - lower) * max(0.0, rank - seen) / count
            seen += count
        return BOUNDS[-1] if self.number else 0.0

    def add_state(self, state: Sequence[Any]) -> None:
        """Add what another process has: its counts and seconds."""
        counts, seconds = state
        self.counts = [one + int(more) for one, more in zip(self.counts, counts, strict=True)]
        self.seconds += float(seconds)

    def as_data(self) -> dict[str, float]:
        """Number, mean and percentiles, in seconds."""
        number = self.number
        parts = {f"p{part}": self.quantile(part / 100) for part in (50, 95, 99)}
        seconds = {"mean": self.seconds / number if number else 0.0, **parts}
        return {"count": number, **{name: round(value, 6) for name, value in seconds.items()}}


class ServiceFigures:
    """Of one service.

    Attributes:
        stages: one histogram a stage, in the order of ``STAGES``; a call counts in those that it came through.
        codes: how many calls ended with which code, ``ok`` among them.
        received: bytes of bodies from upstreams.
        sent: bytes of streams to upstreams.
    """

    __slots__ = ("codes", "received", "sent", "stages")

    def __init__(self) -> None:
        self.stages = tuple(Histogram() for _ in STAGES)
        self.codes: dict[str, int] = {}
        self.received = self.sent = 0

    def merge(self, other: ServiceFigures) -> None:
        """Add all that another one has."""
        for own, more in zip(self.stages, other.stages, strict=True):
            own.merge(more)
        for code, number in other.codes.items():
            self.codes[code] = self.codes.get(code, 0) + number
        self.received += other.received
        self.sent += other.sent

    def state(self) -> list[Any]:
        """JSON-ready, for ``add_state`` of another process."""
        stages = [[stage.counts, stage.seconds] for stage in self.stages]
        return [self.codes, self.received, self.sent, stages]

    def add_state(self, state: Sequence[Any]) -> None:
        """Add what another process has."""
        codes, received, sent, stages = state
        for code, number in codes.items():
            self.codes[code] = self.codes.get(code, 0) + int(number)
        self.received += int(received)
        self.sent += int(sent)
        for own, more in zip(self.stages, stages, strict=True):
            own.add_state(more)

    def as_data(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "calls": sum(self.codes.values()),
            "codes": dict(sorted(self.codes.items())),
            "received": self.received,
            "sent": self.sent,
            "stages": {name: stage.as_data() for name, stage in zip(STAGES, self.stages, strict=True)},
        }


class Queueing:
    """Adds the time of a block to the queue of a call."""

    __slots__ = ("_begun", "_figures", "_timing")

    def __init__(self, figures: CallFigures, timing: Timing) -> None:
        self._figures = figures
        self._timing = timing

    def __enter__(self) -> None:
        self._figures.waiting += 1
        self._begun = monotonic()

    def __exit__(self, *_error: object) -> None:
        self._figures.waiting -= 1
        self._timing.queue += monotonic() - self._begun


class CallFigures:
    """Of all calls of a process.

    Attributes:
        waiting: calls whose service's checks are being asked now.
    """

    def __init__(self) -> None:
        self.waiting = 0
        self._orgs: dict[str, dict[str, ServiceFigures]] = {}
        self._number = 0

    def refused(self, timing: Timing, code: str) -> None:
        """Count a call that ended before anything was lent; once, however often this is said."""
        if not timing.counted:
            timing.counted = True
            self._count(self._of(timing.org, timing.service), timing, code)

    def ended(self, timing: Timing, code: str, received: int, sent: int) -> None:
        """Count a call that was on its way, with its stages."""
        timing.counted = True
        figures = self._of(timing.org, timing.service)
        queue, vault, connect, upstream, scrub = figures.stages
        if seconds := timing.queue:
            queue.counts[bisect_left(BOUNDS, seconds)] += 1
            queue.seconds += seconds
        if seconds := timing.vault:
            vault.counts[bisect_left(BOUNDS, seconds)] += 1
            vault.seconds += seconds
        if seconds := timing.connect:
            connect.counts[bisect_left(BOUNDS, seconds)] += 1
            connect.seconds += seconds
        if seconds := timing.upstream:
            upstream.counts[bisect_left(BOUNDS, seconds)] += 1
            upstream.seconds += seconds
        if seconds := timing.scrub:
            scrub.counts[bisect_left(BOUNDS, seconds)] += 1
            scrub.seconds += seconds
        figures.received += received
        figures.sent += sent
        self._count(figures, timing, code)

    def tunnel_refused(self, org: str, service: str, code: str) -> None:
        """Count a tunnel that was refused, as a call."""
        self._count(self._of(org, service), Timing(), code)

    def queueing(self, timing: Timing) -> Queueing:
        """What is done in a block with this is waiting in the queue."""
        return Queueing(self, timing)

    @staticmethod
    def _count(figures: ServiceFigures, timing: Timing, code: str) -> None:
        figures.codes[code] = figures.codes.get(code, 0) + 1
        then, timing.then = timing.then, None
        if then is not None:
            then(code)

    def _of(self, org: str, service: str) -> ServiceFigures:
        services = self._orgs.get(org)
        if services is None and len(self._orgs) >= ORGS:
            org = OTHER
            services = self._orgs.get(org)
        if services is None:
            services = self._orgs[org] = {}
        figures = services.get(service)
        if figures is None:
            if service and (self._number >= SERVICES or len(services) >= SERVICES_OF_ORG):
                service = OTHER
            figures = services.get(service)
            if figures is None:
                figures = services[service] = ServiceFigures()
                self._number += 1
        return figures

    def services(self, org: str) -> dict[str, ServiceFigures]:
        """By name, of one org; by ``""`` the calls that no service was meant by."""
        return dict(sorted(self._orgs.get(org, {}).items()))

    def total(self, org: str) -> ServiceFigures:
        """All services of an org together."""
        return _total(self._orgs.get(org, {}).values())

    def state(self, org: str, *, others: bool) -> dict[str, Any]:
        """JSON-ready: the services of one org, and the sum of each other one if those are wanted."""
        found = {org: {name: figures.state() for name, figures in self.services(org).items()}}
        if others:
            found |= {other: {ALL: self.total(other).state()} for other in self.orgs() if other != org}
        return {"waiting": self.waiting if others else 0, "orgs": found}

    def add_state(self, state: Mapping[str, Any]) -> None:
        """Add what another process has."""
        self.waiting += int(state["waiting"])
        for org, services in state["orgs"].items():
            for name, figures in services.items():
                self._of(org, name).add_state(figures)

    def orgs(self) -> list[str]:
        """Orgs with calls, by name; ``""`` stands for who has shown no valid token."""
        return sorted(self._orgs)


def _total(figures: Iterable[ServiceFigures]) -> ServiceFigures:
    total = ServiceFigures()
    for each in figures:
        total.merge(each)
    return total

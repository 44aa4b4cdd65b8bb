"""What this process counts of its requests: how many, how they ended, how long they took, and which are running."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from keyhole.core.errors import InternalError, KeyholeError
from keyhole.core.identity import ROOT_ORG
from keyhole.core.record import clip
from keyhole.core.request import Reply, Request
from keyhole.core.times import format_time

if TYPE_CHECKING:
    from keyhole.vault.exposition import Gauge, Reading
    from keyhole.vault.figures import CallFigures

_SHOWN = 1000  # running requests that are listed


class Count:
    """Requests of one operation that ended in one way."""

    __slots__ = ("longest", "number", "seconds", "shortest")

    def __init__(self) -> None:
        self.number = 0
        self.seconds = self.shortest = self.longest = 0.0

    def add(self, seconds: float) -> None:
        """One more, that took so long."""
        self.shortest = min(self.shortest, seconds) if self.number else seconds
        self.longest = max(self.longest, seconds)
        self.number += 1
        self.seconds += seconds


class Meters:
    """Counts of a process.

    Attributes:
        started: seconds since the epoch.
        counts: by operation and result; the result is ``ok`` or an error code, so there are few.
        leases: how many were taken back, could not be, and became irrevocable, as ``Expiry.counts`` has them.
        logins: by type of the login method and result, ``ok`` or ``refused``.
        refused: how often an org or agent had its share of something, by what it was.
        due: work of engines that was due, by type of the engine and result.
        readings: give what else can be read of the process, when it is asked for.
        gather: gives the ``state`` of each other process that serves together with this one; ``None`` where none does.
    """

    def __init__(self, leases: Mapping[str, int], refused: Counter[str]) -> None:
        self.leases = leases
        self.refused = refused
        self.started = time.time()
        self.counts: dict[tuple[str, str], Count] = {}
        self.logins: Counter[tuple[str, str]] = Counter()
        self.due: Counter[tuple[str, str]] = Counter()
        self.readings: list[Reading] = []
        self.gather: Callable[[str, bool], Awaitable[list[dict[str, Any]]]] | None = None
        self._running: dict[int, tuple[float, Request]] = {}
        self._next = 0

    @cached_property
    def calls(self) -> CallFigures:
        """Calls of the broker."""
        from keyhole.vault.figures import CallFigures  # noqa: PLC0415  # a command makes none

        return CallFigures()

    async def counted(self, request: Request, answering: Awaitable[Reply]) -> Reply:
        """The answer to a request, which is counted; raises what it raises."""
        self._next = number = self._next + 1
        begun = time.monotonic()
        self._running[number] = (begun, request)
        result = "aborted"
        try:
            reply = await answering
            result = "ok"
        except Exception as error:
            result = error.code if isinstance(error, KeyholeError) else InternalError.code
            raise
        finally:
            del self._running[number]
            key = (request.operation, result)
            count = self.counts.get(key)
            if count is None:
                count = self.counts[key] = Count()
            count.add(time.monotonic() - begun)
        return reply

    @property
    def in_flight(self) -> int:
        """How many requests are running."""
        return len(self._running)

    def shown(self, now: float) -> dict[str, Any]:
        """The running requests, as ``sys/in-flight-req`` gives them; of a query or body nothing is shown."""
        elapsed = time.monotonic()
        return {
            str(number): {
                "start_time": format_time(now - (elapsed - begun)),
                "client_remote_address": request.remote,
                "request_path": f"/v1/{clip(request.path)}",
                "request_method": request.operation.value,
            }
            for number, (begun, request) in list(self._running.items())[:_SHOWN]
        }

    def counters(self) -> list[tuple[str, dict[str, str], int]]:
        """What only grows besides requests: name, labels and number."""
        leases = [("leases", {"result": result}, number) for result, number in sorted(self.leases.items())]
        logins = [
            ("logins", {"method": method, "result": result}, number)
            for (method, result), number in sorted(self.logins.items())
        ]
        due = [
            ("due", {"engine": engine, "result": result}, number)
            for (engine, result), number in sorted(self.due.items())
        ]
        shares = [("share_refusals", {"share": what}, number) for what, number in sorted(self.refused.items())]
        return leases + logins + due + shares

    def totals(self) -> list[str]:
        """``counters`` as lines of Prometheus."""
        from keyhole.vault.exposition import heading  # noqa: PLC0415  # short commands tell nobody figures

        families = ("due", "leases", "logins", "share_refusals")
        lines = {name: heading(f"keyhole_{name}_total", "counter") for name in families}
        for name, labels, number in self.counters():
            shown = ",".join(f'{key}="{value}"' for key, value in labels.items())
            lines[name].append(f"keyhole_{name}_total{{{shown}}} {number}")
        return [line for family in lines.values() for line in family]

    def state(self, org: str, *, others: bool) -> dict[str, Any]:
        """What this process counted of calls, JSON-ready: of one org, and of the others their sum if it is wanted."""
        from keyhole.vault.exposition import read  # noqa: PLC0415  # short commands tell nobody figures

        gauges = [list(gauge) for gauge in read(self.readings, org, others=others)]
        return {"calls": self.calls.state(org, others=others), "gauges": gauges}

    async def everywhere(self, org: str, *, others: bool) -> tuple[CallFigures, list[Gauge]]:
        """The same of all processes that serve together."""
        from keyhole.vault.exposition import Gauge, summed  # noqa: PLC0415  # as above

        states = [self.state(org, others=others)]
        if self.gather is not None:
            states += await self.gather(org, others)
        from keyhole.vault.figures import CallFigures  # noqa: PLC0415  # as above

        calls = CallFigures()
        for state in states:
            calls.add_state(state["calls"])
        return calls, summed(Gauge(*gauge) for state in states for gauge in state["gauges"])

    async def prometheus(self) -> str:
        """The counts in the text format of Prometheus 0.0.4, for the org root."""
        from keyhole.vault.exposition import exposition, heading  # noqa: PLC0415  # as above

        calls, gauges = await self.everywhere(ROOT_ORG, others=True)
        lines = [
            *heading("vault_core_unsealed", "gauge"),
            "vault_core_unsealed 1",
            *heading("vault_core_in_flight_requests", "gauge"),
            f"vault_core_in_flight_requests {self.in_flight}",
            *heading("keyhole_start_time_seconds", "gauge"),
            f"keyhole_start_time_seconds {self.started:.6f}",
            *heading("keyhole_request_seconds", "summary"),
        ]
        for (operation, result), count in sorted(self.counts.items()):
            labels = f'{{operation="{operation}",result="{result}"}}'
            lines.append(f"keyhole_request_seconds_count{labels} {count.number}")
            lines.append(f"keyhole_request_seconds_sum{labels} {count.seconds:.6f}")
        return "\n".join([*lines, *self.totals(), *exposition(calls, gauges, ROOT_ORG, others=True)]) + "\n"

    async def prometheus_of(self, org: str) -> str:
        """What is of one org alone, in the same format."""
        from keyhole.vault.exposition import exposition  # noqa: PLC0415  # as above

        calls, gauges = await self.everywhere(org, others=False)
        return "".join(f"{line}\n" for line in exposition(calls, gauges, org, others=False))

    def summary(self, now: float) -> dict[str, Any]:
        """The counts in Vault's own form."""
        gauges = (("vault.core.unsealed", 1), ("vault.core.in_flight_requests", self.in_flight))
        return {
            "Timestamp": format_time(now),
            "Gauges": [{"Name": name, "Value": value, "Labels": {}} for name, value in gauges],
            "Points": [],
            "Counters": [
                {"Name": f"keyhole.{name}", "Count": number, "Sum": number, "Labels": labels}
                for name, labels, number in self.counters()
            ],
            "Samples": [
                {
                    "Name": "keyhole.request",
                    "Count": count.number,
                    "Sum": count.seconds * 1000,
                    "Min": count.shortest * 1000,
                    "Max": count.longest * 1000,
                    "Mean": count.seconds * 1000 / count.number,
                    "Labels": {"operation": operation, "result": result},
                }
                for (operation, result), count in sorted(self.counts.items())
            ],
        }

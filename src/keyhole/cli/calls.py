"""Calls as their records tell of them: the beginning of one and its end, joined into one line. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from keyhole.core.record import Phase

RUNNING_AFTER = 1.0  # seconds after which a call without an end is shown
_MOST = 10_000  # calls under way that are known
_CALLS = frozenset({"use", "egress", "mint"})
_EVENTS = frozenset({"alarm", "approval"})
_APPROVAL = "approval_required"
_SECURE = ":443"
HEAD = ("TIME", "AGENT", "CALL", "STATUS", "MS", "")


@dataclass(frozen=True, slots=True)
class Line:
    """One line: a call that runs or has ended, or an alarm.

    Attributes:
        state: ``running``, ``done``, ``failed``, ``refused``, ``waiting`` or ``alarm``.
        record: the record that it was made of.
    """

    state: str
    record: Mapping[str, Any]

    @property
    def bad(self) -> bool:
        """Whether it is one that somebody should look at."""
        return self.state in {"refused", "failed", "waiting", "alarm"}

    def as_data(self) -> dict[str, Any]:
        """For programs."""
        record = self.record
        data = {
            "time": record["time"],
            "state": self.state,
            "id": record["id"],
            "agent": record.get("caller", ""),
            "operation": record.get("operation", ""),
            "method": record.get("method", ""),
            "host": record.get("host", ""),
            "path": record.get("target") or ("" if record.get("host") else record.get("path", "")),
            "parameters": record.get("parameters", []),
            "service": record.get("service", ""),
            "status": record.get("status", 0),
            "ms": record.get("milliseconds", 0),
            "masked": bool(record.get("scrubbed")),
            "result": record.get("result", ""),
        }
        for name in (
            "approval",
            "received",
            "sent",
            "count",
            "run",
            "step",
            "workflow",
            "tool",
            "on_behalf_of",
            "trace",
            "span",
        ):
            if record.get(name):
                data[name] = record[name]
        return data

    def cells(self) -> tuple[str, ...]:
        """What a person sees, in the order of ``HEAD``."""
        record = self.record
        moment = datetime.fromisoformat(record["time"]).astimezone()
        ended = self.state in {"done", "failed"}
        running = "…" if self.state == "running" else ""
        return (
            f"{moment:%H:%M:%S}",
            (record.get("caller") or "unknown").removeprefix("agent/"),
            self._call(),
            str(record.get("status") or "-") if ended else running,
            str(record.get("milliseconds", 0)) if ended else "",
            "  ".join(self._marks()),
        )

    def _call(self) -> str:
        record = self.record
        if self.state == "alarm":
            return str(record.get("result", ""))
        if record.get("host"):
            names = "&".join(f"{name}=" for name in record.get("parameters", ()))
            what = f"{record.get('method', '')} {record['host'].removesuffix(_SECURE)}{record.get('target', '')}"
            return what + (f"?{names}" if names else "")
        return f"{record.get('operation', '')} {record.get('path', '')}".strip() or "a request"

    def _marks(self) -> Iterator[str]:
        record = self.record
        if self.state == "alarm":
            yield "ALARM"
        elif self.state == "waiting":
            yield f"waits for approval: keyhole approve {record.get('approval', '')}"
        elif self.state == "refused":
            yield f"refused: {record.get('result', '')}"
        elif self.state == "failed":
            yield str(record.get("result", ""))
        if record.get("scrubbed"):
            yield "masked"
        if record.get("operation") == "mint":
            yield "mints a token"
        if record.get("operation") == "egress":
            yield "no service"
        if record.get("approval") and self.state == "done":
            yield "approved"
        if record.get("count"):
            yield f"{record['count']} times"
        if record.get("service"):
            yield str(record["service"])


class Calls:
    """Joins what the journal says of a call, by the id of its request."""

    def __init__(self) -> None:
        self._running: OrderedDict[str, tuple[float, Mapping[str, Any]]] = OrderedDict()
        self._shown: set[str] = set()
        self._waiting: OrderedDict[str, None] = OrderedDict()

    def feed(self, records: Iterable[Mapping[str, Any]], now: float) -> list[Line]:
        """The lines that these records make.

        Args:
            records: as ``sys/audit-log`` gives them, in order.
            now: monotonic seconds.
        """
        return [line for record in records if _matters(record) for line in self._take(record, now)]

    def _take(self, record: Mapping[str, Any], now: float) -> Iterator[Line]:
        phase, operation, name = record.get("phase"), record.get("operation", ""), str(record["id"])
        if phase == Phase.INTENT:
            self._running[name] = (now, record)
            while len(self._running) > _MOST:
                self._forget(next(iter(self._running)))
        elif phase == Phase.OUTCOME:
            self._forget(name)
            yield Line("done" if record.get("result") == "ok" else "failed", record)
        elif phase == Phase.EVENT:
            if operation == "approval":
                self._waiting[name] = None
                while len(self._waiting) > _MOST:
                    self._waiting.popitem(last=False)
            yield Line("alarm" if operation == "alarm" else "waiting", record)
        elif record.get("result") != _APPROVAL:
            yield Line("refused", record)
        elif name in self._waiting:  # what it waits for was a line already
            del self._waiting[name]
        else:
            yield Line("waiting", record)

    def _forget(self, name: str) -> None:
        self._running.pop(name, None)
        self._shown.discard(name)

    def running(self, now: float) -> list[Line]:
        """The calls that have run for a while now, each given once."""
        found = []
        for name, (since, record) in self._running.items():
            if now - since < RUNNING_AFTER:
                break
            if name not in self._shown:
                self._shown.add(name)
                found.append(Line("running", record))
        return found

    def patience(self, now: float, most: float) -> float:
        """Seconds until ``running`` has something to say, at most ``most``."""
        for name, (since, _) in self._running.items():
            if name not in self._shown:
                return min(most, max(0.0, since + RUNNING_AFTER - now))
        return most


def _matters(record: Mapping[str, Any]) -> bool:
    """Calls, whoever makes them; whatever else an agent does; and refusals of strangers."""
    if record.get("phase") == Phase.EVENT:
        return record.get("operation") in _EVENTS
    caller = str(record.get("caller", ""))
    return (
        record.get("operation") in _CALLS
        or caller.startswith("agent/")
        or (not caller and record.get("phase") == Phase.REFUSED)
    )

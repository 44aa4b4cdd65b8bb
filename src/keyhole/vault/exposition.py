"""Figures of calls in the text format of Prometheus 0.0.4.

What one org did is shown to that org, by service. Whoever may see the whole process sees of each other org the sum of
all its services, as ``service="(all)"``, and the name of none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from keyhole.core.timing import STAGES
from keyhole.vault.figures import ALL, BOUNDS, CallFigures, Histogram, ServiceFigures, outcome_of


class Gauge(NamedTuple):
    """Something that was read just now.

    Attributes:
        name: without the prefix; one that only grows ends in ``_total``.
        labels: with few values that nobody outside chooses.
        value: now.
        org: whose it is; ``None`` for what is of the whole process.
    """

    name: str
    labels: dict[str, str]
    value: float
    org: str | None = None


Reading = Callable[[], Iterable[Gauge]]
Labels = dict[str, str]
HELP = {
    "keyhole_api_responses_total": "Answers of the API, by status.",
    "keyhole_call_bytes_total": "Bytes of bodies and streams, received from upstreams or sent on streams.",
    "keyhole_call_stage_seconds": "Seconds that a call spent in a stage.",
    "keyhole_calls_open": "Calls under way, by what they are.",
    "keyhole_calls_total": "Calls by how they ended.",
    "keyhole_calls_waiting": "Calls that wait for a turn.",
    "keyhole_certificates_minted_total": "Certificates made for hosts of tunnels.",
    "keyhole_client_connections": "Connections of clients to the proxy.",
    "keyhole_due_total": "Work whose time had come, by engine and how it went.",
    "keyhole_leases_total": "Leases by what happened to them.",
    "keyhole_logins_total": "Logins by method and how they ended.",
    "keyhole_request_seconds": "Seconds that requests took, by operation and how they ended.",
    "keyhole_sealed": "Whether the vault is sealed.",
    "keyhole_share_refusals_total": "Refusals to who had used up a share, by what it was of.",
    "keyhole_start_time_seconds": "When the process started, in seconds since 1970.",
    "keyhole_upstream_connections": "Connections to upstreams, idle in the pool or busy.",
    "vault_core_in_flight_requests": "Requests under way.",
    "vault_core_unsealed": "Whether the vault is unsealed.",
}


def heading(name: str, kind: str) -> list[str]:
    """What stands before the lines of a family: what it means, and of which type it is."""
    return [f"# HELP {name} {HELP[name]}", f"# TYPE {name} {kind}"]


def read(readings: Iterable[Reading], org: str, *, others: bool) -> list[Gauge]:
    """What can be read now, for a reader of one org or of the whole process."""
    return [gauge for reading in readings for gauge in reading() if others or gauge.org == org]


def summed(gauges: Iterable[Gauge]) -> list[Gauge]:
    """Gauges of several processes as one of each."""
    found: dict[tuple[object, ...], Gauge] = {}
    for gauge in gauges:
        key = (gauge.name, gauge.org, *gauge.labels.items())
        known = found.get(key)
        found[key] = gauge if known is None else known._replace(value=known.value + gauge.value)
    return list(found.values())


def exposition(calls: CallFigures, gauges: Sequence[Gauge], org: str, *, others: bool) -> list[str]:
    """The lines for a reader of one org.

    Args:
        calls: counted so far.
        gauges: what was read besides.
        org: by name; its services are shown.
        others: whether the reader may see the whole process.
    """
    shown = [({"org": org, "service": name}, figures) for name, figures in calls.services(org).items()]
    if others:
        shown += [({"org": other, "service": ALL}, calls.total(other)) for other in calls.orgs() if other != org]
    if others:
        gauges = [*gauges, Gauge("calls_waiting", {}, calls.waiting)]
    return [*_counters(shown), *_histograms(shown), *_gauges(gauges)]


def _counters(shown: list[tuple[Labels, ServiceFigures]]) -> list[str]:
    lines = heading("keyhole_calls_total", "counter")
    for labels, figures in shown:
        for code, number in sorted(figures.codes.items()):
            lines.append(_line("calls_total", {**labels, "outcome": outcome_of(code), "code": code}, number))
    lines += heading("keyhole_call_bytes_total", "counter")
    for labels, figures in shown:
        lines.append(_line("call_bytes_total", {**labels, "direction": "received"}, figures.received))
        lines.append(_line("call_bytes_total", {**labels, "direction": "sent"}, figures.sent))
    return lines


def _histograms(shown: list[tuple[Labels, ServiceFigures]]) -> list[str]:
    lines = heading("keyhole_call_stage_seconds", "histogram")
    for labels, figures in shown:
        for name, stage in zip(STAGES, figures.stages, strict=True):
            lines += _histogram("call_stage_seconds", {**labels, "stage": name}, stage)
    return lines


def _histogram(name: str, labels: Labels, histogram: Histogram) -> list[str]:
    lines, seen = [], 0
    for bound, count in zip((*map(str, BOUNDS), "+Inf"), histogram.counts, strict=True):
        seen += count
        lines.append(_line(f"{name}_bucket", {**labels, "le": bound}, seen))
    lines.append(_line(f"{name}_sum", labels, round(histogram.seconds, 6)))
    lines.append(_line(f"{name}_count", labels, seen))
    return lines


def _gauges(gauges: Iterable[Gauge]) -> list[str]:
    lines, last = [], ""
    for gauge in sorted(gauges, key=lambda gauge: (gauge.name, gauge.org or "", *gauge.labels.items())):
        if gauge.name != last:
            last = gauge.name
            lines += heading(f"keyhole_{last}", "counter" if last.endswith("_total") else "gauge")
        labels = gauge.labels if gauge.org is None else {"org": gauge.org, **gauge.labels}
        lines.append(_line(gauge.name, labels, gauge.value))
    return lines


def _line(name: str, labels: Labels, value: float) -> str:
    shown = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
    return f"keyhole_{name}{{{shown}}} {value}" if shown else f"keyhole_{name} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

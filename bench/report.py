"""From raw numbers to medians, ratios and a table beside the targets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

Subjects = dict[str, dict[str, float]]
Rounds = dict[str, list[Subjects]]
Medians = dict[str, Subjects]
Value = Callable[[Subjects], float]


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes:
        case: where its numbers come from.
        title: what it says.
        value: from the medians of the case, by subject and name.
        first: target of the first release.
        goal: target beyond.
        less: smaller is better.
        unit: of value and targets.
        peer: it is left out where this one did not take part.
        cores: that have to be free, or the number says nothing of the subject and is not judged.
    """

    case: str
    title: str
    value: Value
    first: float
    goal: float
    less: bool = False
    unit: str = ""
    peer: str = ""
    cores: int = 0


def _between(one: str, other: str, name: str) -> Value:
    return lambda found: found[one][name] / found[other][name]


def _to_nginx(name: str) -> Value:
    return _between("keyhole", "nginx", name)


def _own(name: str) -> Value:
    return lambda found: found["keyhole"][name]


def _added(found: Subjects) -> float:
    direct = found["direct"]["p50"]
    return (found["keyhole"]["p50"] - direct) / (found["nginx"]["p50"] - direct)


LINES = (
    Line("plain-64", "plain, 64 connections: requests/s to nginx", _to_nginx("rate"), 0.3, 0.55),
    Line("tls-64", "TLS, 64 connections: requests/s to nginx", _to_nginx("rate"), 0.35, 0.75),
    *(
        Line(
            case,
            f"{words}, 64 connections: requests/s to {peer}",
            _between("keyhole", peer, "rate"),
            first,
            goal,
            peer=peer,
        )
        for peer, first, goal in (("mitmproxy", 10, 30), ("varlock", 20, 50))
        for case, words in (("plain-64", "plain"), ("tls-64", "TLS"))
    ),
    Line("plain-1", "plain, 1 connection: added p50 to nginx's", _added, 3, 2.2, less=True),
    Line("tls-1", "TLS, 1 connection: added p50 to nginx's", _added, 3, 2.2, less=True),
    Line("connect-16", "new CONNECT and TLS each, 16 at once: requests/s to nginx", _to_nginx("rate"), 0.8, 1),
    Line(
        "http2",
        "HTTP/2 of clients, 64 at once: requests/s to our HTTP/1.1",
        _between("http2", "http1", "rate"),
        0.2,
        0.5,
    ),
    Line("workers", "a second worker: requests/s to one's", _between("keyhole", "one", "rate"), 1.3, 1.8, cores=4),
    Line("stream", "first byte of a stream to nginx's", _to_nginx("first"), 1.5, 1.1, less=True),
    Line("stream", "delay per event to nginx's", _to_nginx("delay"), 1.5, 1.1, less=True),
    Line("large", "100 MB body: MB/s to nginx", _to_nginx("megabytes"), 0.5, 0.9),
    Line("large", "100 MB body: growth of memory", _own("growth_mb"), 8, 2, less=True, unit=" MB"),
    Line("idle", "memory with 1,000 idle tunnels", _own("rss_mb"), 120, 80, less=True, unit=" MB"),
    Line("audited", "audited reads, door, 64 at once: to fdatasync/s", _between("door", "disk", "rate"), 2.5, 6),
    *(
        Line(
            f"api-{asked}-8", f"{title}, API, 8 connections: requests/s to nginx, file", _to_nginx("rate"), first, goal
        )
        for asked, title, first, goal in (
            ("read", "KV v2 read", 0.028, 0.07),
            ("write", "KV v2 write", 0.012, 0.04),
            ("encrypt", "transit encrypt", 0.028, 0.07),
            ("login", "AppRole login", 0.015, 0.04),
            ("create", "token create", 0.008, 0.02),
        )
    ),
    Line(
        "leases-end",
        "leases ending within 2 s: last user gone from PostgreSQL",
        _own("last"),
        15,
        3,
        less=True,
        unit=" s",
    ),
    Line("leases-burst", "10 times as many ending in 1 s: p99 of the API", _own("p99"), 0.5, 0.2, less=True, unit=" s"),
    Line("leases-burst", "10 times as many ending in 1 s: last one gone", _own("last"), 120, 60, less=True, unit=" s"),
    Line(
        "leases-many",
        "start over very many leases to one over none",
        _between("keyhole", "empty", "start"),
        1.5,
        1.1,
        less=True,
    ),
    Line("scrubbing", "log with known values in it", lambda found: found["known"]["dirty"], 50, 200, unit=" MB/s"),
    Line("scrubbing", "log, shapes of credentials", lambda found: found["shapes"]["dirty"], 20, 40, unit=" MB/s"),
    *(
        Line("growth", f"growth, {title}", _between("keyhole", "small", what), 1.5, 1.1, less=True)
        for what, title in (
            ("call", "p50 of a call"),
            ("read", "p50 of a KV v2 read"),
            ("write", "p50 of a KV v2 write"),
            ("first", "first call after the configuration changed"),
        )
    ),
    Line("cli", "keyhole --help to python -c pass", _between("help", "python", "seconds"), 10, 6, less=True),
    Line("cli", "keyhole list, key file, to python -c pass", _between("list", "python", "seconds"), 10, 6, less=True),
)


def medians(rounds: Rounds) -> Medians:
    """The median of each number over the rounds."""
    found: Medians = {}
    for case, results in rounds.items():
        found[case] = {
            subject: {name: median(result[subject][name] for result in results) for name in numbers}
            for subject, numbers in results[0].items()
        }
    return found


def ratios(found: Medians) -> list[dict[str, Any]]:
    """Each line whose case was measured."""
    lines = []
    for line in LINES:
        if found.get(line.case) and (not line.peer or line.peer in found[line.case]):
            value = line.value(found[line.case])
            reached = [value <= target if line.less else value >= target for target in (line.first, line.goal)]
            judged = found[line.case].get("machine", {}).get("free", line.cores) >= line.cores
            lines.append({**asdict(line), "value": value, "reached": reached if judged else []})
    return lines


def table(lines: list[dict[str, Any]]) -> str:
    """The ratios as a Markdown table."""
    rows = ["| what | here | first release | goal |", "|---|---|---|---|"]
    for line in lines:
        sign = "<=" if line["less"] else ">="
        marks = ["reached" if reached else "missed" for reached in line["reached"]]
        marks = marks or [f"not judged, {line['cores']} cores were not free"] * 2
        rows.append(
            f"| {line['title']} | {line['value']:.3g}{line['unit']} | {sign} {line['first']:g}: {marks[0]} "
            f"| {sign} {line['goal']:g}: {marks[1]} |"
        )
    return "\n".join(rows)


def details(found: Medians) -> str:
    """The medians themselves."""
    rows = []
    for case, subjects in found.items():
        for subject, numbers in subjects.items():
            text = "  ".join(f"{name} {value:,.6g}" for name, value in numbers.items())
            rows.append(f"{case:12} {subject:8} {text}")
    return "\n".join(rows)

"""``audit``: who used what, and proof that the journal is whole."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from keyhole.cli.base import Session, group, pass_session
from keyhole.core.errors import InvalidRequest

VIOLATED = 1
_POLL = 1.0
_SELF = "sys/audit-log"
F = TypeVar("F", bound=Callable[..., Any])


@group("audit", examples="keyhole audit tail -f\nkeyhole audit query --secret stripe/api-key\nkeyhole audit verify")
def audit() -> None:
    """Who used what, and proof that the journal is whole."""


def _filters(function: F) -> F:
    options = (
        click.option("--secret", metavar="NAME", help="Records of this secret."),
        click.option("--agent", metavar="NAME", help="Records of this agent, or of user/NAME."),
        click.option("--service", metavar="NAME", help="Calls through this service."),
        click.option("--run", metavar="ID", help="Records of this run."),
        click.option("--step", metavar="ID", help="Records of this step."),
        click.option("--result", metavar="CODE", help="ok, or an error code such as policy_denied."),
        click.option("--operation", metavar="NAME", help="use, read, alarm and so on."),
        click.option("--after", metavar="TIME", help="From this time on, such as 2027-01-31T12:00:00Z."),
        click.option("--before", metavar="TIME", help="Up to this time."),
    )
    for option in reversed(options):
        function = option(function)
    return function


@audit.command("query", examples="keyhole audit query --agent coder --result policy_denied --limit 20 --json")
@_filters
@click.option("--limit", type=click.IntRange(1, 100_000), metavar="N", help="The latest N; 100 unless said.")
@pass_session
def query(session: Session, /, **wanted: Any) -> None:
    """The latest records that match, oldest first."""
    records = _records(session, wanted)
    session.out.result(records, (line(record) for record in records))


@audit.command("tail", examples="keyhole audit tail\nkeyhole audit tail -f --agent coder")
@_filters
@click.option("-n", "--limit", type=click.IntRange(1, 100_000), metavar="N", default=20, help="20 unless said.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is added, until Ctrl-C.")
@pass_session
def tail(session: Session, /, *, follow: bool, **wanted: Any) -> None:
    """The latest records, and with -f those that follow. With --json one record a line."""
    seen: set[tuple[int, int]] = set()
    while True:
        records = _records(session, wanted)
        for record in records:
            place = (record["writer"], record["sequence"])
            # Whoever watches is recorded too; watching that would never end.
            if place not in seen and not (follow and record.get("path") == _SELF):
                session.out.result(record, line(record))
        seen = {(record["writer"], record["sequence"]) for record in records}
        if not follow:
            return
        if records:
            wanted["after"] = records[-1]["time"]
        wanted["limit"] = 100_000
        time.sleep(_POLL)


def _records(session: Session, wanted: dict[str, Any]) -> list[dict[str, Any]]:
    asked = {name: str(value) for name, value in wanted.items() if value is not None}
    records: list[dict[str, Any]] = session.client.read("sys/audit-log", **asked).data["records"]
    return records


def line(record: dict[str, Any]) -> str:
    """One record for a person."""
    what = [record["time"], record["phase"], record.get("result") or "-", record.get("caller") or "unknown"]
    what += [record.get("operation", ""), record.get("path", "")]
    if record.get("host"):
        what.append(f"{record.get('method', '')} {record['host']}{record.get('target', '')}")
    what += [
        f"{name}={record[name]}"
        for name in ("status", "approval", "scrubbed", "count", "workflow", "run", "step", "tool")
        if record.get(name)
    ]
    if record.get("secrets"):
        what.append(f"secrets={','.join(record['secrets'])}")
    return " ".join(part for part in what if part)


@audit.command(
    "verify", examples="keyhole audit verify\nkeyhole audit verify --anchor checkpoint.json   # kept elsewhere"
)
@click.option("--anchor", metavar="FILE", help="An older checkpoint; without one a cut tail cannot be excluded.")
@pass_session
def verify(session: Session, /, *, anchor: str | None) -> int:
    """Check every chain and signature of the journal.

    Exit code 0 if nothing is wrong, 1 if something is, with the writer and the sequence of each problem.
    """
    data = session.client.write("sys/audit-log/verify", {"checkpoint": _anchor(anchor)} if anchor else {}).data
    lines = [f"{'whole' if data['valid'] else 'NOT whole'}: {data['records']} records"]
    lines += [_place("problem", problem) for problem in data["problems"]]
    lines += [_place("note", anomaly) for anomaly in data["anomalies"]]
    if not anchor:
        lines.append(
            "without --anchor a cut tail cannot be excluded; keep checkpoints elsewhere: keyhole audit checkpoint"
        )
    session.out.result(data, lines)
    return 0 if data["valid"] else VIOLATED


def _place(kind: str, entry: dict[str, Any]) -> str:
    more = "; ".join(str(value) for name, value in entry.items() if name not in {"writer", "sequence"})
    return f"  {kind}: writer {entry.get('writer', '-')}, sequence {entry.get('sequence', '-')}: {more}"


def _anchor(path: str) -> dict[str, Any]:
    try:
        data = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}", "check --anchor") from None
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise InvalidRequest(f"{path} is no checkpoint", "give the file that keyhole audit checkpoint wrote")
    return data


@audit.command("checkpoint", examples="keyhole audit checkpoint > checkpoint.json")
@pass_session
def checkpoint(session: Session, /) -> None:
    """Signed heads of all chains, as JSON. Keep it where the vault's administrators cannot reach."""
    data = session.client.read("sys/audit-log/checkpoint").data
    session.out.result(data, json.dumps(data))

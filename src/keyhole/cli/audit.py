"""``audit``: who used what, and proof that the journal is whole."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from keyhole.cli.base import Session, group, pass_session
from keyhole.cli.names import agents, secrets, services
from keyhole.cli.uses import HEAD, cells, uses
from keyhole.core.errors import InvalidRequest
from keyhole.core.times import parse_moment

VIOLATED = 1
WAIT = 20.0  # seconds for which a request for further records waits
_PACE = 0.5  # seconds between two requests, each of which is recorded
_SELF = "sys/audit-log"
_BEGINNING = "beginning"  # instead of the cursor of an earlier answer
_PARTS = 4  # of a traceparent
_FIRST, _MOST = 1000, 100_000  # records of one question
F = TypeVar("F", bound=Callable[..., Any])


@group("audit", examples="keyhole audit tail -f\nkeyhole audit query --secret stripe/api-key\nkeyhole audit verify")
def audit() -> None:
    """Who used what, and proof that the journal is whole."""


between = click.option(
    "--between", nargs=2, metavar="FROM TO", help="From one time to another; a date is its beginning."
)
"""An option for a window of time; ``window`` reads it."""


def window(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for, with a window in place of ``--between``. Raises ``InvalidRequest``."""
    asked = {name: value for name, value in wanted.items() if name != "between"}
    if wanted.get("between"):
        if asked.get("after") or asked.get("before"):
            raise InvalidRequest("--between says both ends already", "leave --after and --before out")
        asked["after"], asked["before"] = wanted["between"]
    return asked


def _filters(function: F) -> F:
    options = (
        click.option("--secret", shell_complete=secrets, metavar="NAME", help="Records of this secret."),
        click.option("--agent", shell_complete=agents, metavar="NAME", help="Records of this agent, or of user/NAME."),
        click.option("--service", shell_complete=services, metavar="NAME", help="Calls through this service."),
        click.option("--workflow", metavar="NAME", help="Records of this workflow."),
        click.option("--run", metavar="ID", help="Records of this run."),
        click.option("--step", metavar="ID", help="Records of this step."),
        click.option("--tool", metavar="NAME", help="Records of this tool."),
        click.option("--on-behalf-of", metavar="PERSON", help="Records of work for this person."),
        click.option("--trace", metavar="ID", help="Records of this W3C trace: its id, or a traceparent."),
        click.option("--result", metavar="CODE", help="ok, or an error code such as policy_denied."),
        click.option("--operation", metavar="NAME", help="use, read, alarm and so on."),
        click.option("--after", metavar="TIME", help="From this time on, such as 2027-01-31T12:00:00Z."),
        click.option("--before", metavar="TIME", help="Up to this time."),
        between,
    )
    for option in reversed(options):
        function = option(function)
    return function


@audit.command(
    "query",
    examples="keyhole audit query --agent coder --result policy_denied --limit 20 --json\n"
    "keyhole audit query --secret stripe/api-key --between 2027-01-31 2027-02-01T12:00:00Z",
)
@_filters
@click.option("--limit", type=click.IntRange(1, 100_000), metavar="N", help="The latest N; 100 unless said.")
@pass_session
def query(session: Session, /, **wanted: Any) -> None:
    """The latest records that match, oldest first."""
    records = _records(session, wanted)
    session.out.result(records, (line(record) for record in records))


@audit.command(
    "uses",
    examples="keyhole audit uses --run 4711\nkeyhole audit uses --run 4711 --step charge --json\n"
    "keyhole audit uses --secret stripe/api-key --after 2027-01-31",
)
@_filters
@click.option(
    "--limit", type=click.IntRange(1, 50_000), metavar="N", default=1000, help="The latest N; 1000 unless said."
)
@pass_session
def uses_command(session: Session, /, *, limit: int, **wanted: Any) -> None:
    """Which credential was used by which step, when, for what, and with what result. One line a use, oldest first.

    A use is a call through a service or a tool, a revealed secret, or leased credentials. What was begun and has not
    ended says so.
    """
    size = max(_FIRST, 2 * limit)  # most records are of no use, so how many there must be is not known
    while True:
        records = _records(session, {**wanted, "limit": size})
        found, whole = uses(records)[-limit:], len(records) < size
        if whole or len(found) == limit or size == _MOST:
            break
        size = min(8 * size, _MOST)
    session.out.table(found, HEAD, [cells(use) for use in found], empty="no credential was used there")
    if not whole and len(found) < limit:
        session.out.warn(f"only the latest {size} records were looked at: narrow them with --between, --run or --agent")


@audit.command("tail", examples="keyhole audit tail\nkeyhole audit tail -f --agent coder")
@_filters
@click.option("-n", "--limit", type=click.IntRange(1, 100_000), metavar="N", default=20, help="20 unless said.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is added, until Ctrl-C.")
@pass_session
def tail(session: Session, /, *, follow: bool, **wanted: Any) -> None:
    """The latest records, and with -f those that follow. With --json one record a line."""
    for records in followed(session, wanted) if follow else [_records(session, wanted)]:
        for record in records:
            # Whoever watches is recorded too; watching that would never end.
            if not (follow and record.get("path") == _SELF):
                session.out.result(record, line(record))
        sys.stdout.flush()


@audit.command(
    "export",
    examples="keyhole audit export > audit.jsonl\n"
    "keyhole audit export --between 2027-01-01 2027-02-01 --agent coder | gzip > january.jsonl.gz",
)
@_filters
@pass_session
def export(session: Session, /, **wanted: Any) -> None:
    """All records that match, oldest first, each a JSON object on a line of its own.

    It ends with the records that are there when it begins. Names of secrets stand in it, and no value. What proves that
    nothing was left out is keyhole audit verify, with a checkpoint.
    """
    asked = window(wanted)
    [newest] = _records(session, {"limit": 1})
    now = newest["time"]
    if not asked.get("before") or parse_moment(asked["before"]) > parse_moment(now):
        asked["before"] = now
    asked |= {"cursor": _BEGINNING, "whole": "true"}
    count = 0
    while (data := _ask(session, asked))["records"]:
        session.out.lines(data["records"])
        count += len(data["records"])
        asked["cursor"] = data["cursor"]
    session.out.say(f"exported {count} records")


def _records(session: Session, wanted: Mapping[str, Any]) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = _ask(session, wanted)["records"]
    return records


def followed(
    session: Session, wanted: Mapping[str, Any], patience: Callable[[], float] = lambda: WAIT
) -> Iterator[list[dict[str, Any]]]:
    """The latest records that match, then those that follow as they come, none twice and none left out.

    Args:
        session: asks.
        wanted: parameters of ``sys/audit-log``; ``limit`` is for the first answer.
        patience: seconds after which an answer without any records is wanted.
    """
    data = _ask(session, wanted)
    yield data["records"]
    wanted = {name: value for name, value in wanted.items() if name != "limit"}
    while True:
        begun = time.monotonic()
        wait = math.ceil(max(0.0, patience()))
        data = _ask(session, {**wanted, "cursor": data["cursor"], "wait": f"{wait}s"})
        yield data["records"]
        time.sleep(max(0.0, _PACE - (time.monotonic() - begun)))


def _ask(session: Session, wanted: Mapping[str, Any]) -> dict[str, Any]:
    asked = {name: str(value) for name, value in window(wanted).items() if value is not None}
    if len(parts := asked.get("trace", "").split("-")) == _PARTS:
        asked["trace"] = parts[1]
    return session.client.read(_SELF, **asked).data


def line(record: dict[str, Any]) -> str:
    """One record for a person."""
    what = [record["time"], record["phase"], record.get("result") or "-", record.get("caller") or "unknown"]
    what += [record.get("operation", ""), record.get("path", "")]
    if record.get("host"):
        what.append(f"{record.get('method', '')} {record['host']}{record.get('target', '')}")
    what += [
        f"{name}={record[name]}"
        for name in (
            "status",
            "approval",
            "scrubbed",
            "count",
            "workflow",
            "run",
            "step",
            "tool",
            "on_behalf_of",
            "claimed",
            "trace",
        )
        if record.get(name)
    ]
    if record.get("secrets"):
        what.append(f"secrets={','.join(record['secrets'])}")
    what += [f"{name}={record[name]}" for name in ("lease", "remote") if record.get(name)]
    return " ".join(part for part in what if part)


@audit.command(
    "verify", examples="keyhole audit verify\nkeyhole audit verify --anchor checkpoint.json   # kept elsewhere"
)
@click.option("--anchor", metavar="FILE", help="An older checkpoint; without one a cut tail cannot be excluded.")
@click.option("--since", is_flag=True, help="With --anchor: check only what came after that checkpoint.")
@pass_session
def verify(session: Session, /, *, anchor: str | None, since: bool) -> int:
    """Check every chain and signature of the journal.

    Exit code 0 if nothing is wrong, 1 if something is, with the writer and the sequence of each problem.
    """
    if since and not anchor:
        raise InvalidRequest("--since needs a checkpoint", "keyhole audit verify --anchor FILE --since")
    wanted = {"checkpoint": _anchor(anchor), "since": since} if anchor else {}
    data = session.client.write("sys/audit-log/verify", wanted).data
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
    except (ValueError, RecursionError):
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

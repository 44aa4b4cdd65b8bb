"""``tail``: what agents do right now, a line for each call."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import click

from keyhole.cli.audit import WAIT, followed
from keyhole.cli.base import Session, command, pass_session
from keyhole.cli.calls import HEAD, Calls, Line
from keyhole.cli.capture import Recorder
from keyhole.cli.har import HarFile, entry_of_record
from keyhole.cli.names import agents, services
from keyhole.cli.output import coloured, printable
from keyhole.core.errors import KeyholeError

_WIDTHS = (8, 12, 44, 6, 6)
_RIGHT = (3, 4)
_RECORDS = 20  # for a line of the beginning, of which most come of two records
_COLOURS = {"alarm": "\x1b[1;31m", "refused": "\x1b[31m", "failed": "\x1b[31m", "waiting": "\x1b[33m"}
_MASKED, _FAINT, _BOLD, _PLAIN = "\x1b[35m", "\x1b[2m", "\x1b[1m", "\x1b[0m"


@command(
    "tail",
    examples="keyhole tail\nkeyhole tail --agent coder --refused\nkeyhole tail -n 50 --no-follow\nkeyhole tail --json",
)
@click.option("--agent", shell_complete=agents, metavar="NAME", help="Calls of this agent, or of user/NAME.")
@click.option("--service", shell_complete=services, metavar="NAME", help="Calls through this service.")
@click.option("--run", metavar="ID", help="Calls of this run.")
@click.option("--refused", is_flag=True, help="Only what was refused, failed, waits for approval, or is an alarm.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(0, 1000),
    metavar="N",
    default=10,
    help="Begin with the latest N; 10 unless said.",
)
@click.option("--har", metavar="FILE", help="Write the calls from now on to a HAR file, without any value.")
@click.option("--follow/--no-follow", default=True, help="Go on until Ctrl-C, or end after the latest.")
@pass_session
def tail_command(session: Session, /, **wanted: Any) -> None:
    """What agents do right now: time, agent, call, status, milliseconds, and what is special about it.

    A call that takes longer than a second is shown with "…" while it runs, and again when it has ended. With --json a
    line is an object.
    """
    with _har(session, wanted) as keep:
        _follow(session, wanted, keep)


def _follow(session: Session, wanted: Mapping[str, Any], keep: Callable[[Sequence[Line]], None]) -> None:
    out = _Printer(session, refused=wanted["refused"])
    calls = Calls()
    asked = {"agent": wanted["agent"], "service": wanted["service"], "run": wanted["run"]}
    asked["limit"] = max(1, wanted["lines"] * _RECORDS)
    first = True
    for records in followed(session, asked, lambda: calls.patience(time.monotonic(), WAIT)):
        lines = calls.feed(records, time.monotonic())
        if first:
            out.head()  # whoever sees it knows that what comes from now on is shown, and kept
            out.lines(out.wanted(lines)[-wanted["lines"] :] if wanted["lines"] else [])
            first = False
            if not wanted["follow"]:
                out.lines(out.wanted(calls.running(math.inf)))
                return
        else:
            keep(lines)
            out.lines(out.wanted(lines))
        out.lines(out.wanted(calls.running(time.monotonic())))


@contextmanager
def _har(session: Session, wanted: Mapping[str, Any]) -> Iterator[Callable[[Sequence[Line]], None]]:
    """What keeps the lines in a file: of a server what its broker notes of the calls, else what their records say."""
    path, refused, service = wanted["har"], wanted["refused"], wanted["service"]
    agent = wanted["agent"] or ""
    if path is None:
        yield lambda _: None
        return

    def wants(call: Mapping[str, Any]) -> bool:
        return (
            (not agent or call["agent"] in {agent, f"agent/{agent}"})
            and (not service or call["service"] == service)
            and (not refused or call["result"] != "ok")
        )

    with HarFile(path) as file:
        if not session.where.remote:
            session.out.warn("headers and times of a local vault's calls are known to keyhole run --capture FILE only")
            yield lambda lines: file.add(
                entry_of_record(line.record) for line in lines if _is_call(line) and (line.bad or not refused)
            )
            return
        recorder = Recorder(session.client, file, wants=wants)
        try:
            yield lambda _: recorder.read()
        finally:
            try:
                recorder.end()
            except KeyholeError as error:
                session.out.warn(f"the rest of the calls could not be read: {error}")


def _is_call(line: Line) -> bool:
    return line.state != "running" and bool(line.record.get("host")) and line.record.get("phase") != "event"


class _Printer:
    def __init__(self, session: Session, *, refused: bool) -> None:
        self._out = session.out
        self._refused = refused
        self._colours = coloured(sys.stdout)

    def head(self) -> None:
        """What the columns are."""
        if not self._out.json:
            click.echo(self._styled(_joined(HEAD), _BOLD))
            sys.stdout.flush()

    def wanted(self, lines: Sequence[Line]) -> list[Line]:
        """Those that were asked for."""
        return [line for line in lines if line.bad or not self._refused]

    def lines(self, lines: Sequence[Line]) -> None:
        """Print them."""
        for line in lines:
            if self._out.json:
                self._out.result(line.as_data())
            else:
                click.echo(self._styled(printable(_joined(line.cells())), _style(line)))
        sys.stdout.flush()

    def _styled(self, text: str, style: str) -> str:
        return f"{style}{text}{_PLAIN}" if style and self._colours else text


def _style(line: Line) -> str:
    if line.state == "running":
        return _FAINT
    return _COLOURS.get(line.state) or (_MASKED if line.record.get("scrubbed") else "")


def _joined(cells: Sequence[str]) -> str:
    padded = [
        cell.rjust(width) if number in _RIGHT else cell.ljust(width)
        for number, (cell, width) in enumerate(zip(cells, _WIDTHS, strict=False))
    ]
    return "  ".join([*padded, cells[-1]]).rstrip()

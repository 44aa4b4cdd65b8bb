"""``report``: who has access to what, and what nobody needs; as a table, JSON or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from keyhole.cli.audit import between, window
from keyhole.cli.base import Session, group, pass_session
from keyhole.cli.names import agents, secrets
from keyhole.cli.output import printable

_ACCESS = ("secret", "caller", "uses_through", "may", "uses", "reads", "changes", "refused", "first", "last")
_MORE = ("used_through", "active")  # what a table has no room for
_STALE = ("kind", "name", "why", "owner", "created", "rotated_at", "expires_at", "last")
_OBEYED = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # noqa: RUF001 - begins a spreadsheet's formula (OWASP)
_SECOND = len("2027-01-31T12:00:00")
_format = click.option(
    "--format", "form", type=click.Choice(["text", "json", "csv"]), help="text unless said, or json with --json."
)
_limit = click.option("--limit", type=click.IntRange(1, 100_000), metavar="N", help="Rows at most; 1000 unless said.")


@group("report", examples="keyhole report access --agent coder\nkeyhole report stale --days 90 --format csv")
def report() -> None:
    """Who has access to what, and what nobody needs. Names, times and counts, never values."""


@report.command(
    "access",
    examples="keyhole report access --secret stripe/api-key\n"
    "keyhole report access --agent user/ann            # she leaves: which keys did she have?\n"
    "keyhole report access --between 2027-01-01 2027-04-01 --format csv",
)
@click.option("--secret", shell_complete=secrets, metavar="NAME", help="Of this secret, or of a /SOURCE.")
@click.option("--agent", shell_complete=agents, metavar="NAME", help="Of this agent, or of user/NAME.")
@between
@_limit
@_format
@pass_session
def access_command(session: Session, /, *, form: str | None, **wanted: Any) -> None:
    """Who can use and read each credential now, and who did in the last 90 days or a window of your own.

    A credential that somebody has read is known to them; one that was only used is not.
    """
    data = _ask(session, "access", wanted)
    rows = [
        [
            row["secret"],
            row["caller"] + ("" if row["active"] else " (no token)"),
            *(_short(row[name]) for name in _ACCESS[2:]),
        ]
        for row in data["rows"]
    ]
    _show(session, form, data, (*_ACCESS, *_MORE), rows, _ACCESS, "nobody can use any credential, and nobody did")
    if form in {None, "text"} and not session.out.json:
        if data["everything"]:
            session.out.say(f"may do everything: {', '.join(data['everything'])}")
        read = sorted({row["secret"] for row in data["rows"] if row["reads"]})
        if wanted["agent"] and read:
            session.out.say(f"{wanted['agent']} has read {len(read)}, and knows what they were: {', '.join(read)}")


@report.command(
    "stale", examples="keyhole report stale\nkeyhole report stale --days 30 --why unused,expired --format csv"
)
@click.option("--days", type=click.IntRange(1, 3660), metavar="N", help="Without a use for so long; 90 unless said.")
@click.option("--why", metavar="REASON,…", help="For these reasons only, such as unused or expired.")
@_limit
@_format
@pass_session
def stale_command(session: Session, /, *, form: str | None, **wanted: Any) -> None:
    """Secrets nobody uses, without an end or a new value; services, tokens and agents without a use.

    Reasons: expired, rotation_due, unused, never_used, inactive, never_rotated, no_expiry.
    """
    data = _ask(session, "stale", wanted)
    rows = [[_short(row[name]) for name in _STALE] for row in data["rows"]]
    _show(session, form, data, _STALE, rows, _STALE, "nothing lies here unused")


def _ask(session: Session, name: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    asked = {key: str(value) for key, value in window(wanted).items() if value is not None}
    data: dict[str, Any] = session.client.read(f"sys/reports/{name}", **asked).data
    if data["more"]:
        session.out.warn(f"there are more rows than these {len(data['rows'])}: give --limit, or ask for less")
    if not data["complete"]:
        session.out.warn("the journal has more names than a report counts: ask for a shorter time")
    return data


def _show(
    session: Session,
    form: str | None,
    data: Mapping[str, Any],
    fields: Sequence[str],
    rows: Iterable[Sequence[object]],
    head: Sequence[str],
    empty: str,
) -> None:
    if form == "csv":
        click.echo(as_csv(fields, data["rows"]), nl=False)
        return
    session.out.json = session.out.json if form is None else form == "json"
    session.out.table(data, [name.replace("_", " ") for name in head], rows, empty=empty)


def as_csv(fields: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows as CSV (RFC 4180) with a header; no cell is a formula to a spreadsheet, and none has control characters."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(fields)
    writer.writerows([_cell(row[name]) for name in fields] for row in rows)
    return text.getvalue()


def _cell(value: object) -> str:
    text = printable(_plain(value)).replace("\n", "\\n").replace("\t", "\\t")
    return f"'{text}" if text.lstrip().startswith(_OBEYED) else text


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return " ".join(map(str, value)) if isinstance(value, list) else str(value if value is not None else "")


def _short(value: object) -> str:
    """A value as a table shows it: times to the second."""
    text = _plain(value)
    return f"{text[:_SECOND]}Z" if text[10:11] == "T" and text.endswith("Z") and len(text) > _SECOND else text or "-"

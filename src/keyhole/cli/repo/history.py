"""``repo history`` and ``repo rollback``."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

from keyhole.cli.base import Session, pass_session
from keyhole.cli.repo.noun import repo
from keyhole.cli.repo.past import past_of
from keyhole.cli.repo.place import Place, place_options
from keyhole.core.value import Secret
from keyhole.crypto.age import Identity
from keyhole.repo.documents import instant
from keyhole.repo.happened import Happened, happened
from keyhole.repo.history import Version, history, open_version, require_current, roll_back
from keyhole.repo.opened import Opened
from keyhole.repo.reads import record


@repo.command("history", examples="keyhole repo history stripe/api-key\nkeyhole repo history --limit 20 --json")
@click.argument("name", required=False, default="")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=100, metavar="N", help="At most so many; 100 unless said."
)
@place_options
@pass_session
def history_command(session: Session, /, *, name: str, limit: int, directory: str, key_file: str) -> None:
    """The versions of a secret, or without a name what happened to members and secrets, newest first. No value."""
    place = Place(session, directory, key_file)
    opened, past = place.open(), past_of(session, place)
    if not name:
        _show_all(session, opened, happened(opened, past, limit))
        return
    found = history(opened, past, name)
    versions = found.versions[:limit]
    data = {"name": opened.shown(found.name), "versions": [_data(each) for each in versions], "lost": found.lost}
    rows = [_row(each, opened.shown) for each in versions]
    session.out.table(data, ["version", "when", "what", "by", "for", "commit", "note"], rows)
    if found.lost:
        session.out.warn(
            f"versions 1 to {found.lost} are not in the history that is here; a deeper clone may have them"
        )


@repo.command("rollback", examples="keyhole repo rollback stripe/api-key 3\nkeyhole repo rollback db/url 2@1a2b3c4d")
@click.argument("name")
@click.argument("version")
@place_options
@pass_session
def rollback(session: Session, /, *, name: str, version: str, directory: str, key_file: str) -> None:
    """Give a secret the value that it had in an older version, sealed for who reads it today. Also after repo rm."""
    place = Place(session, directory, key_file)
    past = past_of(session, place)
    change = place.change(lambda opened, actor: roll_back(opened, actor, past, name, version))
    data = {"name": name, "version": version, "due": list(change.due)}
    session.out.done(data, f"{name} has the value of version {version} again, as a new version")
    if change.due:
        session.out.warn(f"{name} is due for a new value at its source: keyhole repo check says why")
    session.out.say("if the source has been changed since, the old value does not work there")


def release_version(
    session: Session, place: Place, opened: Opened, identity: Identity, name: str, label: str
) -> Secret:
    """The value of an older version, once it is on record that it was read."""
    past = past_of(session, place)
    found = history(opened, past, name).find(label)
    require_current(found, datetime.now(UTC))
    value = open_version(opened, past, found, identity)
    number = 0 if found.described is None else found.described.version
    record(opened, identity, name, number, how=f"get --version {found.label}", environ=os.environ)
    return value


def _data(each: Version) -> dict[str, Any]:
    described, trace = each.described, each.trace
    data: dict[str, Any] = {
        "version": each.label,
        "standing": each.standing.value,
        "kind": each.kind.value,
        "readers": list(each.readers),
        "commit": None if trace is None else trace.place,
        "committed": None if trace is None or trace.time is None else instant(trace.time),
        "digest": each.digest,
    }
    if each.why:
        data["why"] = each.why
    if described is not None:
        data |= {
            "signer": described.signer,
            "rotated": instant(described.rotated),
            "groups": list(described.groups),
            "due": described.due,
            "expires": None if described.expires is None else instant(described.expires),
        }
    return data


def _row(each: Version, shown: Callable[[str], str]) -> list[str]:
    described = each.described
    note = each.why or ("aside" if each.standing.value == "aside" else "")
    if described is not None and described.due:
        note = f"{note} due: {described.due}".strip()
    names = map(shown, each.readers)
    readers = " ".join(name if len(name) <= 60 else f"{name[:12]}…" for name in names)
    return [
        each.label,
        "-" if each.when is None else f"{each.when:%Y-%m-%d %H:%M}",
        each.kind.value if not each.why else f"unverified {each.kind.value}".replace(" unknown", ""),
        "?" if described is None else described.signer,
        readers or "-",
        "-" if each.trace is None else each.trace.place[:10],
        note,
    ]


def _show_all(session: Session, opened: Opened, found: list[Happened]) -> None:
    data = [
        {
            "time": None if each.time is None else instant(each.time),
            "commit": each.place,
            "what": each.what,
            "name": opened.shown(each.name),
            "by": each.by,
            "version": each.version,
            "verified": each.verified,
        }
        for each in found
    ]
    rows = [
        [
            "-" if each.time is None else f"{each.time:%Y-%m-%d %H:%M}",
            opened.shown(each.name),
            each.version,
            each.what if each.verified else f"unverified: {each.what}",
            each.by,
            each.place[:10],
        ]
        for each in found
    ]
    session.out.table(data, ["when", "what of", "version", "change", "by", "commit"], rows, empty="nothing is known")

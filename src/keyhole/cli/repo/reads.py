"""``repo reads``: who has read what through Keyhole."""

from __future__ import annotations

from typing import Any

import click

from keyhole.cli.base import Session, pass_session
from keyhole.cli.repo.noun import repo
from keyhole.cli.repo.place import Place, place_options
from keyhole.core.errors import IntegrityError
from keyhole.repo.documents import instant
from keyhole.repo.opened import Opened
from keyhole.repo.past import everybody
from keyhole.repo.reads import Read, load, path_of

VIOLATED = 1


@repo.command("reads", examples="keyhole repo reads stripe/api-key --json\nkeyhole repo reads --verify")
@click.argument("name", required=False, default="")
@click.option("--verify", is_flag=True, help="Only see whether every record is there as it was written. Exit code 1.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, metavar="N", help="At most so many; else 100.")
@place_options
@pass_session
def reads_command(session: Session, /, *, name: str, verify: bool, limit: int, directory: str, key_file: str) -> int:
    """Who has read which secret here, when and how; newest first. What services lend is in keyhole audit."""
    opened = Place(session, directory, key_file).open()
    if verify:
        return _verify(session, opened)
    stem = opened.where(name) if name else ""
    found = [read for read in reversed(load(path_of(opened))) if stem in {"", read.secret}][:limit]
    lists = everybody(opened)
    data = [_data(opened, read, signed=read.is_signed(lists)) for read in found]
    rows = [
        [
            f"{read.time:%Y-%m-%d %H:%M:%S}",
            read.who if one["signed"] else f"{read.who} (unsigned)",
            one["secret"],
            read.version or "-",
            read.how,
            " ".join(read.context.values()) or "-",
        ]
        for read, one in zip(found, data, strict=True)
    ]
    session.out.table(data, ["when", "who", "secret", "version", "how", "run"], rows, empty="nothing was read here")
    return 0


def _verify(session: Session, opened: Opened) -> int:
    try:
        found = load(path_of(opened))
    except IntegrityError as error:
        session.out.result({"errors": [error.reason]}, f"error: {error.reason}")
        return VIOLATED
    lists = everybody(opened)
    signed = sum(read.is_signed(lists) for read in found)
    forged = [read.number for read in found if read.document and read.document.signatures and not read.is_signed(lists)]
    errors = [f"record {number} is not signed by whom it names" for number in forged]
    data = {"errors": errors, "records": len(found), "signed": signed, "head": found[-1].digest if found else ""}
    said = f"records: {len(found)}, signed: {signed}, missing: none" if not errors else ""
    session.out.result(data, [*(f"error: {each}" for each in errors), *([said] if said else [])])
    return VIOLATED if errors else 0


def _data(opened: Opened, read: Read, *, signed: bool) -> dict[str, Any]:
    return {
        "time": instant(read.time),
        "who": read.who,
        "secret": opened.shown(read.secret),
        "version": read.version,
        "how": read.how,
        "context": dict(read.context),
        "log": read.log,
        "number": read.number,
        "signed": signed,
    }

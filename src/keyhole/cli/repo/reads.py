"""``repo reads``: who has read what through Keyhole, here and on the machines that share it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from keyhole.cli.base import Session, pass_session
from keyhole.cli.repo.noun import repo
from keyhole.cli.repo.place import Place, place_options
from keyhole.core.errors import IntegrityError, InvalidRequest
from keyhole.repo import sharing
from keyhole.repo.documents import instant
from keyhole.repo.opened import Opened
from keyhole.repo.past import everybody
from keyhole.repo.reads import Read, load, path_of
from keyhole.repo.sealing import Actor
from keyhole.repo.sharing import Known, all_shared, share
from keyhole.repo.tree import Change

VIOLATED = 1
_SHARE = "share"


@repo.command(
    "reads",
    examples="keyhole repo reads stripe/api-key --json\nkeyhole repo reads --verify\nkeyhole repo reads share --always",
)
@click.argument("what", metavar="[NAME | share]", required=False, default="")
@click.option("--verify", is_flag=True, help="Only see whether every record is there as it was written. Exit code 1.")
@click.option("--always/--never", default=None, help="With share: also with each push from here, or not any more.")
@click.option("--limit", type=click.IntRange(1, 100_000), default=100, metavar="N", help="At most so many; else 100.")
@place_options
@pass_session
def reads_command(session: Session, /, *, what: str, verify: bool, always: bool | None, limit: int, **at: str) -> int:
    """Who has read which secret, when and how; newest first. What services lend is in keyhole audit.

    With share, what was read here goes into the vault, in files that are signed and only added to.
    """
    place = Place(session, at["directory"], at["key_file"])
    if what == _SHARE:
        return _share(session, place, always=always)
    if always is not None:
        raise InvalidRequest("--always and --never are of share", "keyhole repo reads share --always")
    opened = place.open()
    if verify:
        return _verify(session, opened)
    stem = opened.where(what) if what else ""
    found = [each for each in _everything(opened) if stem in {"", each[0].secret}][:limit]
    lists = everybody(opened)
    data = [_data(opened, read, by, signed=read.is_signed(lists)) for read, by in found]
    session.out.table(
        data, ["when", "who", "secret", "version", "how", "run", "shared by"], map(_row, data), empty="nothing was read"
    )
    return 0


def _everything(opened: Opened) -> list[tuple[Read, str]]:
    """All records with who shared them, the newest first."""
    mine = [(read, "") for read in load(path_of(opened))]
    known = {(read.log, read.number) for read, _ in mine}
    if opened.signed:
        for segment in all_shared(opened):
            mine += [(read, segment.by) for read in segment.records if (read.log, read.number) not in known]
    return sorted(mine, key=lambda each: (each[0].time, each[0].number), reverse=True)


def _share(session: Session, place: Place, *, always: bool | None) -> int:
    opened = place.open()
    known = Known.load(opened)
    if always is not None:
        known.always = always
        known.store()
    if always is False:
        session.out.done({"always": False}, "records of reads stay on this machine from now on")
        return 0
    shared = 0
    if share(opened, Actor.of(opened, place.identity(), datetime.now(UTC))) is not None:
        change = place.change(_shared)
        shared = len(change.files)
    data = {"always": known.always, "files": shared}
    session.out.done(
        data, "shared what was read here; the next push takes it along" if shared else "nothing new to share"
    )
    return 0


def _shared(opened: Opened, actor: Actor) -> Change:
    change = share(opened, actor)
    if change is None:
        raise InvalidRequest("another command has shared it just now", "keyhole repo reads")
    return change


def share_if_wanted(place: Place, opened: Opened) -> Change | None:
    """What a push has to take along, where this machine shares its record with each push."""
    if not opened.signed or not Known.load(opened).always:
        return None
    return share(opened, Actor.of(opened, place.identity(), datetime.now(UTC)))


def _verify(session: Session, opened: Opened) -> int:
    errors: list[str] = []
    found: list[Read] = []
    try:
        found = load(path_of(opened))
    except IntegrityError as error:
        errors.append(error.reason)
    lists = everybody(opened)
    signed = sum(read.is_signed(lists) for read in found)
    forged = [read.number for read in found if read.document and read.document.signatures and not read.is_signed(lists)]
    errors += [f"record {number} is not signed by whom it names" for number in forged]
    errors += sharing.problems(opened)
    data = {"errors": errors, "records": len(found), "signed": signed, "head": found[-1].digest if found else ""}
    said = f"records: {len(found)}, signed: {signed}, missing: none" if not errors else ""
    session.out.result(data, [*(f"error: {each}" for each in errors), *([said] if said else [])])
    return VIOLATED if errors else 0


def _data(opened: Opened, read: Read, by: str, *, signed: bool) -> dict[str, Any]:
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
        "shared_by": by,
    }


def _row(data: dict[str, Any]) -> list[object]:
    return [
        data["time"][:19].replace("T", " "),
        data["who"] if data["signed"] else f"{data['who']} (unsigned)",
        data["secret"],
        data["version"] or "-",
        data["how"],
        " ".join(data["context"].values()) or "-",
        data["shared_by"] or "-",
    ]

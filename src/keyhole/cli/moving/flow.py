"""One import: what of a batch is wanted goes into a sink, and everything is told, name by name and never a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from keyhole.cli.base import Session
from keyhole.cli.import_store import CONFLICT, REPLACED, STORED
from keyhole.cli.moving.batch import Batch
from keyhole.cli.moving.sinks import Became, Sink
from keyhole.importers import Found, Skipped
from keyhole.importers.recognise import named

_MARKED, _TO_DO = "marked as due for a new value", "make a new value at the source"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of a batch is wanted.

    Attributes:
        names: globs of what is taken although it does not look like a secret.
        skip: globs of what is left.
        note_only: values that others may have seen are told, and not marked as due.
    """

    names: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    note_only: bool = False


def move(session: Session, batch: Batch, sink: Sink, wanted: Wanted) -> int:
    """Move a batch into a sink; the exit code.

    Raises:
        KeyholeError: the sink cannot be asked or changed.
    """
    became = list[Became]()
    skipped = list(batch.skipped)
    for found in batch.found:
        why = _why_not(found, wanted)
        if why:
            skipped.append(Skipped(found.variable or found.name, found.where, why))
            continue
        due = batch.why_seen(found)
        kept = "" if wanted.note_only else due
        became += [_told(each, due) for each in sink.put(found, kept)]
    sink.finish()
    _say(session, batch, sink, became, skipped, marks=sink.marks and not wanted.note_only)
    failed = any(each.state == CONFLICT for each in became) or any(each.failed for each in skipped)
    return 2 if failed else 0


def _told(each: Became, due: str) -> Became:
    return each if each.state == CONFLICT else Became(each.name, each.fields, each.where, each.state, each.why, due)


def _why_not(found: Found, wanted: Wanted) -> str:
    names = (found.name, found.variable)
    if named(names, wanted.skip):
        return "is to be left, as you said"
    return "" if named(names, wanted.names) else found.doubt


def _say(
    session: Session, batch: Batch, sink: Sink, became: list[Became], skipped: list[Skipped], *, marks: bool
) -> None:
    out = session.out
    due = [each for each in became if each.due]
    if out.json:
        data: dict[str, Any] = {
            "from": batch.label,
            "taken": [
                {
                    "name": each.name,
                    "fields": list(each.fields),
                    "where": each.where,
                    "state": each.state,
                    "why": each.why,
                    "exposed": each.due,
                }
                for each in became
            ],
            "skipped": [{"name": each.name, "where": each.where, "why": each.why} for each in skipped],
            "due": [each.name for each in due if marks and each.state in {STORED, REPLACED}],
            "notes": list(batch.notes),
        }
        out.result(data)
        return
    rows = [
        (each.name, " ".join(each.fields), each.where, f"{each.state}: {each.why}" if each.why else each.state)
        for each in became
    ]
    out.table(rows, ("secret", "fields", "from", "state"), rows, empty="nothing to take")
    for left in skipped:
        out.say(f"left: {left.name or 'something'} ({left.where}) {left.why}")
    for note in batch.notes:
        out.warn(note)
    _say_due(session, due, marks=marks)
    if any(each.state == CONFLICT for each in became):
        out.say("next: the same with --replace, or --under NAME for other names")
    elif not sink.marks and any(each.state in {STORED, REPLACED} for each in became):
        out.say("next: keyhole service add NAME --host HOST --secret SECRET --bearer")


def _say_due(session: Session, due: list[Became], *, marks: bool) -> None:
    """What has to be changed at its source, by what was done about it and by reason."""
    told: dict[tuple[str, str], list[str]] = {}
    for each in due:
        marked = marks and each.state in {STORED, REPLACED}
        told.setdefault((_MARKED if marked else _TO_DO, each.due), []).append(each.name)
    for (what, reason), names in told.items():
        session.out.warn(f"{what}, since it {reason}: {' '.join(names)}")

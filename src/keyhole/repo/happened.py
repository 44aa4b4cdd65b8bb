"""What happened to a vault, newest first: each change of its members and of its secrets, with who signed it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from keyhole.core.errors import KeyholeError
from keyhole.repo import members, signed
from keyhole.repo.comparing import compare_members
from keyhole.repo.history import Standing, versions_of
from keyhole.repo.joining import SIGNED_MEMBERS
from keyhole.repo.members import RULERS, Members
from keyhole.repo.opened import SIGNED_SECRETS, Opened
from keyhole.repo.past import Past, Trace, everybody
from keyhole.repo.signed import Signed


@dataclass(frozen=True, slots=True)
class Happened:
    """One change.

    Attributes:
        time: of the commit; ``None`` for a snapshot, which has none.
        place: its id.
        name: of the secret, or ``members``.
        version: that it made.
        what: in words.
        by: who signed it; ``?`` where nobody did.
        verified: it is genuine, and the state of today leads to it or knows its signer.
    """

    time: datetime | None
    place: str
    name: str
    version: str
    what: str
    by: str
    verified: bool


def happened(opened: Opened, past: Past | None, limit: int) -> list[Happened]:
    """The last changes. Raises ``IntegrityError`` for a vault that is not signed."""
    opened.require_members()
    traces = [] if past is None else past.traces([SIGNED_MEMBERS, SIGNED_SECRETS])
    lists = everybody(opened)
    order = {trace.place: number for number, trace in enumerate(traces)}
    of: dict[str, list[Trace]] = {}
    found: list[Happened] = []
    for trace in traces:
        if trace.path.startswith(f"{SIGNED_MEMBERS}/"):
            found.append(_members(trace, lists, opened))
        else:
            of.setdefault(trace.path, []).append(trace)
    for path, each in of.items():
        found += _secret(opened, lists, path, each)
    return sorted(found, key=lambda one: (order[one.place], one.name != "members"), reverse=True)[:limit]


def _members(trace: Trace, lists: list[Members], opened: Opened) -> Happened:
    try:
        document = signed.read(members.KIND, trace.data or b"", trace.path)
        after = members.read(document)
    except KeyholeError as error:
        return Happened(trace.time, trace.place, "members", "?", error.reason, "?", verified=False)
    before = lists[after.version - 2] if 1 < after.version <= len(lists) + 1 else None
    verified = 0 < after.version <= len(lists) and opened.tree.read(trace.path) == trace.data
    said = "; ".join(line.text for line in compare_members(before, after)) or "signed again"
    by = _signer(document, before if before is not None else after)
    return Happened(trace.time, trace.place, "members", str(after.version), said, by, verified=verified)


def _signer(document: Signed, lists: Members) -> str:
    names = [m.name for m in lists.members.values() if m.role in RULERS and document.is_by(m.name, m.sign)]
    return " ".join(names) or "?"


def _secret(opened: Opened, lists: list[Members], path: str, traces: list[Trace]) -> list[Happened]:
    name = path.removeprefix(f"{SIGNED_SECRETS}/").removesuffix(".json")
    found = []
    for each in versions_of(opened, lists, name, traces).versions:
        if each.trace is not None:
            described, verified = each.described, each.standing is not Standing.UNVERIFIED
            what = each.why or (f"{each.kind}, aside" if each.standing is Standing.ASIDE else each.kind.value)
            by = "?" if described is None else described.signer
            one = Happened(each.trace.time, each.trace.place, name, each.label, what, by, verified=verified)
            found.append(one)
    return found

"""Which of two versions of one secret counts, and when a person has to say it. Pure.

Everybody who compares the same two comes to the same, at whichever remote they meet, so nothing is asked for ever: a
version that knows all events of the other counts; two that know the same and differ are of people who chose
differently, which is asked once more; after that the later value counts, and that is said.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from keyhole.repo.lineage import Line
from keyhole.repo.sidecar import Sidecar, alike
from keyhole.repo.signed import Signed

_CHOICES = 2
"""How often people are asked about the same values."""

Described = tuple[Signed, Sidecar]


class Side(StrEnum):
    """Whose version: that of this clone, or the one that came from elsewhere."""

    OURS = "ours"
    THEIRS = "theirs"


class Verdict(StrEnum):
    """Why a side counts.

    ``later``: it goes on from the other. ``same``: both have the same value. ``settled``: people chose differently
    twice. ``clash``: a person has to choose.
    """

    LATER = "later"
    SAME = "same"
    SETTLED = "settled"
    CLASH = "clash"


@dataclass(frozen=True, slots=True)
class Weighed:
    """What was found.

    Attributes:
        verdict: see ``Verdict``.
        side: that counts; of a clash it says nothing.
        chosen: of the version that brings both together (``Lineage.chosen``).
    """

    verdict: Verdict
    side: Side
    chosen: int


def line(described: Described) -> Line:
    """The events that a version knows."""
    document, each = described
    return Line.of(each.version, document.digest, each.previous, each.lineage)


def weigh(ours: Described, theirs: Described, base: str, members: Container[str]) -> Weighed:
    """Which of two different versions counts.

    Args:
        ours: of this clone.
        theirs: from elsewhere, verified.
        base: digest of the version from which both went on; empty where that is not known.
        members: who is there; others for whom it was sealed do not matter.
    """
    left, right = line(ours), line(theirs)
    covers, covered = left.covers(right), right.covers(left)
    if covers and not covered:
        return Weighed(Verdict.LATER, Side.OURS, ours[1].lineage.chosen)
    if covered and not covers:
        return Weighed(Verdict.LATER, Side.THEIRS, theirs[1].lineage.chosen)
    same = _what(ours[1], members) == _what(theirs[1], members)
    if covers:
        return _of_one_line(ours, theirs, members, same=same)
    if base and base in {ours[0].digest, theirs[0].digest}:
        side = Side.THEIRS if base == ours[0].digest else Side.OURS
        return Weighed(Verdict.LATER, side, 0)
    return Weighed(Verdict.SAME, _first(ours, theirs), 0) if same else Weighed(Verdict.CLASH, Side.OURS, 1)


def _of_one_line(ours: Described, theirs: Described, members: Container[str], *, same: bool) -> Weighed:
    """Both know the same events, so only what was made of them can differ."""
    counts = ours[1].lineage.chosen, theirs[1].lineage.chosen
    if counts[0] != counts[1]:
        return Weighed(Verdict.LATER, Side.OURS if counts[0] > counts[1] else Side.THEIRS, max(counts))
    if same:
        return Weighed(Verdict.SAME, _first(ours, theirs), counts[0])
    if counts[0] < _CHOICES:
        return Weighed(Verdict.CLASH, Side.OURS, counts[0] + 1)
    later = _order(ours[1], members) > _order(theirs[1], members)
    return Weighed(Verdict.SETTLED, Side.OURS if later else Side.THEIRS, counts[0])


def stands(picked: Described, other: Described, verdict: Verdict) -> bool:
    """Whether a version can be put in place of another as it is: whoever has seen that one takes it for later."""
    (document, each), (there, before) = picked, other
    if verdict is not Verdict.LATER and not line(picked).covers(line(other)):
        return False
    if document.digest == there.digest or each.version > before.version:
        return due(each, before) == each.due
    same = alike(document, each)
    return (
        each.version == before.version
        and same != ""
        and same == alike(there, before)
        and document.digest < there.digest
    )


def due(each: Sidecar, other: Sidecar) -> str:
    """Why a value has to be changed, as far as either side knows; a removed one need not be."""
    if each.removed or each.rotated != other.rotated:
        return each.due
    return min((why for why in (each.due, other.due) if why), default="")


def _first(ours: Described, theirs: Described) -> Side:
    """Which of two that have the same is taken: whoever asks gets the same answer."""
    keys = [(-each.version, alike(document, each), document.digest) for document, each in (ours, theirs)]
    return Side.OURS if keys[0] <= keys[1] else Side.THEIRS


def _what(each: Sidecar, members: Container[str]) -> tuple[Any, ...]:
    """What people choose between."""
    if each.removed:
        return ("removed",)
    also = sorted(name for name in each.also if name in members)
    return (each.rotated, sorted(each.groups), also, each.expires)


def _order(each: Sidecar, members: Container[str]) -> tuple[Any, ...]:
    also = sorted(name for name in each.also if name in members)
    return (each.rotated, not each.removed, sorted(each.groups), also, str(each.expires))

"""From which versions of a secret another one goes on, as its signed document says. Pure.

A version that brings something (a value, a removal, readers) is an event, named by its number and the digest of its
document. Every document lists the events before it; one that only brings two lines together is no event, and names
those on which they ended. So two documents are compared without their history, and whoever brings the same two lines
together comes to the same lists, in whatever order that was done.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

MOST = 32
"""Events before a version that its document lists, the latest; what is older is taken for unknown, and asked about."""
_MOST_JOINED = 256
_EVENT = re.compile(r"[1-9][0-9]{0,8}:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a document says of its descent.

    Attributes:
        after: events before it, ``VERSION:DIGEST``.
        joins: the last events of the lines that it brings together; empty for a version that is an event itself.
        chosen: how often people have chosen between the lines that it brings together.
    """

    after: tuple[str, ...] = ()
    joins: tuple[str, ...] = ()
    chosen: int = 0

    @property
    def content(self) -> dict[str, Any]:
        """For the signed document; a version without any of it is written as it was before there was this."""
        found: dict[str, Any] = {"after": list(self.after), "joins": list(self.joins), "chosen": self.chosen}
        return {name: value for name, value in found.items() if value}


def read(content: Mapping[str, Any]) -> Lineage:
    """What a document says. Raises ``ValueError`` or ``TypeError``."""
    after, joins = (_events(content.get(name, [])) for name in ("after", "joins"))
    chosen = content.get("chosen", 0)
    if type(chosen) is not int or chosen < 0:
        raise ValueError("chosen is no number")
    return Lineage(after, joins, chosen)


def _events(data: Any) -> tuple[str, ...]:
    if not isinstance(data, list) or len(data) > _MOST_JOINED:
        raise TypeError("no list of events, or too long")
    if not all(isinstance(each, str) and _EVENT.fullmatch(each) for each in data):
        raise ValueError("no event")
    return tuple(data)


@dataclass(frozen=True, slots=True)
class Line:
    """All events that a version knows.

    Attributes:
        ends: those after which none of the others comes.
        before: the others.
    """

    ends: frozenset[str]
    before: frozenset[str]

    @classmethod
    def of(cls, version: int, digest: str, previous: str, lineage: Lineage) -> Line:
        """The line that ends with a document; one without lists knows the version before it."""
        before = lineage.after
        if not before and not lineage.joins and previous and version > 1:
            before = (f"{version - 1}:{previous}",)
        return cls(frozenset(lineage.joins or (f"{version}:{digest}",)), frozenset(before))

    @property
    def events(self) -> frozenset[str]:
        """All of them."""
        return self.ends | self.before

    def covers(self, other: Line) -> bool:
        """Whether it goes on from all that the other one knows."""
        return other.ends <= self.events

    def after(self) -> Lineage:
        """Of the next event."""
        return Lineage(_latest(self.events, MOST))

    def joined(self, other: Line, chosen: int) -> Lineage:
        """Of a version that brings both together."""
        before = self.before | other.before
        ends = (self.ends | other.ends) - before
        return Lineage(_latest(before, MOST), _latest(ends, _MOST_JOINED), chosen)


def _latest(events: Iterable[str], most: int) -> tuple[str, ...]:
    return tuple(sorted(events, key=lambda each: (int(each.partition(":")[0]), each))[-most:])

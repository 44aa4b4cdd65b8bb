"""Finds shapes in bytes: one automaton of their literals, and the pattern of a shape only where its literal stands."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from ahocorasick_rs import BytesAhoCorasick, Implementation, MatchKind

from .published import is_published
from .shape import Shape

_MOST = 10_000
_AGAIN = 2  # looks at one byte, besides the first: a name in a value may be assigned something itself


@dataclass(frozen=True, slots=True)
class Match:
    """A credential.

    Attributes:
        shape: which it has.
        start: offset of its first byte.
        end: offset after the last one.
    """

    shape: Shape
    start: int
    end: int

    def fingerprint(self, data: bytes) -> str:
        """What it is known by where its value must not stand: 16 hexadecimal digits, of its shape and value."""
        told = b"keyhole finding\0" + self.shape.name.encode() + b"\0" + data[self.start : self.end]
        return hashlib.sha256(told).hexdigest()[:16]


class Finder:
    """Looks for the shapes that it was made for. Immutable; share it.

    Work grows with the size of the input: a pattern is tried where a literal stands, and looks at a bounded part.

    Args:
        shapes: what to find.
    """

    __slots__ = ("_owners", "_scan")

    def __init__(self, shapes: Iterable[Shape]) -> None:
        owners: dict[bytes, list[Shape]] = {}
        for shape in shapes:
            for literal in shape.literals:
                owners.setdefault(literal.encode("latin-1").lower(), []).append(shape)
        self._owners = list(owners.values())
        automaton = BytesAhoCorasick(list(owners), MatchKind.Standard, Implementation.DFA)
        self._scan = automaton.find_matches_as_indexes

    def find(self, data: bytes) -> list[Match]:
        """The credentials in a text, in their order; of two that overlap the one with the better name.

        At most 10,000, so that a hostile text costs bounded memory.
        """
        specific: list[Match] = []
        generic: list[Match] = []
        seen: dict[Shape, _Seen] = {}
        for index, literal, _ in self._scan(data.lower(), True):  # noqa: FBT003  # by position, as in the matcher
            for shape in self._owners[index]:
                before = seen.get(shape)
                if before is not None and literal < before.end and before.enough():
                    continue
                found = shape.match(data, literal)
                if found is None:
                    continue
                start, end, counts = found
                if before is None:
                    before = seen[shape] = _Seen()
                before.until(literal, end, done=counts)
                if counts and not is_published(data[start:end]):
                    (generic if shape.generic else specific).append(Match(shape, start, end))
            if len(specific) + len(generic) >= _MOST:
                break
        return _without_overlaps([*specific, *generic])


class _Seen:
    """How far the values of a shape were looked at, so that the same bytes are not looked at again and again."""

    __slots__ = ("end", "times")

    def __init__(self) -> None:
        self.end = 0
        self.times = 0

    def enough(self) -> bool:
        self.times += 1
        return self.times > _AGAIN

    def until(self, literal: int, end: int, *, done: bool) -> None:
        if literal >= self.end:
            self.times = 0
        self.end = max(self.end, end)
        if done:
            self.times = _AGAIN


def _without_overlaps(matches: list[Match]) -> list[Match]:
    """Keep the first of those that overlap, in the order given; the result is in the order of the text."""
    if len(matches) < 2:
        return matches
    ordered = sorted(matches, key=lambda match: (match.start, match.shape.generic, -match.end))
    kept: list[Match] = []
    for match in ordered:
        if not kept or match.start >= kept[-1].end:
            kept.append(match)
        elif kept[-1].shape.generic and not match.shape.generic:
            kept[-1] = match
    return kept


@functools.cache
def finder() -> Finder:
    """The finder of all shapes, made once."""
    from . import SHAPES  # noqa: PLC0415  # the package imports this module

    return Finder(SHAPES)

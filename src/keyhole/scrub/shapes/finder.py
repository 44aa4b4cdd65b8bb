"""Finds shapes in bytes: one automaton of their literals, and the pattern of a shape only where its literal stands."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ahocorasick_rs import BytesAhoCorasick, Implementation, MatchKind

from .published import is_published
from .shape import Shape, joined

_MOST = 10_000
_AGAIN = 2  # looks at one byte, besides the first: a name in a value may be assigned something itself
_WORD = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")


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

    __slots__ = ("_count", "_owners", "_scan")

    def __init__(self, shapes: Iterable[Shape]) -> None:
        owners: dict[bytes, list[_Rule]] = {}
        self._count = 0
        for shape in shapes:
            rule = _Rule(shape, self._count)
            self._count += 1
            for literal in shape.literals:
                owners.setdefault(literal.encode("latin-1").lower(), []).append(rule)
        self._owners = list(owners.values())
        automaton = BytesAhoCorasick(list(owners), MatchKind.Standard, Implementation.DFA)
        self._scan = automaton.find_matches_as_indexes

    def find(self, data: bytes, most: int | None = _MOST) -> list[Match]:
        """The credentials in a text, in their order; of two that overlap the one with the better name.

        Args:
            data: the text.
            most: how many are looked for, so that reports of a hostile text cost bounded memory. ``None`` for all, for
                who takes them out: none may be left because there were others.
        """
        specific: list[Match] = []
        generic: list[Match] = []
        hits = self._scan(data.lower(), True)  # noqa: FBT003  # by position, as in the matcher
        if not hits:
            return []
        ends, times = [0] * self._count, [0] * self._count
        runs: dict[int, tuple[int, bool]] = {}
        for index, literal, _ in hits:
            for rule in self._owners[index]:
                number = rule.number
                if literal < ends[number]:
                    times[number] += 1
                    if times[number] > _AGAIN:
                        continue
                start = literal - rule.before
                if start < 0 or (rule.edge and start and data[start - 1] in _WORD and joined(data, start)):
                    continue
                if rule.runs is not None and not _goes_on(data, literal, rule, runs):
                    continue
                match = rule.match(data, start)
                if match is None:
                    continue
                start, end = match.span(rule.group)
                counts = rule.shape.counts(match, start, end)
                if literal >= ends[number]:
                    times[number] = 0
                ends[number] = max(ends[number], end)
                if counts:
                    times[number] = _AGAIN
                    if not is_published(data[start:end]):
                        (generic if rule.generic else specific).append(Match(rule.shape, start, end))
            if most is not None and len(specific) + len(generic) >= most:
                break
        return _without_overlaps([*specific, *generic])


class _Rule:
    """A shape as the loop needs it; its pattern is compiled when it is first tried, for most texts need few."""

    __slots__ = ("before", "edge", "generic", "group", "match", "number", "runs", "shape")

    def __init__(self, shape: Shape, number: int) -> None:
        self.shape = shape
        self.number = number
        self.before = shape.before
        self.edge = shape.edge
        self.generic = shape.generic
        self.runs = shape.runs
        self.group: str | int = 0
        self.match: Callable[[bytes, int], re.Match[bytes] | None] = self._first

    def _first(self, data: bytes, start: int) -> re.Match[bytes] | None:
        regex = self.shape.regex
        self.group = "v" if "v" in regex.groupindex else 0
        self.match = regex.match
        return regex.match(data, start)


def _goes_on(data: bytes, literal: int, rule: _Rule, known: dict[int, tuple[int, bool]]) -> bool:
    """Does what must follow stand behind the run that a literal is in? Known for the whole run after the first time."""
    end, follows = known.get(rule.number, (0, False))
    if literal >= end and rule.runs is not None:
        run, then = rule.runs
        found = run.match(data, literal)
        end = found.end() if found is not None else literal
        follows = then.match(data, end) is not None
        known[rule.number] = end, follows
    return follows


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

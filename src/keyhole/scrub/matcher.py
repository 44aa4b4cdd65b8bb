"""Finding forms in bytes: one automaton of short anchors, verified by comparison.

An Aho-Corasick automaton (Aho and Corasick, CACM 18(6), 1975) over whole forms would have a state for each byte of
each form. A few bytes from the part of a form that must be there select the candidates just as well, so the
automaton stays small enough to be built quickly and to stay in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterable

from ahocorasick_rs import BytesAhoCorasick, Implementation, MatchKind

from .escapes import COLOUR, SEAM
from .forms import Form

_ANCHOR = 8
_HEAD = 4

Span = tuple[int, int]


class Matcher:
    """Finds occurrences of forms, and the end of a text that may be the beginning of one.

    Args:
        forms: what to find; at least one.
    """

    __slots__ = ("_heads", "_owners", "_reach", "_scan", "_scan_heads", "_starts", "_wrapped_reach")

    def __init__(self, forms: Iterable[Form]) -> None:
        unique: dict[bytes, Form] = {}
        for form in forms:
            known = unique.get(form.data)
            if known is None or form.need < known.need:
                unique[form.data] = form
        owners: dict[bytes, list[tuple[Form, bytes, int]]] = {SEAM: [], COLOUR: []}
        heads: dict[bytes, list[bytes]] = {}
        starts: set[bytes] = set()
        for form in unique.values():
            data = form.data
            for size, offset in _anchors(form):
                owners.setdefault(data[offset : offset + size], []).append((form, data[: form.need], offset))
            heads.setdefault(data[:_HEAD], []).append(data)
            starts.update((data[:1], data[:2], data[:3]))
        self._owners = list(owners.values())
        self._heads = list(heads.values())
        self._starts = frozenset(starts)
        self._reach = max(map(len, unique)) - 1
        longest = max((len(form.data) for form in unique.values() if form.wraps), default=0)
        self._wrapped_reach = longest + (longest // 56 + 1) * 16
        automaton = BytesAhoCorasick(list(owners), MatchKind.Standard, Implementation.DFA)
        self._scan = automaton.find_matches_as_indexes
        small = BytesAhoCorasick(list(heads), MatchKind.Standard, Implementation.ContiguousNFA)
        self._scan_heads = small.find_matches_as_indexes

    @property
    def wrapped_reach(self) -> int:
        """How long the beginning of a base64 form can be when it is broken into lines (a break every 56 or more)."""
        return self._wrapped_reach

    def find(self, text: bytes) -> tuple[list[Span], bool, bool]:
        """All occurrences in a text.

        Args:
            text: where to look.

        Returns:
            Half-open spans, merged where they overlap; whether base64 was seen that may go on in the next line;
            whether there is a seam of CDATA sections, or a colour of a terminal.
        """
        hits = self._scan(text, True)  # noqa: FBT003  # the extension takes it by position faster
        spans: list[Span] = []
        wraps = seams = False
        for index, start, _ in hits:
            owners = self._owners[index]
            if not owners:
                seams = True
            for form, needed, offset in owners:
                begin = start - offset
                if begin >= 0 and text.startswith(needed, begin):
                    _add(spans, begin, begin + _extent(form, text, begin))
                elif form.wraps:
                    wraps = True
        return spans, wraps, seams

    def tail(self, text: bytes) -> int:
        """The offset of the longest end of the text that is the beginning of a form; ``len(text)`` when none is."""
        window = text[-self._reach :]
        base = len(text) - len(window)
        for index, start, _ in self._scan_heads(window, True):  # noqa: FBT003  # as above
            rest = window[start:]
            near = rest[:32]
            for data in self._heads[index]:
                if data.startswith(near) and len(data) > len(rest) and data.startswith(rest):
                    return base + start
        starts = self._starts
        if window[-3:] in starts:
            return len(text) - len(window[-3:])
        if window[-2:] in starts:
            return len(text) - len(window[-2:])
        return len(text) - 1 if window[-1:] in starts else len(text)


def _anchors(form: Form) -> list[tuple[int, int]]:
    """Size and offset of the pieces of a form that go into the automaton, all within the part that must be there.

    One is enough, chosen with many different bytes and away from the beginning, which values share ("ghp_",
    "-----BEGIN"). Base64 gets two that do not overlap, so that a line break can destroy only one of them.
    """
    if form.wraps:
        size = min(_ANCHOR, form.need // 2)
        return [(size, form.need - size), (size, form.need - 2 * size)]
    size = min(_ANCHOR, form.need)
    candidates = (form.need - size, (form.need - size) // 2, 0)
    return [(size, max(candidates, key=lambda offset: len(set(form.data[offset : offset + size]))))]


def _extent(form: Form, text: bytes, begin: int) -> int:
    """How many bytes of the form stand at ``begin``, of which the needed ones are known to."""
    data = form.data
    if text.startswith(data, begin):
        return len(data)
    low, high = form.need, len(data)
    while high - low > 1:
        middle = (low + high) // 2
        if text.startswith(data[:middle], begin):
            low = middle
        else:
            high = middle
    while low > form.need and low < len(data) and data[low] & 0xC0 == 0x80:
        low -= 1  # a cut within a UTF-8 sequence would leave an invalid text behind
    return low


def _add(spans: list[Span], begin: int, end: int) -> None:
    if spans and spans[-1][0] <= begin <= spans[-1][1]:
        spans[-1] = (spans[-1][0], max(end, spans[-1][1]))
    else:
        spans.append((begin, end))

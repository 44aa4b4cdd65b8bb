"""Finding forms in bytes: one automaton of short anchors, verified by comparison.

An Aho-Corasick automaton (Aho and Corasick, CACM 18(6), 1975) over whole forms would have a state for each byte of
each form. A few bytes from the part of a form that must be there select the candidates just as well, so the
automaton stays small enough to be built quickly and to stay in the processor's cache.

Most texts hold no anchor at all, and that is found out several times as fast with vector instructions (the algorithm
Teddy of Langdale's Hyperscan), which the library uses for up to 64 patterns where not all matches are asked for.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Sequence

from ahocorasick_rs import BytesAhoCorasick, Implementation, MatchKind

from .escapes import CHARSET, COLOUR, SEAM, coloured
from .forms import Form

_ANCHOR = 8
_HEAD = 4
_GROUP = 32
"""Patterns that are looked for at once with vector instructions, wherever there are any for it."""
_GROUPS = 8
"""More groups than that, and the automaton is as quick."""
_WORTH = 256
"""Bytes of a text below which nothing is gained."""
_VECTORS = platform.machine().lower() in {"x86_64", "amd64", "aarch64", "arm64"}
_FIRST = 4
"""Bytes of a pattern that the vector instructions compare."""
_WORST = 1000
_CHOICES = 8
"""Offsets that are compared for an anchor: making a scrubber is part of the first call that needs it."""
_WEIGHTS = bytearray(b"\x01" * 256)
"""How much each byte says against an anchor that begins with it: it is often met."""
for _bytes, _weight in ((b"bcdfgjkmpquvwxyz", 2), (b'0123456789etaoinsrhl",:{}[]./=-<>', 3), (b"\0\xff \n", 4)):
    for _byte in _bytes:
        _WEIGHTS[_byte] = _weight

_Scan = Callable[[bytes], Sequence[object]]
Span = tuple[int, int]


class Matcher:
    """Finds occurrences of forms, and the end of a text that may be the beginning of one.

    Attributes:
        one_line: no form has a line feed, so that none is begun at the end of a text that ends with one.

    Args:
        forms: what to find; at least one.
    """

    __slots__ = (
        "_groups",
        "_heads",
        "_owners",
        "_reach",
        "_scan",
        "_scan_heads",
        "_starts",
        "_wrapped_reach",
        "one_line",
    )

    def __init__(self, forms: Iterable[Form]) -> None:
        unique: dict[bytes, Form] = {}
        for form in forms:
            known = unique.get(form.data)
            if known is None or form.need < known.need:
                unique[form.data] = form
        owners: dict[bytes, list[tuple[Form, bytes, int]]] = {SEAM: [], COLOUR: [], CHARSET: []}
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
        self.one_line = not any(b"\n" in data for data in unique)
        self._reach = max(map(len, unique)) - 1
        longest = max((len(form.data) for form in unique.values() if form.wraps), default=0)
        self._wrapped_reach = longest + (longest // 56 + 1) * 16
        automaton = BytesAhoCorasick(list(owners), MatchKind.Standard, Implementation.DFA)
        self._scan = automaton.find_matches_as_indexes
        self._groups = _grouped([anchor for anchor in owners if anchor not in {COLOUR, CHARSET}])
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
        if self._groups and len(text) >= _WORTH and not any(scan(text) for scan in self._groups):
            return [], False, coloured(text)
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

    def nothing(self, text: bytes) -> bool:
        """Whether a text holds no anchor at all, so that nothing is in it that ``find`` would tell of."""
        if self._groups and len(text) >= _WORTH:
            return not any(scan(text) for scan in self._groups) and not coloured(text)
        return not self._scan(text, True)  # noqa: FBT003  # as in ``find``

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


def _grouped(anchors: list[bytes]) -> tuple[_Scan, ...]:
    """What finds some anchor wherever there is one, quickly; nothing where that would not be quicker."""
    count = -(-len(anchors) // _GROUP)
    if count > _GROUPS or not _VECTORS:
        return ()
    groups = [anchors[at::count] for at in range(count)]
    return tuple(
        BytesAhoCorasick(group, MatchKind.LeftmostFirst, Implementation.DFA).find_matches_as_indexes for group in groups
    )


def _anchors(form: Form) -> list[tuple[int, int]]:
    """Size and offset of the pieces of a form that go into the automaton, all within the part that must be there.

    One is enough, chosen with rare and different bytes at its own beginning, and away from that of the form, which
    values share ("ghp_", "-----BEGIN"). Base64 gets two that do not overlap and are next to each other, so that a line
    break can destroy only one of them.
    """
    data = form.data
    weights = data.translate(_WEIGHTS)
    count = 2 if form.wraps else 1
    size = min(_ANCHOR, form.need // count)
    last = form.need - count * size
    step = max(1, (last - last // 2) // _CHOICES)
    best, offset = _WORST, last
    for at in range(last, last // 2 - 1, -step):
        cost = sum([_cost(data, weights, at + n * size) for n in range(count)])
        if cost < best:
            best, offset = cost, at
    return [(size, offset + n * size) for n in range(count)]


def _cost(data: bytes, weights: bytes, offset: int) -> int:
    """How often a vector instruction would stop in vain for a pattern that begins here."""
    end = offset + _FIRST
    return sum(weights[offset:end]) - 2 * len(set(data[offset:end]))


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

r"""Decoded views: percent, JSON, JavaScript and HTML escapes undone, with the way back to the source.

An encoder may escape any subset of characters in either case, and one escaping may sit inside another, so the view
decodes generously: every escape of every kind, pass after pass. What stands before a value may belong to no escape and
make part of the value's first one; such misreadings are searched for as well (`misread`), but those behind a beginning
that has digits of its own (``%2``), and those that more than `PASSES` doublings of a backslash hide.

References: RFC 3986 section 2.1 (percent), RFC 8259 section 7 (JSON), ECMA-262 section 12.9.4 (``\x``, ``\u{}``,
octal), the WHATWG HTML standard section 13.2.5.72 (character references).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import lru_cache
from html.entities import html5
from itertools import accumulate
from operator import add
from typing import Protocol

PASSES = 4
"""Layers of escaping that are undone."""

_END = 1024
"""Bytes at the end of a text in which a character may be unfinished that is escaped layer upon layer."""

PARTIAL_REACH = 64
"""Bytes at the end of a text in which an unfinished escape is looked for."""

_NEAR = 1024  # bytes before the end of a view whose places are found by counting back
_LONGEST_STEP = 8192  # bytes of a text with many escapes that are undone without looking where they are
CONTEXT = 60
"""Bytes before a text that decide whether a line break in it belongs to base64."""

_ENTITIES = {name[:-1].encode(): char.encode() for name, char in html5.items() if name.endswith(";")}

_SIMPLE = {
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
    b"b": b"\b",
    b"f": b"\f",
    b'"': b'"',
    b"'": b"'",
    b"/": b"/",
    b"\\": b"\\",
}

_KINDS = {
    b"%": rb"%(?:[0-9a-fA-F]{2}|u[0-9a-fA-F]{4})",
    b"\\": rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|u\{[0-9a-fA-F]{1,6}\}"
    rb"|x[0-9a-fA-F]{2}|[0-3][0-7]{2}|[\"'/nrtbf\\])",
    b"&": rb"&(?:\#(?:[0-9]{1,10}|[xX][0-9a-fA-F]{1,8});?|[A-Za-z][A-Za-z0-9]{1,31};)",
}
_BEGUN = (b"\\", b"\\u", b"\\x", b"\\u{", b"%", b"%u", b"&", b"&#", b"&#x")
"""What stands before a character that it makes part of an escape; beginnings that hold digits are too many."""

# A pattern that begins with one certain byte is looked for a hundred times as fast as one with two ways to begin.
_COLOUR = rb"\x1b(?:\(B(?:\x1b\[[0-9;:]{0,24}[mK]\x0f?)?|\[[0-9;:]{0,24}[mK]\x0f?)"
_TOKEN = re.compile(b"(" + b"|".join([*_KINDS.values(), _COLOUR]) + rb"|\]\]><!\[CDATA\[)")
_TOKEN_BY_LEAD = {lead: re.compile(b"(" + kind + b")") for lead, kind in _KINDS.items()}

_PARTIAL = re.compile(
    rb"(?:\\u[dD][89abAB][0-9a-fA-F]{2})?\\{1,16}"
    rb"(?:u(?:[0-9a-fA-F]{0,3}|\{[0-9a-fA-F]{0,6}|[dD][89abAB][0-9a-fA-F]{2})|x[0-9a-fA-F]?|[0-3][0-7]?)?\Z"
    rb"|%(?:25){0,8}(?:[0-9a-fA-F]|u[0-9a-fA-F]{0,3})?\Z"
    rb"|&(?:amp;){0,4}(?:\#(?:[0-9]{0,10}|[xX][0-9a-fA-F]{0,8})|([A-Za-z][A-Za-z0-9]{0,31}))?\Z"
)

_MAY_END_UNFINISHED = frozenset(
    bytes((code,)) for code in range(128) if chr(code).isalnum() or chr(code) in "\\%&#{;]><!["
)

_LINE_BREAK = re.compile(
    rb"(?:\n(?<=[A-Za-z0-9+/_-]{56}\n)|\r(?<=[A-Za-z0-9+/_-]{56}\r)\n?"
    rb"|\\(?<=[A-Za-z0-9+/_-]{56}\\)\\{0,3}(?:r\\{1,4}n|n|r\Z))[ \t]{0,8}(?=[A-Za-z0-9+/=_-]|\Z)"
)

SEAM = b"]]><![CDATA["
"""What ends one CDATA section and begins the next: text that stands for nothing."""

COLOUR = b"\x1b["
"""What begins a change of colour in a terminal (ECMA-48 section 8.3.117), which stands for nothing, too.

Many terminals also choose their usual characters when they go back to the usual colour, by ``ESC ( B`` before or by a
shift in (0x0f) after it: ``tput sgr0`` prints it.
"""

CHARSET = b"\x1b(B"
"""That choice of characters (ECMA-35 section 14.3.2), which may stand without a change of colour."""

_COLOUR_BEGUN = re.compile(rb"\x1b(?:\[[0-9;:]{0,24}|\()?")
_COLOUR_REACH = 27


class View:
    """A decoded text and where each of its bytes came from.

    Args:
        pieces: literal text and decoded escape in turn, beginning and ending with literal text.
        sources: the escapes as they stood in the source, in order.
        base: where the first piece lies in the parent; negative when it begins before it.
        size: bytes of the source.
        parent: the view that was decoded, or None for the source itself.
    """

    __slots__ = ("_base", "_ends", "_parent", "_pieces", "_places", "_size", "_sources", "text")

    def __init__(self, pieces: list[bytes], sources: list[bytes], base: int, size: int, parent: View | None) -> None:
        self.text = b"".join(pieces)
        self._pieces = pieces
        self._sources = sources
        self._base = base
        self._size = size
        self._parent = parent
        self._places: list[int] = []
        self._ends: list[int] = []

    def leads(self) -> set[bytes]:
        """The first bytes of the escapes, which say of what kind each is."""
        return {source[:1] for source in set(self._sources)}

    def start(self, offset: int) -> int:
        """The source offset at which the byte at ``offset`` begins; negative when that is before the source."""
        if not self._places and len(self.text) - offset <= _NEAR:
            offset = self._start_near_end(offset)
        elif (index := self._before(offset)) >= 0:
            into = offset - self._places[index]
            size = len(self._pieces[2 * index + 1])
            end = self._ends[index]
            offset = end - len(self._sources[index]) if into < size else end + into - size
        offset += self._base
        return offset if self._parent is None else self._parent.start(offset)

    def _start_near_end(self, offset: int) -> int:
        """As ``start`` within this view, without the map: what is held back is a few bytes."""
        place, end = len(self.text), self._size
        for index in range(len(self._sources) - 1, -1, -1):
            literal = len(self._pieces[2 * index + 2])
            if offset >= place - literal:
                break
            place -= literal + len(self._pieces[2 * index + 1])
            end -= literal + len(self._sources[index])
            if offset >= place:
                return end
        return end - (place - offset)

    def end(self, offset: int) -> int:
        """The source offset behind the last byte of the view's first ``offset`` bytes."""
        index = self._before(offset - 1)
        if index >= 0:
            into = offset - 1 - self._places[index]
            size = len(self._pieces[2 * index + 1])
            offset = self._ends[index] if into < size else self._ends[index] + into - size + 1
        offset += self._base
        return offset if self._parent is None else self._parent.end(offset)

    def _before(self, offset: int) -> int:
        """The last escape whose place in the view is not behind ``offset``; the map is made on first use."""
        if not self._places:
            # Sums over millions of escapes, which an upstream may send: no step of Python for each.
            self._places = list(accumulate(map(len, self._pieces)))[:-1:2]
            self._ends = list(accumulate(map(add, map(len, self._pieces[::2]), map(len, self._sources))))
        return bisect_right(self._places, offset) - 1


class _Plain(dict[bytes, bytes]):
    """Escapes already decoded; bounded, since an upstream chooses the spellings."""

    def __missing__(self, token: bytes) -> bytes:
        plain = _unescape(token)
        if len(self) < 8192:
            self[token] = plain
        return plain


_plain = _Plain()


def decoded(text: bytes, base: int, parent: View | None) -> list[View]:
    """The views of a text with one layer of escapes undone: of all kinds, and of each kind by itself.

    The first comes first; it is missing when there is nothing to undo. The others differ from it only where several
    kinds are there: then what one kind reads as an escape may be the beginning of a value that another kind wrote.
    """
    leads = [lead for lead in _TOKEN_BY_LEAD if lead in text]
    if len(leads) == 1 and b"\x1b" not in text and SEAM not in text:
        only = _view(_TOKEN_BY_LEAD[leads[0]], text, base, parent)
        return [] if only is None else [only]
    view = _view(_TOKEN, text, base, parent)
    if view is None:
        return []
    kinds = view.leads().intersection(leads)
    if len(kinds) < 2:
        return [view]
    single = [_view(_TOKEN_BY_LEAD[lead], text, base, parent) for lead in leads if lead in kinds]
    return [view, *filter(None, single)]


def _view(pattern: re.Pattern[bytes], text: bytes, base: int, parent: View | None) -> View | None:
    pieces = pattern.split(text)
    if len(pieces) == 1:
        return None
    sources = pieces[1::2]
    pieces[1::2] = map(_plain.__getitem__, sources)
    return View(pieces, sources, base, len(text), parent)


def joined(text: bytes, base: int) -> View | None:
    """The view without the line breaks of base64 (RFC 2045 section 6.8, PEM, JSON with escaped breaks)."""
    pieces: list[bytes] = []
    sources: list[bytes] = []
    done = 0
    for match in _LINE_BREAK.finditer(text):
        pieces += (text[done : match.start()], b"")
        sources.append(match.group())
        done = match.end()
    if not sources:
        return None
    pieces.append(text[done:])
    return View(pieces, sources, base, len(text), None)


def coloured(text: bytes) -> bool:
    """Whether a terminal changes its colour or its characters in a text."""
    return b"\x1b" in text and (COLOUR in text or CHARSET in text)  # one byte is looked for faster than several


def unfinished(text: bytes) -> int:
    """Where an escape begins that the end of the text cuts off; ``len(text)`` when there is none."""
    if text[-1:] not in _MAY_END_UNFINISHED:
        return len(text)
    tail = text[-PARTIAL_REACH:]
    if b"\\" not in tail and b"%" not in tail and b"&" not in tail:
        return len(text)
    match = _PARTIAL.search(tail)
    if match is None or (match.group(1) and match.group(1) not in _name_beginnings()):
        return len(text)
    return len(text) - len(tail) + match.start()


def unfinished_seam(text: bytes) -> int:
    """Where what stands for nothing begins that the end of the text cuts off, else ``len(text)``."""
    at = text.rfind(b"\x1b", -_COLOUR_REACH)
    if at >= 0 and _COLOUR_BEGUN.fullmatch(text, at):
        return at
    tail = text[1 - len(SEAM) :]
    at = tail.find(b"]")
    while at >= 0:
        if SEAM.startswith(tail[at:]):
            return len(text) - len(tail) + at
        at = tail.find(b"]", at + 1)
    return len(text)


@lru_cache(maxsize=1)
def _name_beginnings() -> frozenset[bytes]:
    return frozenset(name[:size] for name in _ENTITIES for size in range(1, len(name) + 1))


def undone(value: bytes) -> tuple[bytes, int]:
    """A value as the last view shows it, and how many layers that took; for values that themselves look escaped."""
    for count in range(PASSES):
        plain = _TOKEN.sub(lambda match: _unescape(match.group()), value)
        if plain == value:
            return value, count
        value = plain
    return value, PASSES


def misread(value: bytes) -> Iterator[bytes]:
    r"""What a view shows of a value right behind the beginning of an escape that does not belong to it.

    ``100%`` before ``41…`` is read as ``A…``, and a backslash before one that begins ``\u0025`` leaves ``\`` and these
    five letters. Behind the first character all is as it was, so that each is one more text to search for.
    """
    for begun in _BEGUN:
        token = _TOKEN.match(begun + value)
        if token and token.end() > len(begun):
            yield _unescape(token.group()) + value[token.end() - len(begun) :]
    first, size = _first(value)
    for spelled in (
        f"u{first:04x}",
        f"u{first:04X}",
        f"u{{{first:x}}}",
        f"x{first:02x}",
        f"x{first:02X}",
        f"{first:03o}",
    ):
        yield b"\\" + spelled.encode() + value[size:]


def _first(value: bytes) -> tuple[int, int]:
    """The first character of a value, and its bytes; a byte where it is no text."""
    for size in range(1, 5):
        try:
            return ord(value[:size].decode()), size
        except (UnicodeDecodeError, TypeError):
            continue
    return value[0], 1


def _unescape(token: bytes) -> bytes:
    lead, kind = token[:1], token[1:2]
    if lead == b"%":
        return _unit(token[2:]) if kind == b"u" else bytes.fromhex(token[1:].decode())
    if lead == b"\\":
        if kind == b"u":
            if len(token) == 12:  # a surrogate pair
                return bytes.fromhex((token[2:6] + token[8:]).decode()).decode("utf-16-be").encode()
            return _unit(token[2:].strip(b"{}"))
        if kind == b"x":
            return bytes.fromhex(token[2:].decode())
        return _SIMPLE.get(kind) or bytes((int(token[1:], 8),))
    if lead == b"&":
        name = token[1:].rstrip(b";")
        if not name.startswith(b"#"):
            return _ENTITIES.get(name, token)
        return _unit(name[2:]) if name[1:2] in b"xX" else _unit(f"{int(name[1:]):x}".encode())
    return b""  # the seam between two CDATA sections, or a colour


def _unit(digits: bytes) -> bytes:
    code = int(digits, 16)
    return chr(code).encode("utf-8", "surrogatepass") if code < 0x110000 else b"\xef\xbf\xbd"


_ALNUM = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
_BASE64 = frozenset(b"+/=-_")


class Gate:
    """Finds the parts of a text where an escape could belong to one of the values, or to their base64.

    Most escapes of ordinary traffic (a quote or line break in JSON, a space in a URL) stand for characters that no
    value contains; where none of the others is, no view is needed.

    Args:
        values: what is searched for.
    """

    __slots__ = ("_patterns", "_reach")

    def __init__(self, values: Iterable[bytes]) -> None:
        codes: set[int] = set()
        longest = 0
        for value in values:
            longest = max(longest, len(value))
            spelled = value + undone(value)[0]  # with the characters that its own escapes stand for
            try:
                codes.update(map(ord, spelled.decode()))
            except UnicodeDecodeError:
                codes.update(spelled)
        self._reach = 2 * longest + 32
        self._patterns = _gate_patterns(frozenset(codes))

    def regions(self, text: bytes, *, final: bool) -> list[tuple[int, int]]:
        """Half-open regions in ascending order, each with room for an occurrence around every escape in it.

        Of a text that goes on the end is one: the escape there may be that of a character that begins another escape.
        """
        found: list[tuple[int, int]] = []
        for lead, search in self._patterns:
            if lead in text:
                found += self._around(search, text)
        if not final:
            begin = max(len(text) - self._reach - _END, 0)
            last = text[-_END:]
            if b"\\" in last or b"%" in last or b"&" in last or coloured(last):
                found.append((begin, len(text)))
        if len(found) < 2:
            return found
        found.sort()
        merged = [found[0]]
        for begin, end in found[1:]:
            if begin <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((begin, end))
        return merged

    def _around(self, search: _Search, text: bytes) -> Iterator[tuple[int, int]]:
        """Regions that reach a step further ahead, so that the search may go on behind that step.

        An occurrence has at most one reach of unescaped bytes between two of its escapes. Where one escape follows
        another the steps grow, so that a text which is full of them costs few searches.
        """
        reach = step = self._reach
        match = search(text)
        while match:
            begin, end = match.span()
            yield max(begin - reach, 0), min(end + step + reach, len(text))
            behind = max(begin + step, end)
            match = search(text, behind)
            dense = match is not None and match.start() < behind + reach
            step = min(2 * step, max(reach, _LONGEST_STEP)) if dense else reach


@lru_cache(maxsize=256)
def _gate_patterns(codes: frozenset[int]) -> list[tuple[bytes, _Search]]:
    # An escaped colour stands for nothing a layer deeper, what begins an escape begins one there, and in UTF-16 every
    # other byte of most values is zero. An escaped & is so common that it counts where it begins one only.
    besides = {0, 0x1B, 0x25, 0x5C}
    every = sorted(codes | _ALNUM | _BASE64 | besides)
    text = "".join(map(chr, sorted(codes | _ALNUM)))
    octets = sorted(
        {byte for char in text for byte in char.encode("utf-8", "surrogatepass")} | codes & set(range(256)) | besides
    )
    units = sorted({int.from_bytes(chr(code).encode("utf-16-be", "surrogatepass")[:2], "big") for code in every})
    known = {chr(code).encode("utf-8", "surrogatepass") for code in every}
    simple = "".join(re.escape(key.decode()) for key, plain in _SIMPLE.items() if plain[0] in codes)
    names = "|".join(name.decode() for name, plain in _ENTITIES.items() if plain in known)
    decimals = "|".join(str(code) for code in every)
    hexes = "|".join(_any_case(f"{code:x}") for code in every)
    octet = _hex_alternatives([f"{octet:02x}" for octet in octets])
    unit = _hex_alternatives([f"{unit:04x}" for unit in units])
    entity = rf"\#(?:0{{0,6}}(?:{decimals})(?![0-9])|[xX]0{{0,6}}(?:{hexes})(?![0-9a-fA-F]))|(?:{names});"
    semicolon = r"(?:;|%3[bB]|\\(?:u003[bB]|x3[bB]|073))"
    hash_sign = r"\#|%23|\\(?:u0023|x23|043)|&\#(?:0{0,6}35|[xX]0{0,6}23);?"
    begins = rf"(?:{hash_sign}|(?:amp|{names}){semicolon})"
    backslash = rf"u(?:{unit}|\{{|0026{begins})|x(?:{octet}|26{begins})|[0-3][0-7]{{2}}"
    patterns = {
        "%": rf"%(?:25){{0,3}}(?:{octet}|u(?:{unit})|5[cC]|26{begins})",
        "\\": rf"\\(?:{backslash})" if not simple else rf"\\(?:[{simple}]|{backslash})",
        "&": rf"&(?:amp;){{0,3}}(?:{entity}|\#(?:0{{0,6}}38|[xX]0{{0,6}}26);?{begins})",
    }
    searches: list[tuple[bytes, _Search]] = [
        (lead.encode(), re.compile(pattern.encode()).search) for lead, pattern in patterns.items()
    ]
    colour = re.compile(_COLOUR).search
    return [*searches, (SEAM, re.compile(re.escape(SEAM)).search), (COLOUR, colour), (CHARSET, colour)]


class _Search(Protocol):
    def __call__(self, text: bytes, position: int = 0, /) -> re.Match[bytes] | None: ...


def _any_case(digits: str) -> str:
    return "".join(f"[{digit}{digit.upper()}]" if digit.isalpha() else digit for digit in digits)


def _hex_alternatives(numbers: list[str]) -> str:
    """A pattern for fixed-width hexadecimal numbers in any case, grouped by all digits but the last."""
    groups: dict[str, str] = {}
    for number in numbers:
        last = number[-1]
        groups[number[:-1]] = groups.get(number[:-1], "") + (last + last.upper() if last.isalpha() else last)
    return "|".join(f"{_any_case(prefix)}[{lasts}]" for prefix, lasts in groups.items())

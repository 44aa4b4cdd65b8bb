"""What a shape is."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass

from ahocorasick_rs import BytesAhoCorasick, Implementation, MatchKind

from keyhole.core.looks import entropy

Check = Callable[["re.Match[bytes]"], bool]

# What nobody's key has in it, but what stands for one: also our own placeholders. In lower case.
_STANDS_FOR = (
    *(b"keyhole", b"example", b"placeholder", b"changeme", b"change_me", b"change-me", b"redacted", b"dummy"),
    *(b"your-", b"your_", b"_here", b"-here", b"xxxxx", b"####", b"****", b"...", b"000000000000", b"aaaaaaaaaa"),
    *(b"abcdefghij", b"1234567890", b"0123456789", b"<", b">", b"$(", b"${", b"{{"),
)
_STANDS = BytesAhoCorasick(list(_STANDS_FOR), MatchKind.Standard, Implementation.DFA).find_matches_as_indexes


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """One kind of credential, as data.

    Attributes:
        name: by which it is reported and allowed; never changes.
        title: for a person.
        literals: lower case; one of them is in each occurrence, whatever its case there.
        pattern: matched ``before`` bytes ahead of a literal. Every repetition is bounded. The group ``v`` is the
            credential; all of it where there is none.
        examples: texts in which it is found, as templates: ``<m36>`` are 36 letters and digits (``a`` lower case, ``A``
            upper case, ``h`` and ``H`` hex, ``d`` digits, ``k`` base32, ``l`` letters), so that no text in the shape
            of a key stands in a source file.
        counters: texts in which it is not found.
        before: bytes of the pattern ahead of the literal.
        edge: neither a letter nor a digit may stand right before or after.
        bits: least entropy a character, to tell a key from what stands for one.
        entry: of the catalog, by which it is moved in.
        check: says whether a match of the pattern counts; what can be said by the pattern is said there.
        generic: what any other shape finds in the same place is the better name.
        run: a class of characters, of which everything is between the literal and what must follow; and what that is.
            It is looked for once for all literals in a run, and not again for each.
    """

    name: str
    title: str
    literals: tuple[str, ...]
    pattern: str
    examples: tuple[str, ...]
    counters: tuple[str, ...] = ()
    before: int = 0
    edge: bool = True
    bits: float = 3.0
    entry: str = ""
    check: Check | None = None
    generic: bool = False
    run: tuple[str, str] | None = None

    @property
    def regex(self) -> re.Pattern[bytes]:
        """The pattern, made when it is first needed: most texts need few of them."""
        return _compiled(self.pattern + ("(?![A-Za-z0-9_])" if self.edge else ""))

    @property
    def runs(self) -> tuple[re.Pattern[bytes], re.Pattern[bytes]] | None:
        """What stands in a run, and what must follow."""
        return (_compiled(f"{self.run[0]}*"), _compiled(self.run[1])) if self.run else None

    def counts(self, match: re.Match[bytes], begin: int, end: int) -> bool:
        """Whether a match of the pattern, whose value stands there, is one."""
        value = match.string[begin:end]
        if stands_for(value) or (self.bits and entropy(value) < self.bits):
            return False
        return self.check is None or self.check(match)


@functools.cache
def _compiled(source: str) -> re.Pattern[bytes]:
    return re.compile(source.encode())


def stands_for(value: bytes) -> bool:
    """Is it a placeholder, ours or another's, and no key?"""
    return bool(_STANDS(value.lower()))


def joined(data: bytes, at: int) -> bool:
    """Does a word go on here? The letter that ends an escape (a backslash and ``n``, or ``%3D``) is no word."""
    byte = data[at - 1]
    if not (byte == 0x5F or 0x30 <= byte <= 0x39 or 0x41 <= byte <= 0x5A or 0x61 <= byte <= 0x7A):
        return False
    escaped = at > 1 and data[at - 2] == 0x5C and byte in b"nrt"
    return not (escaped or (at > 2 and data[at - 3] == 0x25))

"""Text with byte offsets: everything is scanned as Latin-1, where a character is a byte, and decoded at the end.

The syntax of all these files is ASCII, so this finds the same as scanning UTF-8, and offsets are those of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from keyhole.core.errors import InvalidRequest
from keyhole.importers.found import LIMITS

_BOM = "\xef\xbb\xbf"
_WIDE = (b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")
_LINE = re.compile(r"([^\r\n]*)(\r\n|\n|\r|\Z)")


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its end.

    Attributes:
        number: from 1.
        start: offset of its first byte.
        text: as Latin-1.
    """

    number: int
    start: int
    text: str

    @property
    def where(self) -> str:
        """For a person."""
        return f"line {self.number}"


def scan(content: bytes) -> str:
    """The bytes as a text of as many characters.

    Raises:
        InvalidRequest: it is too large, in UTF-16, or no text at all.
    """
    if len(content) > LIMITS.file:
        raise InvalidRequest(f"it is larger than {LIMITS.file // 2**20} MiB", "import what is in it by hand")
    if content.startswith(_WIDE):
        raise InvalidRequest("it is not UTF-8 but UTF-16 or UTF-32", "save it as UTF-8")
    if b"\0" in content:
        raise InvalidRequest("it is not a text file", "name another")
    return content.decode("latin-1")


def first(text: str) -> int:
    """Where the text begins, after a byte order mark."""
    return len(_BOM) if text.startswith(_BOM) else 0


def lines(text: str) -> Iterator[Line]:
    """The lines, which end as in Unix, Windows or old Macs."""
    position, number = first(text), 0
    while position < len(text):
        match = _LINE.match(text, position)
        if match is None:  # the pattern matches everywhere; this is for the type checker
            return
        number += 1
        yield Line(number, position, match[1])
        position = match.end()


def decoded(scanned: str) -> str | None:
    """A part of a scanned text as what it says; ``None`` where it is not UTF-8."""
    if scanned.isascii():
        return scanned
    try:
        return scanned.encode("latin-1").decode()
    except UnicodeDecodeError:
        return None

"""Lines of sections and settings, with offsets: what npm, pip and AWS each call ini."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from keyhole.importers.text import lines

_SECTION = re.compile(r"[ \t]*\[([^\]]*)\]")
_SPACE = " \t"


@dataclass(frozen=True, slots=True)
class Setting:
    """A name and its value.

    Attributes:
        section: in which it stands; empty before the first.
        name: as written.
        raw: the value as scanned, without white space at its ends.
        start: offset of its first byte.
        line: number.
    """

    section: str
    name: str
    raw: str
    start: int
    line: int

    @property
    def end(self) -> int:
        """Offset after the last byte of the value."""
        return self.start + len(self.raw)

    @property
    def where(self) -> str:
        """For a person."""
        return f"line {self.line}"


def settings(text: str, *, colons: bool = True) -> Iterator[Setting]:
    """Every setting of a scanned text, and every indented line as one without a name.

    Args:
        text: the text.
        colons: a colon separates as an equals sign does; npm has them in names.
    """
    section = ""
    for line in lines(text):
        plain = line.text.strip()
        if not plain or plain[0] in "#;":
            continue
        head = _SECTION.match(line.text)
        if head:
            section = head[1].strip()
            continue
        lead = len(line.text) - len(line.text.lstrip(_SPACE))
        if colons and lead:
            yield Setting(section, "", plain, line.start + lead, line.number)
            continue
        mark = min((at for at in (line.text.find(char) for char in ("=:" if colons else "=")) if at > 0), default=0)
        name, value = line.text[:mark].strip(_SPACE), line.text[mark + 1 :]
        if mark and name:
            start = line.start + mark + 1 + len(value) - len(value.lstrip(_SPACE))
            yield Setting(section, name, value.strip(_SPACE), start, line.number)

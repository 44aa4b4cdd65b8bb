"""A credential that stands where it should not, and the findings that somebody has accepted."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

from keyhole.scrub.shapes import Match, finder

ACCEPTED = ".keyhole-allow"
_ALLOW = re.compile(rb"keyhole:allow(?:=([a-z0-9,-]{1,200}))?")
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")
_HEAD = 8000  # bytes in which git looks for a zero to call a file binary


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what is looked at.

    Attributes:
        file: bytes of one file or blob; what is longer is looked at so far, and said to be.
        findings: in one file.
    """

    file: int = 64 * 1024 * 1024
    findings: int = 1000


LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Finding:
    """One credential, without its value.

    Attributes:
        path: of the file.
        line: from 1; 0 in a file that is no text.
        column: bytes from 1; the offset plus one in a file that is no text.
        rule: name of the shape.
        title: what it is, for a person.
        fingerprint: of shape and value.
        entry: of the catalog, by which it can be moved in; may be empty.
        start: offset of its first byte, in the text as UTF-8.
        end: offset after the last one.
    """

    path: str
    line: int
    column: int
    rule: str
    title: str
    fingerprint: str
    entry: str
    start: int
    end: int

    @property
    def where(self) -> str:
        """Path and line, as editors and people read them."""
        return f"{self.path}:{self.line}" if self.line else f"{self.path} at byte {self.column - 1}"


def look(path: str, data: bytes, limits: Limits = LIMITS) -> list[Finding]:
    """The credentials in a file, without those that its own lines say are none."""
    return [finding for finding, _ in look_at(path, data, limits)]


def look_at(path: str, data: bytes, limits: Limits = LIMITS) -> list[tuple[Finding, bytes]]:
    """As ``look``, with the values: for who compares them."""
    text = as_text(data[: limits.file])
    matches = finder().find(text)
    if not matches:
        return []
    binary = b"\0" in text[:_HEAD]
    starts = [0] if binary else [0, *(match.end() for match in re.finditer(rb"\n", text))]
    found = []
    for match in matches[: limits.findings]:
        number = bisect_right(starts, match.start)
        if binary or not _is_allowed(text, starts, number, match.shape.name):
            line, column = (0, match.start + 1) if binary else (number, match.start - starts[number - 1] + 1)
            found.append((_finding(path, line, column, match, text), text[match.start : match.end]))
    return found


def as_text(data: bytes) -> bytes:
    """UTF-16 as UTF-8, everything else as it is."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace").encode("utf-8", "replace")
    return data


def _finding(path: str, line: int, column: int, match: Match, text: bytes) -> Finding:
    shape = match.shape
    told = match.fingerprint(text)
    return Finding(path, line, column, shape.name, shape.title, told, shape.entry, match.start, match.end)


def _is_allowed(text: bytes, starts: list[int], number: int, rule: str) -> bool:
    """A comment on the line, or on the one before, says that it is no secret."""
    for line in (number, number - 1):
        if line:
            end = starts[line] if line < len(starts) else len(text)
            allow = _ALLOW.search(text, starts[line - 1], min(end, starts[line - 1] + 4096))
            if allow and (not allow[1] or rule in allow[1].decode().split(",")):
                return True
    return False


class Accepted:
    """Findings that a team has looked at and called harmless: lines of fingerprints, each with a comment that says why.

    Args:
        content: of the file.
    """

    def __init__(self, content: bytes = b"") -> None:
        self._known = frozenset(self._read(content.decode("utf-8", "replace")))

    @staticmethod
    def _read(text: str) -> Iterator[str]:
        for line in text.splitlines():
            word = line.partition("#")[0].split()
            if word and _FINGERPRINT.fullmatch(word[0]):
                yield word[0]

    def __contains__(self, finding: Finding) -> bool:
        return finding.fingerprint in self._known

    def __len__(self) -> int:
        return len(self._known)

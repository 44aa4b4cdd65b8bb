"""Lines of JSON stay JSON where a number was masked: it becomes a text of the same length."""

from __future__ import annotations

import json
import re

_MOST = 1 << 18  # bytes of a line that are waited for
_NUMBER = rb"[-+.0-9eE]*+\*[-+.0-9eE*]*+"
_TEXT = rb'"(?:[^"\\]|\\.)*+"'
_EITHER = re.compile(_TEXT + b"|" + _NUMBER, re.DOTALL)
_MEMBER = re.compile(rb"\s*+" + _TEXT + rb"\s*+:\s*+" + _NUMBER + rb"\s*+,?\s*+", re.DOTALL)
_BEGINS = (b"{", b"[", b'"')


class JsonLines:
    """Looks at what leaves a scrubber, line by line: ``{"pin": ********}`` is no JSON, ``{"pin": "******"}`` is.

    Whole lines of JSON are mended, and lines with one member each, as programs indent it. Everything else stays.
    """

    def __init__(self) -> None:
        self._kept = b""
        self._inside = False  # the rest of a line whose beginning has left

    def feed(self, data: bytes) -> bytes:
        """What can leave now: whole lines, and what begins no JSON."""
        text = self._kept + data
        cut = text.rfind(b"\n") + 1
        if not cut and self._inside:
            return data
        out, self._kept = self._lines(text[:cut]), text[cut:]
        if cut:
            self._inside = False
        begun = self._kept.lstrip(b" \t")
        if begun and (not begun.startswith(_BEGINS) or len(begun) > _MOST):
            out += self._left()
        return out

    def idle(self) -> bytes:
        """What can leave because nothing comes: a question to a person is no object of JSON."""
        return b"" if self._kept.lstrip().startswith(b'{"') else self._left()

    def finish(self) -> bytes:
        """All the rest."""
        return self._lines(self._kept)

    def _left(self) -> bytes:
        out, self._kept = self._kept, b""
        self._inside = self._inside or bool(out)
        return out

    def _lines(self, text: bytes) -> bytes:
        if b"*" not in text:
            return text
        first, *rest = text.splitlines(keepends=True)
        return b"".join([first if self._inside else _mended(first), *map(_mended, rest)])


def _mended(line: bytes) -> bytes:
    begun = line.lstrip()
    if b"*" not in line or not begun.startswith(_BEGINS):
        return line
    member = _MEMBER.fullmatch(line) is not None
    if member is (begun[:1] != b'"'):
        return line
    made = _EITHER.sub(_as_text, line)
    whole = b"{" + made.strip().removesuffix(b",") + b"}" if member else made
    try:
        json.loads(whole)
    except (ValueError, RecursionError):
        return line
    return made


def _as_text(found: re.Match[bytes]) -> bytes:
    size = len(found[0])
    return found[0] if found[0][:1] == b'"' or size < 3 else b'"' + b"*" * (size - 2) + b'"'

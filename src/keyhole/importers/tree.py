"""JSON (RFC 8259) with offsets, and with the comments and last commas that editors allow in their own files."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from keyhole.core.errors import InvalidRequest
from keyhole.importers.found import LIMITS
from keyhole.importers.text import decoded, first

_SPACE = re.compile(r"(?:[ \t\r\n]+|//[^\r\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING = re.compile(r'"([^"\\\x00-\x1f]*(?:\\.[^"\\\x00-\x1f]*)*)"', re.DOTALL)
_OTHER = re.compile(r"true|false|null|-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_UNIT = re.compile(r"\\u[0-9a-fA-F]{4}|\\.|[\x00-\x7f]|[\xc0-\xff][\x80-\xbf]*|.", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Text:
    """A string.

    Attributes:
        value: what it says; ``None`` where it is not UTF-8 or has half of a surrogate pair.
        raw: as scanned, between the quotes.
        start: offset of the first byte after the quote.
    """

    value: str | None
    raw: str
    start: int

    def span(self, begin: int, end: int) -> tuple[int, int]:
        """Offsets of the bytes that say ``value[begin:end]``."""
        if "\\" not in self.raw and self.raw.isascii():
            return self.start + begin, self.start + end
        at, index, found = 0, 0, dict[int, int]()
        for unit in _UNIT.finditer(self.raw):
            found.setdefault(index, at)
            at = unit.end()
            # The second half of a surrogate pair belongs to the character before it.
            index += 0 if re.match(r"\\u[dD][c-fC-F]", unit[0]) else 1
        found[index] = at
        return self.start + found[begin], self.start + found[end]


Node: TypeAlias = "dict[str, Node] | list[Node] | Text | None"
"""What stands in the file; numbers, truth values and null are ``None``."""


def read(text: str) -> Node:
    """The tree of a scanned text. Of two members with one name the last counts, as everywhere.

    Raises:
        InvalidRequest: it is not JSON, or nested too deeply; with the line.
    """
    reader = _Reader(text)
    node = reader.node(0)
    reader.skip()
    if reader.position < len(text):
        reader.fail("goes on after its end")
    return node


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.position = first(text)
        self.nodes = 0

    def fail(self, what: str) -> NoReturn:
        line = self.text.count("\n", 0, self.position) + 1
        raise InvalidRequest(f"it is not JSON: line {line} {what}", "open it in an editor that shows the mistake")

    def skip(self) -> None:
        match = _SPACE.match(self.text, self.position)
        self.position = match.end() if match else self.position

    def take(self, char: str) -> bool:
        self.skip()
        if self.text.startswith(char, self.position):
            self.position += len(char)
            return True
        return False

    def node(self, depth: int) -> Node:
        if depth > LIMITS.depth:
            self.fail("is nested too deeply")
        self.nodes += 1
        if self.nodes > LIMITS.nodes:
            self.fail("has more values than any configuration")
        self.skip()
        if self.take("{"):
            return self.members(depth)
        if self.take("["):
            return self.items(depth)
        if self.text.startswith('"', self.position):
            return self.string()
        other = _OTHER.match(self.text, self.position)
        if other is None:
            self.fail("has something that is no value")
        self.position = other.end()
        return None

    def members(self, depth: int) -> Node:
        found: dict[str, Node] = {}
        while not self.take("}"):
            if not self.text.startswith('"', self.position):
                self.fail("has no name in quotes where one has to be")
            name = self.string().value
            if not self.take(":"):
                self.fail("has no colon after a name")
            node = self.node(depth + 1)
            if name is not None:
                found[name] = node
            if not self.take(",") and not self.text.startswith("}", self.position):
                self.fail("has no comma between two members")
        return found

    def items(self, depth: int) -> Node:
        found: list[Node] = []
        while not self.take("]"):
            found.append(self.node(depth + 1))
            if not self.take(",") and not self.text.startswith("]", self.position):
                self.fail("has no comma between two items")
        return found

    def string(self) -> Text:
        match = _STRING.match(self.text, self.position)
        if match is None:
            self.fail("has a string that does not end, or has a control character")
        self.position = match.end()
        plain = decoded(match[1])
        try:
            value = None if plain is None else str(json.loads(f'"{plain}"'))
        except ValueError:
            self.fail("has an escape that JSON does not know")
        if value is not None and any("\ud800" <= char <= "\udfff" for char in value):
            value = None
        return Text(value, match[1], match.start(1))

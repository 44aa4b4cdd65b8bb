"""JSON (RFC 8259) and YAML (1.2, core schema) as one tree that knows where everything stands.

What readers could take in two ways is refused: a key that stands twice, anchors, aliases and tags, several documents.
Plain scalars of YAML are null, booleans and numbers where JSON has them too, and else texts: no dates, no ``yes``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NoReturn

from keyhole.faces.workflow.problem import Problem, Unreadable


@dataclass(frozen=True, slots=True)
class ReadingLimits:
    """Bounds on a document.

    Attributes:
        size: bytes.
        depth: nesting.
        nodes: values, keys included.
    """

    size: int = 1024 * 1024
    depth: int = 32
    nodes: int = 20_000


LIMITS = ReadingLimits()
Scalar = str | int | float | bool | None
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][-+]?[0-9]{1,2})?")
_WORDS: dict[str, Scalar] = {"null": None, "~": None, "": None, "true": True, "false": False}
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
_EDITOR = "open it in an editor that shows the mistake"
_UNSAFE = re.compile("[\x00\ud800-\udfff]")


@dataclass(slots=True)
class Node:
    """A value and its place.

    Attributes:
        line, column: from 1, in characters.
        value: a scalar, a list of nodes, or an object of them.
        keys: places of the keys of an object.
    """

    line: int
    column: int
    value: Scalar | list[Node] | dict[str, Node]
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)

    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {name: node.plain() for name, node in self.value.items()}
        return [node.plain() for node in self.value] if isinstance(self.value, list) else self.value

    def walk(self, where: str = "") -> Iterator[tuple[str, Node]]:
        """All values below, with their JSON pointers (RFC 6901), in order."""
        yield where, self
        if isinstance(self.value, dict):
            for name, node in self.value.items():
                yield from node.walk(f"{where}/{name.replace('~', '~0').replace('/', '~1')}")
        elif isinstance(self.value, list):
            for number, node in enumerate(self.value):
                yield from node.walk(f"{where}/{number}")


def read(content: bytes, limits: ReadingLimits = LIMITS) -> tuple[Node, str]:
    """The tree of a document, and its text.

    Raises:
        Unreadable: it is neither JSON nor YAML, could be read in two ways, or is larger than the bounds.
    """
    if len(content) > limits.size:
        raise _broken(1, 1, f"it has more than {limits.size} bytes", "split the workflow")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise _broken(1, 1, "it is not UTF-8", "save it as UTF-8") from None
    root = _Json(text, limits).read() if text.lstrip().startswith("{") else _read_yaml(text, limits)
    if not isinstance(root.value, dict):
        raise _broken(root.line, root.column, "a workflow is an object", "begin with: workflow: NAME")
    return root, text


def parse_plain(text: str) -> Scalar:
    """What a plain scalar is."""
    if text in _WORDS:
        return _WORDS[text]
    match = _NUMBER.fullmatch(text)
    if match is None:
        return text
    return float(text) if match[1] or match[2] else int(text)


def _broken(line: int, column: int, reason: str, hint: str = _EDITOR) -> Unreadable:
    return Unreadable(Problem(line, column, "", "syntax", reason, hint))


class _Json:
    """A reader of JSON that remembers places."""

    def __init__(self, text: str, limits: ReadingLimits) -> None:
        self._text = text
        self._limits = limits
        self._count = 0
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]

    def read(self) -> Node:
        at = self._space(0)
        node, at = self._value(at, 0)
        if self._space(at) != len(self._text):
            self._fail(self._space(at), "something follows the document")
        return node

    def _place(self, at: int) -> tuple[int, int]:
        from bisect import bisect_right  # noqa: PLC0415  # JSON alone needs it

        line = bisect_right(self._lines, at)
        return line, at - self._lines[line - 1] + 1

    def _fail(self, at: int, reason: str = "it is not JSON here") -> NoReturn:
        raise _broken(*self._place(min(at, len(self._text))), reason)

    def _space(self, at: int) -> int:
        match = _SPACE.match(self._text, at)
        return at if match is None else match.end()

    def _value(self, at: int, depth: int) -> tuple[Node, int]:
        self._count += 1
        if self._count > self._limits.nodes or depth > self._limits.depth:
            self._fail(at, "it is nested too deeply, or has too many values")
        line, column = self._place(at)
        first = self._text[at : at + 1]
        if first == "{":
            return self._object(Node(line, column, {}), at + 1, depth)
        if first == "[":
            return self._list(Node(line, column, []), at + 1, depth)
        if first == '"':
            text, end = self._string(at)
            return Node(line, column, text), end
        for word in ("null", "true", "false"):
            if self._text.startswith(word, at):
                return Node(line, column, _WORDS[word]), at + len(word)
        match = _NUMBER.match(self._text, at)
        if match is None:
            self._fail(at)
        return Node(line, column, parse_plain(match[0])), match.end()

    def _string(self, at: int) -> tuple[str, int]:
        try:
            text, end = _DECODER.raw_decode(self._text, at)
        except json.JSONDecodeError as error:
            self._fail(error.pos)
        if _UNSAFE.search(text):
            self._fail(at, "a text has a NUL or half of a surrogate pair")
        return text, end

    def _object(self, node: Node, at: int, depth: int) -> tuple[Node, int]:
        found: dict[str, Node] = {}
        node.value = found

        def member(at: int) -> int:
            if self._text[at : at + 1] != '"':
                self._fail(at)
            name, end = self._string(at)
            if name in found:
                self._fail(at, "a key stands twice")
            node.keys[name] = self._place(at)
            end = self._space(end)
            if self._text[end : end + 1] != ":":
                self._fail(end)
            found[name], end = self._value(self._space(end + 1), depth + 1)
            return end

        return node, self._members(at, "}", member)

    def _list(self, node: Node, at: int, depth: int) -> tuple[Node, int]:
        found: list[Node] = []
        node.value = found

        def member(at: int) -> int:
            item, end = self._value(at, depth + 1)
            found.append(item)
            return end

        return node, self._members(at, "]", member)

    def _members(self, at: int, closing: str, member: Callable[[int], int]) -> int:
        at = self._space(at)
        if self._text[at : at + 1] == closing:
            return at + 1
        while True:
            at = self._space(member(self._space(at)))
            mark = self._text[at : at + 1]
            if mark == closing:
                return at + 1
            if mark != ",":
                self._fail(at)
            at += 1


def _read_yaml(text: str, limits: ReadingLimits) -> Node:
    import yaml  # noqa: PLC0415  # JSON needs none of it

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _Yaml(limits).read(yaml.parse(text, loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _broken(*((mark.line + 1, mark.column + 1) if mark else (1, 1)), "it is not YAML here") from None
    except (yaml.YAMLError, RecursionError):
        raise _broken(1, 1, "it has characters that YAML has not") from None


class _Yaml:
    """Builds a tree of the events of a parser, without recursion: a hostile file is as deep as it likes."""

    def __init__(self, limits: ReadingLimits) -> None:
        self._limits = limits
        self._open: list[tuple[Node, tuple[str, int, int] | None]] = []
        self._root: Node | None = None
        self._count = 0

    def read(self, events: Iterator[Any]) -> Node:
        import yaml  # noqa: PLC0415  # as above

        for event in events:
            line, column = event.start_mark.line + 1, event.start_mark.column + 1
            self._count += 1
            if self._count > 2 * self._limits.nodes or len(self._open) > self._limits.depth:
                raise _broken(line, column, "it is nested too deeply, or has too many values", "split it")
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                raise _broken(line, column, "it has an anchor or an alias", "write the value out")
            if getattr(event, "tag", None):
                raise _broken(line, column, "it has a tag", "write the value without it")
            if isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
                self._open.pop()
            elif isinstance(event, yaml.MappingStartEvent):
                self._put(Node(line, column, {}), opens=True)
            elif isinstance(event, yaml.SequenceStartEvent):
                self._put(Node(line, column, []), opens=True)
            elif isinstance(event, yaml.ScalarEvent):
                plain = event.implicit[0]
                self._put(Node(line, column, parse_plain(event.value) if plain else event.value), key=event.value)
        if self._root is None:
            raise _broken(1, 1, "it is empty", "begin with: workflow: NAME")
        return self._root

    def _put(self, node: Node, *, opens: bool = False, key: str | None = None) -> None:
        """Where a node belongs: a key waits for what follows it."""
        if isinstance(node.value, str) and _UNSAFE.search(node.value):
            raise _broken(node.line, node.column, "a text has a NUL or half of a surrogate pair")
        if not self._open:
            if self._root is not None:
                raise _broken(node.line, node.column, "it has several documents", "write a file for each")
            self._root = node
        else:
            self._put_below(node, key)
        if opens:
            self._open.append((node, None))

    def _put_below(self, node: Node, key: str | None) -> None:
        parent, waiting = self._open[-1]
        if isinstance(parent.value, list):
            parent.value.append(node)
        elif waiting is None:
            if key is None:
                raise _broken(node.line, node.column, "a key is no text", "write another")
            if key == "<<":
                raise _broken(node.line, node.column, "it has a merge key", "write the members out")
            self._open[-1] = (parent, (key, node.line, node.column))
        else:
            name, *place = waiting
            if not isinstance(parent.value, dict) or name in parent.value:
                raise _broken(place[0], place[1], "a key stands twice", "take one out")
            parent.value[name] = node
            parent.keys[name] = (place[0], place[1])
            self._open[-1] = (parent, None)

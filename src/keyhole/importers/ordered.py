"""YAML and JSON as ordered trees of texts, the way that sops reads them: what it makes of each value, byte for byte.

No alias, no key twice, bounded in depth and number; nothing of YAML is constructed. Plain scalars are resolved as
gopkg.in/yaml.v3 does, and written as Go writes numbers, since a digest runs over that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeAlias

import yaml

from keyhole.core.errors import InvalidRequest
from keyhole.core.strict_json import JsonBounds, parse_json
from keyhole.importers.found import LIMITS

MAX_YAML = 2 * 1024 * 1024
"""Bytes of a YAML file; a reader of YAML is slow."""
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE, _FALSE = frozenset({"true", "True", "TRUE"}), frozenset({"false", "False", "FALSE"})
_INT = re.compile(r"[-+]?(?:0b[01_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_TIME = re.compile(r"[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt ][0-9:.]+(?:Z|[-+][0-9:]+)?)?")
_MAX_DIGITS = 40


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value; ``text`` is how sops writes it into its digest, ``None`` for null."""

    text: str | None


@dataclass(frozen=True, slots=True)
class Branch:
    """Keys and what stands below them, in the order of the file."""

    items: list[tuple[str, Tree]]

    def get(self, key: str) -> Tree | None:
        """What stands below a key; ``None`` where it is not there."""
        return next((node for name, node in self.items if name == key), None)


Tree: TypeAlias = "Branch | list[Tree] | Scalar"


def from_json(content: bytes) -> Tree:
    """The tree of a JSON document. Raises ``InvalidRequest``."""
    bounds = JsonBounds(LIMITS.depth, LIMITS.file, LIMITS.nodes)
    return _of(parse_json(content.removeprefix(b"\xef\xbb\xbf"), bounds))


def _of(value: Any) -> Tree:
    if isinstance(value, dict):
        return Branch([(key, _of(each)) for key, each in value.items()])
    if isinstance(value, list):
        return [_of(each) for each in value]
    if isinstance(value, bool):
        return Scalar("True" if value else "False")
    if isinstance(value, int | float):
        return Scalar(go_float(float(value)))  # Go reads every number of JSON as float64
    return Scalar(value)


def from_yaml(content: bytes) -> Tree:
    """The tree of a YAML file of one document. Raises ``InvalidRequest``."""
    if len(content) > MAX_YAML:
        raise InvalidRequest(f"it is YAML of more than {MAX_YAML // 2**20} MiB", "split it")
    try:
        return _build(yaml.parse(content.decode(), _LOADER))
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f" in line {error.problem_mark.line + 1}"
        raise InvalidRequest(f"it is not YAML{line}", "open it in an editor that shows the mistake") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        raise InvalidRequest("it is not YAML in UTF-8", "save it as UTF-8") from None


def _build(events: Iterator[Any]) -> Tree:
    """Without recursion: a hostile file is as deep as it likes."""
    top: list[Tree] = []
    open_nodes: list[tuple[Branch | list[Tree], str | None]] = []
    count = 0
    for event in events:
        count += 1
        if count > LIMITS.nodes or len(open_nodes) > LIMITS.depth:
            raise InvalidRequest("it is nested too deeply, or has too many values", "split it")
        if isinstance(event, yaml.AliasEvent):
            raise InvalidRequest("it has an alias, which makes a small file a large one", "write its value out")
        if isinstance(event, yaml.DocumentStartEvent) and top:
            raise InvalidRequest("it has several documents", "split it into a file each")
        if isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            open_nodes.pop()
            continue
        node: Tree
        if isinstance(event, yaml.MappingStartEvent):
            node = Branch([])
        elif isinstance(event, yaml.SequenceStartEvent):
            node = []
        elif isinstance(event, yaml.ScalarEvent):
            node = _scalar(event)
        else:
            continue
        _put(node, event, open_nodes, top)
        if isinstance(node, Branch | list):
            open_nodes.append((node, None))
    if len(top) != 1:
        raise InvalidRequest("it is empty", "name another file")
    return top[0]


def _put(node: Tree, event: Any, open_nodes: list[tuple[Branch | list[Tree], str | None]], top: list[Tree]) -> None:
    """Where a node belongs: a key waits for what follows it."""
    if not open_nodes:
        top.append(node)
        return
    parent, key = open_nodes[-1]
    if isinstance(parent, list):
        parent.append(node)
    elif key is None:
        if not isinstance(event, yaml.ScalarEvent):
            raise InvalidRequest("it has a key that is no text", "write another")
        open_nodes[-1] = (parent, event.value)
    else:
        parent.items.append((key, node))
        open_nodes[-1] = (parent, None)
        # Looked up once a branch would be quadratic; the check follows when all keys are there.


def require_unique(tree: Tree) -> None:
    """Raises ``InvalidRequest`` for a key that stands twice: readers differ in which one counts."""
    stack = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, Branch):
            if len({key for key, _ in node.items}) != len(node.items):
                raise InvalidRequest("a key stands twice, and readers differ in which counts", "take one out")
            stack += [each for _, each in node.items]
        elif isinstance(node, list):
            stack += node


def _scalar(event: Any) -> Scalar:
    value: str = event.value
    if not event.implicit[0]:  # quoted, or tagged by hand
        return Scalar(value)
    if value in _NULL:
        return Scalar(None)
    if value in _TRUE or value in _FALSE:
        return Scalar("True" if value in _TRUE else "False")
    plain = value.replace("_", "")
    if _INT.fullmatch(value) and len(plain) <= _MAX_DIGITS:
        return Scalar(_integer(plain))
    if _FLOAT.fullmatch(plain):
        return Scalar(go_float(float(plain)))
    return Scalar(_time(value) if _TIME.fullmatch(value) else value)


def _integer(plain: str) -> str:
    sign, digits = ("-" if plain.startswith("-") else ""), plain.lstrip("+-")
    octal = len(digits) > 1 and digits.startswith("0") and digits.isdigit()
    try:
        return str(int(sign + digits, 8) if octal else int(sign + digits, 0))
    except ValueError:
        return go_float(float(plain)) if _FLOAT.fullmatch(plain) else plain


def _time(value: str) -> str:
    try:
        when = datetime.fromisoformat(value)
    except ValueError:
        return value
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    fraction = f".{when.microsecond:06}".rstrip("0") if when.microsecond else ""
    zone = when.strftime("%z")
    return when.strftime("%Y-%m-%dT%H:%M:%S") + fraction + ("Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}")


def go_float(number: float) -> str:
    """As Go's ``strconv.FormatFloat(number, 'f', -1, 64)``: the shortest that reads the same, without an exponent."""
    text = format(Decimal(repr(number)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text

r"""Policies as people write them: HCL, JSON, or base64 of either, read into the stanzas that ``PathRule`` takes.

The language is the subset of HCL 1 that policies need: items are keys with ``= value`` or ``{ ... }``, values are
strings, numbers, booleans, lists and objects. Nothing is evaluated: there are no functions, interpolations or here
documents, so a text has one meaning, and reading it takes time linear in its length. HCL itself lets the last of two
equal keys win, which would let the end of a stanza quietly undo its beginning; here a second one is refused.

Source of the stanza's keys: ``developer.hashicorp.com/vault/docs/concepts/policies``.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import math
import re
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from keyhole.core.codepoints import is_invisible
from keyhole.core.errors import InvalidRequest
from keyhole.core.lease import parse_duration
from keyhole.core.policy import PathRule

MAX_POLICY = 256 * 1024  # bytes of UTF-8
MAX_DEPTH = 16  # a stanza with parameters needs 5
MAX_RULE_PATH = 1024  # characters; a template is longer than what it stands for

_WRITE = ("create", "read", "update", "delete", "list")
_OLD_POLICIES = {"deny": ("deny",), "read": ("read", "list"), "write": _WRITE, "sudo": (*_WRITE, "sudo")}
_BASE64 = re.compile(r"[A-Za-z0-9+/=\s]+")
_TOKEN = re.compile(
    r"""(?P<blank>[ \t\r\n]++|(?:\#|//)[^\n]*+|/\*(?s:.)*?\*/)
    |(?P<string>"(?:[^"\\\n]|\\.)*+")
    |(?P<number>-?\d{1,40}(?:\.\d{1,40})?(?:[eE][+-]?\d{1,3})?(?![\w.]))
    |(?P<word>[A-Za-z_][\w.-]*+)
    |(?P<mark>[\[\]{}=,])""",
    re.VERBOSE | re.ASCII,
)
_ESCAPE = re.compile(r"\\(?:u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|(.))", re.DOTALL)
_ESCAPES = {'"': '"', "\\": "\\", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_LARGEST = 1e40  # what is longer than the digits of a number token could not be written back
_HINT = 'write stanzas like: path "secret/data/x" { capabilities = ["read"] }'


class _Item(NamedTuple):
    """One ``keys = value`` or ``keys { ... }``; ``line`` is 0 where it is not known."""

    keys: tuple[str, ...]
    value: Any
    line: int


@dataclass(frozen=True, slots=True)
class _Object:
    items: tuple[_Item, ...]


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


def parse_policy(text: str) -> list[dict[str, Any]]:
    """The stanzas of a policy, in their order, each in the form that ``PathRule.from_data`` takes.

    A stanza has ``path`` and ``capabilities``, and ``allowed_parameters``, ``denied_parameters``,
    ``required_parameters``, ``min_wrapping_ttl`` and ``max_wrapping_ttl`` (seconds) where they are set. The old
    ``policy = "read"`` is translated into capabilities. Several stanzas may have the same path.

    Raises:
        InvalidRequest: the text is empty, longer than ``MAX_POLICY``, no policy, or says a thing twice.
    """
    source = _source(text)
    root = _from_json(source) if source.lstrip().startswith("{") else _Reader(source).root()
    stanzas = [_stanza(path, body, line) for path, body, line in _path_blocks(root)]
    if not stanzas:
        _fail("it has no path stanza")
    return stanzas


Item = tuple[tuple[str, ...], Any, int]
"""Keys, value and line; a value in braces is a list of items."""


def parse_items(text: str) -> list[Item]:
    """What a text in the same language says, for who has other keys. Raises ``InvalidRequest``."""
    source = _source(text)
    return _plain(_from_json(source) if source.lstrip().startswith("{") else _Reader(source).root())


def _plain(body: _Object) -> list[Item]:
    """Objects as lists; JSON writes ``rule "charset" {}`` as nested objects, or as a list of them."""
    found: list[Item] = []
    for keys, value, line in body.items:
        inner = value if isinstance(value, list) and value and all(isinstance(v, _Object) for v in value) else [value]
        for each in inner:
            items = _plain(each) if isinstance(each, _Object) else each
            if (
                line == 0
                and isinstance(items, list)
                and all(isinstance(v, tuple) and isinstance(v[1], list) for v in items)
            ):
                found += (((*keys, *below), deeper, at) for below, deeper, at in items)
            else:
                found.append((keys, items, line))
    return found


def render_policy(rules: Iterable[Mapping[str, Any]]) -> str:
    """The HCL text of stanzas, which ``parse_policy`` reads back unchanged. Raises ``InvalidRequest`` as it does."""
    return "\n".join(_render_stanza(rule) for rule in rules)


def _source(text: str) -> str:
    if not text.strip():
        _fail("it is empty")
    if len(text) > MAX_POLICY or len(text.encode("utf-8", "surrogatepass")) > MAX_POLICY:
        _fail(f"it is longer than {MAX_POLICY // 1024} KiB", hint="split it into several policies")
    if _BASE64.fullmatch(text):
        # What is not base64 after all is not HCL either, and the reader says what is wrong with it.
        with contextlib.suppress(binascii.Error, UnicodeDecodeError):
            text = base64.b64decode("".join(text.split()), validate=True).decode()
    return text.removeprefix("\ufeff")


def _fail(what: str, line: int = 0, *, hint: str = _HINT) -> NoReturn:
    where = f" on line {line}" if line else ""
    shown = "".join(char if char.isprintable() else "\ufffd" for char in what)  # a key may hold terminal escapes
    raise InvalidRequest(f"failed to parse policy: {shown}{where}", hint)


def _unexpected(token: _Token, wanted: str) -> NoReturn:
    found = token.text if token.kind == "end" else "a string" if token.kind == "string" else f"{token.text[:40]!r}"
    _fail(f"expected {wanted}, found {found}", token.line)


class _Reader:
    """Reads HCL text into objects, with one token of lookahead."""

    def __init__(self, source: str) -> None:
        self._tokens = _scan(source)
        self._next = next(self._tokens)

    def root(self) -> _Object:
        return self._object("end", 1)

    def _take(self) -> _Token:
        token = self._next
        if token.kind != "end":
            self._next = next(self._tokens)
        return token

    def _object(self, closing: str, depth: int) -> _Object:
        items: list[_Item] = []
        while self._next.kind != closing:
            line = self._next.line
            keys = self._keys()
            if self._next.kind == "=" and len(keys) == 1:
                self._take()
            elif self._next.kind != "{":
                _unexpected(self._next, "'{'" if len(keys) > 1 else "'=' or '{'")
            items.append(_Item(keys, self._value(depth + 1), line))
            if self._next.kind == ",":
                self._take()
        self._take()
        return _Object(tuple(items))

    def _keys(self) -> tuple[str, ...]:
        keys = []
        while self._next.kind in {"word", "string"}:
            token = self._take()
            keys.append(token.text if token.kind == "word" else _unquote(token))
        if not keys:
            _unexpected(self._next, "a key")
        return tuple(keys)

    def _value(self, depth: int) -> Any:
        token = self._take()
        if depth > MAX_DEPTH:
            _fail(f"it is nested deeper than {MAX_DEPTH} levels", token.line)
        if token.kind == "string":
            return _unquote(token)
        if token.kind == "number":
            return int(token.text) if token.text.lstrip("-").isdecimal() else float(token.text)
        if token.kind == "word" and token.text in {"true", "false"}:
            return token.text == "true"
        if token.kind == "{":
            return self._object("}", depth)
        if token.kind == "[":
            return self._list(depth)
        _unexpected(token, "a string, number, list or object")

    def _list(self, depth: int) -> list[Any]:
        values = []
        while self._next.kind != "]":
            values.append(self._value(depth + 1))
            if self._next.kind == ",":
                self._take()
            elif self._next.kind != "]":
                _unexpected(self._next, "',' or ']'")
        self._take()
        return values


def _scan(source: str) -> Iterator[_Token]:
    position, line = 0, 1
    while position < len(source):
        match = _TOKEN.match(source, position)
        if match is None:
            _fail("there is something that is not HCL", line)
        kind, text = str(match.lastgroup), match[0]
        if kind == "blank":
            line += text.count("\n")
        else:
            yield _Token(text if kind == "mark" else kind, text, line)
        position = match.end()
    yield _Token("end", "the end", line)


def _unquote(token: _Token) -> str:
    def unescape(match: re.Match[str]) -> str:
        code = match[1] or match[2]
        if code and int(code, 16) <= sys.maxunicode:
            return chr(int(code, 16))
        if match[3] in _ESCAPES:
            return _ESCAPES[match[3]]
        _fail("a string has an unknown escape", token.line)

    return _ESCAPE.sub(unescape, token.text[1:-1])


def _from_json(source: str) -> _Object:
    def no_constant(_: str) -> NoReturn:
        raise ValueError

    def pairs(found: list[tuple[str, Any]]) -> _Object:
        return _Object(tuple(_Item((key,), value, 0) for key, value in found))

    line = 0
    try:
        root = json.loads(source, object_pairs_hook=pairs, parse_constant=no_constant)
    except json.JSONDecodeError as error:
        root, line = None, error.lineno
    except (ValueError, RecursionError):
        root = None
    if not isinstance(root, _Object):
        _fail("it is not JSON", line)
    return root


def _path_blocks(root: _Object) -> Iterator[tuple[str, _Object, int]]:
    """The stanzas in any of their spellings: ``path "x" {}``, ``path = {"x" = {}}`` and lists of such objects."""
    for item in root.items:
        match item.keys:
            case ("path", path):
                yield from ((path, body, item.line) for body in _objects(item, f'path "{path}"'))
            case ("path",):
                for group in _objects(item, "path"):
                    for inner in group.items:
                        if len(inner.keys) != 1:
                            _fail("a path has one name", inner.line)
                        path = inner.keys[0]
                        yield from ((path, body, inner.line) for body in _objects(inner, f'path "{path}"'))
            case ("name",) if isinstance(item.value, str):
                pass  # older policies carry their own name; the request names the policy
            case (key, *_):
                _fail(f'invalid key "{key[:80]}"', item.line)


def _objects(item: _Item, what: str) -> list[_Object]:
    values = item.value if isinstance(item.value, list) else [item.value]
    if not all(isinstance(value, _Object) for value in values):
        _fail(f"{what} is not followed by a stanza in braces", item.line)
    return values


def _stanza(path: str, body: _Object, line: int) -> dict[str, Any]:
    data: dict[str, Any] = {"path": path}
    where = f'path "{path[:MAX_RULE_PATH]}"'
    for item in body.items:
        (key, *more), at = item.keys, item.line or line
        if more or key not in _KEYS:
            _fail(f'{where}: invalid key "{key[:80]}"', at)
        if key in data:
            _fail(f'{where}: "{key}" stands there twice', at)
        try:
            data[key] = _KEYS[key](item.value)
        except ValueError as error:
            _fail(f'{where}: "{key}" {error}', at)
    return _checked(data, line)


def _checked(data: dict[str, Any], line: int = 0) -> dict[str, Any]:
    """The stanza as it is handed out, after every rule that spans several of its keys."""
    path = str(data["path"])
    if len(path) > MAX_RULE_PATH or not _readable(path):
        _fail("a path is too long, not in Unicode normal form C, or has a character that cannot be seen", line)
    old = data.pop("policy", ())
    data["capabilities"] = list(dict.fromkeys((*old, *data.get("capabilities", ()))))
    try:
        data["path"] = PathRule.from_data(data).path
    except InvalidRequest as error:
        _fail(error.reason, line, hint=error.hint or _HINT)
    least, most = data.get("min_wrapping_ttl", 0), data.get("max_wrapping_ttl", 0)
    if most and most < least:
        _fail(f'path "{path}": max_wrapping_ttl is less than min_wrapping_ttl', line)
    return {key: data[key] for key in _ORDER if key in data}


def _readable(text: str) -> bool:
    return unicodedata.is_normalized("NFC", text) and not any(is_invisible(char) for char in text)


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) and _encodable(text) for text in value):
        raise ValueError("is not a list of strings")
    return value


def _parameters(value: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    groups = value if isinstance(value, list) else [value]
    for group in groups:
        if not isinstance(group, _Object):
            raise ValueError("is not a map of names to lists")  # noqa: TRY004 - one class of error for the caller
        for (name, *more), values, _ in group.items:
            if more or not isinstance(values, list) or not all(map(_scalar, values)) or not _encodable(name):
                raise ValueError(f'has no list of plain values for "{name[:80]}"')
            if name.lower() in found:
                raise ValueError(f'has "{name[:80]}" twice (case does not count)')
            found[name.lower()] = values
    return found


def _scalar(value: Any) -> bool:
    if isinstance(value, str):
        return _encodable(value)
    return isinstance(value, bool | int | float) and math.isfinite(value) and abs(value) < _LARGEST


def _encodable(text: str) -> bool:
    """Half a surrogate pair is no text: it cannot be stored."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def _duration(value: Any) -> int:
    try:
        return parse_duration(value)
    except InvalidRequest as error:
        raise ValueError("is not a duration") from error


def _old_policy(value: Any) -> tuple[str, ...]:
    if not isinstance(value, str) or value not in _OLD_POLICIES:
        raise ValueError(f"is not one of {', '.join(_OLD_POLICIES)}")
    return _OLD_POLICIES[value]


_KEYS: dict[str, Callable[[Any], Any]] = {
    "policy": _old_policy,
    "capabilities": _texts,
    "allowed_parameters": _parameters,
    "denied_parameters": _parameters,
    "required_parameters": _texts,
    "min_wrapping_ttl": _duration,
    "max_wrapping_ttl": _duration,
}
_ORDER = ("path", *(key for key in _KEYS if key != "policy"))


def _item(key: str, value: Any) -> _Item:
    return _Item((key,), _object(value) if isinstance(value, Mapping) else value, 0)


def _object(value: Mapping[str, Any]) -> _Object:
    return _Object(tuple(_item(str(key), inner) for key, inner in value.items()))


def _render_stanza(rule: Mapping[str, Any]) -> str:
    """A stanza goes through the same gate as a parsed one, so that nothing is written that cannot be read back."""
    data = _stanza(str(rule.get("path", "")), _object({k: v for k, v in rule.items() if k != "path"}), 0)
    lines = [f"path {_literal(data.pop('path'))} {{"]
    for key, value in data.items():
        if isinstance(value, dict):
            lines.append(f"  {key} = {{")
            lines.extend(f"    {_literal(name)} = {_literal(values)}" for name, values in value.items())
            lines.append("  }")
        else:
            lines.append(f"  {key} = {_literal(value)}")
    return "\n".join([*lines, "}\n"])


def _literal(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return str(value)

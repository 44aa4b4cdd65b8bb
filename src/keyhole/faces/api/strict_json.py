"""JSON as the API takes it: one object, each key once, no NaN, bounded in depth and size (RFC 8259, RFC 7493)."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from keyhole.config import ApiLimits
from keyhole.core.errors import InvalidRequest

_OPENING, _CLOSING = b"[{", b"]}"


def parse_object(body: bytes, limits: ApiLimits) -> dict[str, Any]:
    """The object in a request body; an empty body is an empty object. Raises ``InvalidRequest``."""
    if not body.strip():
        return {}
    try:
        _check_depth(body, limits.depth)
        value = json.loads(body.decode(), object_pairs_hook=_unique, parse_constant=_constant, parse_int=_integer)
    except (ValueError, RecursionError) as error:
        reason = error.args[0] if isinstance(error, _Refused) else "it is not JSON"
        raise InvalidRequest("error parsing JSON", reason) from None
    if not isinstance(value, dict):
        raise InvalidRequest("error parsing JSON", "the body must be one object")
    _check_size(value, limits)
    return value


class _Refused(ValueError):
    """JSON that could be read in two ways."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Refused("a key stands twice")
    return found


def _constant(_name: str) -> NoReturn:
    raise _Refused("NaN and Infinity are not JSON")


def _integer(text: str) -> int:
    if len(text) > 40:
        raise _Refused("a number is too long")
    return int(text)


def _check_depth(body: bytes, limit: int) -> None:
    """Bound the nesting before the parser recurses; brackets within strings do not count."""
    depth, inside, escaped = 0, False, False
    if body.count(b"[") + body.count(b"{") <= limit:
        return
    for byte in body:
        if escaped:
            escaped = False
        elif inside:
            escaped, inside = byte == 0x5C, byte != 0x22
        elif byte == 0x22:
            inside = True
        elif byte in _OPENING:
            depth += 1
            if depth > limit:
                raise _Refused("it is nested too deeply")
        elif byte in _CLOSING:
            depth -= 1


def _check_size(value: Any, limits: ApiLimits) -> None:
    items, stack = 0, [value]
    while stack:
        current = stack.pop()
        if isinstance(current, str):
            if len(current) > limits.string:
                raise InvalidRequest("error parsing JSON", "a string is too long")
            if "\x00" in current or any("\ud800" <= c <= "\udfff" for c in current if not current.isascii()):
                raise InvalidRequest("error parsing JSON", "a string has a NUL or half of a surrogate pair")
            continue
        if isinstance(current, dict):
            stack += [*current.keys(), *current.values()]
        elif isinstance(current, list):
            stack += current
        else:
            continue
        items += len(current)
        if items > limits.items:
            raise InvalidRequest("error parsing JSON", "it has too many members")

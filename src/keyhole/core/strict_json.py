"""JSON that every reader reads alike: each key once, no NaN, bounded in depth and size (RFC 8259, RFC 7493)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NoReturn, Protocol

from keyhole.core.errors import InvalidRequest

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_NOT_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")
_UNSAFE = re.compile("[\x00\ud800-\udfff]")


class Bounds(Protocol):
    """How large a document may be."""

    @property
    def depth(self) -> int:
        """Nesting."""

    @property
    def string(self) -> int:
        """Characters of one string."""

    @property
    def items(self) -> int:
        """Members of all objects and arrays together."""


@dataclass(frozen=True, slots=True)
class JsonBounds:
    """``Bounds`` with their own numbers."""

    depth: int = 64
    string: int = 1024 * 1024
    items: int = 100_000


def parse_object(body: bytes, limits: Bounds) -> dict[str, Any]:
    """The object in a request body; an empty body is an empty object. Raises ``InvalidRequest``."""
    if not body.strip():
        return {}
    value = parse_json(body, limits)
    if not isinstance(value, dict):
        raise InvalidRequest("error parsing JSON", "the body must be one object")
    return value


def parse_json(body: bytes, limits: Bounds, *, exact: bool = False) -> Any:
    """The value of a document.

    Args:
        body: the document, UTF-8 without a byte order mark.
        limits: bounds.
        exact: fractions as ``Decimal``, so that comparing them rounds nothing.

    Raises:
        InvalidRequest: it is no JSON, could be read in two ways, or is larger than the bounds.
    """
    try:
        _check_depth(body, limits)
        value = (_EXACT if exact else _DECODER).decode(body.decode())
    except (ValueError, RecursionError) as error:
        reason = error.args[0] if isinstance(error, _Refused) else "it is not JSON"
        raise InvalidRequest("error parsing JSON", reason) from None
    check_value(value, limits)
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


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _Refused("a number is too large")
    return number


def _decimal(text: str) -> Decimal:
    if len(text) > 60:
        raise _Refused("a number is too long")
    _float(text)
    return Decimal(text)


def _decoder(parse_float: Callable[[str], Any]) -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=_unique, parse_constant=_constant, parse_int=_integer, parse_float=parse_float
    )


_DECODER, _EXACT = _decoder(_float), _decoder(_decimal)


def _check_depth(body: bytes, limits: Bounds) -> None:
    """Bound the nesting before the parser recurses; brackets within strings do not count."""
    if body.count(b"[") + body.count(b"{") <= limits.depth:
        return
    brackets = _STRING.sub(b"", body).translate(None, _NOT_BRACKETS)
    if len(brackets) > 2 * limits.items + 2:
        raise _Refused("it has too many members")
    depth = 0
    for bracket in brackets:
        depth += 1 if bracket in b"[{" else -1
        if depth > limits.depth:
            raise _Refused("it is nested too deeply")


def check_value(value: Any, limits: Bounds) -> None:
    """Bound what was read, and refuse text that not every reader takes. Raises ``InvalidRequest``."""
    items, stack = 0, [value]
    while stack:
        current = stack.pop()
        if isinstance(current, str):
            if len(current) > limits.string:
                raise InvalidRequest("error parsing JSON", "a string is too long")
            if _UNSAFE.search(current):
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

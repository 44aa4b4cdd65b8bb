"""Sets a field within the text of a JSON document (RFC 8259); not another byte of it changes.

The document must be one that all readers read alike where it matters: UTF-8, no NaN, and no key twice on the way to
the field.
"""

from __future__ import annotations

import json
import re
from typing import NoReturn

from keyhole.core.errors import InvalidRequest

_SPACE = re.compile(r"[ \t\n\r]*")
_DEPTH = 256
_INDEX = re.compile(r"0|[1-9][0-9]{0,5}")


def _constant(_name: str) -> NoReturn:
    raise ValueError


_DECODER = json.JSONDecoder(parse_constant=_constant, parse_int=str, parse_float=str)


def quoted(value: bytes) -> bytes:
    """A value as a JSON string, in ASCII. Raises ``InvalidRequest`` when it is not UTF-8."""
    try:
        return json.dumps(value.decode()).encode()
    except UnicodeDecodeError:
        raise InvalidRequest("the secret is not UTF-8, and cannot stand in JSON", "store it again as text") from None


def set_field(content: bytes, names: tuple[str, ...], value: bytes) -> bytes:
    """The document with the field set to a text; objects that are missing on the way to it are made.

    Args:
        content: the document.
        names: on the way to the field; an index where there is an array.
        value: of the field.

    Raises:
        InvalidRequest: it is no JSON, or the way leads through something that is neither object nor array.
    """
    text = _checked(content)
    at = _skip(text, 0)
    for depth, name in enumerate(names):
        opening = text[at]
        if opening == "[":
            at = _in_array(text, at, name)
        elif opening != "{":
            raise InvalidRequest(
                "the way to the field of the body leads through a value that is neither an object nor an array",
                "compare the body with what the service says: keyhole service show NAME",
            )
        else:
            found, end, empty = _in_object(text, at, name)
            if found is None:
                member = _nested(names[depth:], value)
                return (text[:end] + ("" if empty else ", ") + member + text[end:]).encode()
            at = found
    _, end = _DECODER.raw_decode(text, at)
    return (text[:at] + quoted(value).decode() + text[end:]).encode()


def _checked(content: bytes) -> str:
    try:
        if content.count(b"[") + content.count(b"{") > _DEPTH:
            _require_shallow(content)
        text = content.decode()
        _, end = _DECODER.raw_decode(text, _skip(text, 0))
        if _skip(text, end) == len(text):
            return text
    except (ValueError, IndexError, RecursionError):
        pass
    raise InvalidRequest("the body is not JSON in UTF-8, and a field of it is to be set", "send JSON (RFC 8259)")


def _require_shallow(content: bytes) -> None:
    depth = 0
    for bracket in re.findall(rb'"(?:[^"\\]|\\.)*+"|[\[\]{}]', content, re.DOTALL):
        depth += bracket in {b"[", b"{"}
        depth -= bracket in {b"]", b"}"}
        if depth > _DEPTH:
            raise ValueError


def _skip(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _in_array(text: str, at: int, name: str) -> int:
    """Where the element of this index begins."""
    if not _INDEX.fullmatch(name):
        raise InvalidRequest("the body has an array where the way to the field names a key", "write an index")
    at = _skip(text, at + 1)
    for index in range(int(name) + 1):
        if text[at] == "]":
            break
        if index == int(name):
            return at
        _, end = _DECODER.raw_decode(text, at)
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    raise InvalidRequest("the body has an array on the way to the field that is too short", "send one that has it")


def _in_object(text: str, at: int, name: str) -> tuple[int | None, int, bool]:
    """Where the value of this key begins, or ``None``; behind the last member; and whether there is no member."""
    found = None
    end = at + 1
    at = _skip(text, end)
    empty = text[at] == "}"
    while text[at] != "}":
        key, at = _DECODER.raw_decode(text, at)
        at = _skip(text, _skip(text, at) + 1)
        if key == name:
            if found is not None:
                raise InvalidRequest("the body has a key twice on the way to the field", "send each key once")
            found = at
        _, end = _DECODER.raw_decode(text, at)
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return found, end, empty


def _nested(names: tuple[str, ...], value: bytes) -> str:
    """A member with the objects that are missing."""
    keys = [json.dumps(name) + ": " for name in names]
    return "{".join(keys) + quoted(value).decode() + "}" * (len(keys) - 1)

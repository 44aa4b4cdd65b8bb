"""Statements of SQL as roles have them: taken apart at their ends, and filled in."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.fields import parse_texts

MOST = 100
_LONGEST = 65_536
_FILLED = re.compile(r"\{\{(name|username|password|expiration)\}\}")
# What may contain a semicolon that ends nothing; the last alternative is any other character.
_REST = (
    r"|(?P<dollar>\$(?P<tag>[A-Za-z_]?\w*)\$.*?\$(?P=tag)\$)"
    r"|(?P<comment>--[^\n]*|/\*.*?\*/)"
    r"|(?P<word>[A-Za-z_]\w*)|."
)
_STANDARD = re.compile(r"""[eE]'(?:[^'\\]|''|\\.)*'|'(?:[^']|'')*'|"(?:[^"]|"")*\"""" + _REST, re.DOTALL)
_BACKSLASH = re.compile(r"""'(?:[^'\\]|''|\\.)*'|"(?:[^"\\]|""|\\.)*"|`[^`]*`""" + _REST, re.DOTALL)
_TRANSACTION = frozenset({"TRANSACTION", "WORK", "ISOLATION", "READ", "DEFERRABLE"})
_ENDS_ITSELF = frozenset({"IF", "LOOP", "WHILE", "REPEAT", "FOR"})


def parse_statements(value: Any, name: str) -> list[str]:
    """Statements as they are sent: one text or a list, each plain or in base64. They are kept as they came.

    Raises:
        InvalidRequest: it is something else, or too long.
    """
    texts = [value] if isinstance(value, str) else value
    if isinstance(texts, str) or texts is None:
        return []
    if not isinstance(texts, list) or len(texts) > MOST or not all(isinstance(text, str) for text in texts):
        raise InvalidRequest(f"{name} is a list of at most {MOST} texts", "write each statement with its semicolon")
    if sum(map(len, texts)) > _LONGEST:
        raise InvalidRequest(f"{name} has more than {_LONGEST:,} characters")
    return [text for text in texts if text.strip()]


def take_apart(texts: Sequence[str], *, backslash: bool = False) -> list[str]:
    """The single statements, in order.

    Args:
        texts: as ``parse_statements`` gives them.
        backslash: it escapes in quotes, as in MySQL.
    """
    return [part for whole in open_texts(texts) for part in _split(whole, backslash=backslash)]


def open_texts(texts: Sequence[str]) -> list[str]:
    """Texts as ``parse_statements`` gives them, of base64 what is inside, of JSON lists their items."""
    return [whole for text in texts for whole in _opened(text)]


def fill(statement: str, values: Mapping[str, str]) -> str:
    """A statement with values in the place of their names; a name that has no value here stays."""
    return _FILLED.sub(lambda match: values.get(match[1], match[0]), statement)


def _opened(text: str) -> list[str]:
    """What a text says: of base64 what is inside, of a JSON list its items."""
    try:
        inside = base64.b64decode(text.strip(), validate=True).decode()
        text = inside if inside.strip() else text
    except (binascii.Error, ValueError):
        pass
    if text.lstrip().startswith("["):
        try:
            return parse_texts(json.loads(text), "statements", most=MOST)
        except (ValueError, RecursionError):
            return [text]
    return [text]


def _split(text: str, *, backslash: bool) -> list[str]:
    """Split at semicolons that stand outside of quotes, comments and blocks."""
    found: list[str] = []
    current: list[str] = []
    words: list[str] = []
    depth = 0
    for match in (_BACKSLASH if backslash else _STANDARD).finditer(text):
        piece = match[0]
        if match["comment"] is not None:
            current.append(" ")
            continue
        if match["word"] is not None:
            word = piece.upper()
            depth = _depth(depth, words, word)
            words.append(word)
        elif piece == ";" and (not depth or _is_transaction(words)):
            found.append("".join(current).strip())
            current, words, depth = [], [], 0
            continue
        elif piece == ";":
            words.append(";")
        current.append(piece)
    found.append("".join(current).strip())
    return [statement for statement in found if statement]


def _depth(depth: int, words: Sequence[str], word: str) -> int:
    """How many blocks are open after a word. ``END IF`` and its like close what never counted."""
    before = words[-1] if words else ""
    if before == "END" and word in _ENDS_ITSELF:
        return depth + 1
    if before == "END" and word == "CASE":
        return depth
    if word == "BEGIN" or (word == "CASE" and depth):
        return depth + 1
    if word == "END":
        return max(0, depth - 1)
    return depth


def _is_transaction(words: Sequence[str]) -> bool:
    """Whether what began with BEGIN begins a transaction, and no block."""
    return words[:1] == ["BEGIN"] and ";" not in words and all(word in _TRANSACTION for word in words[1:2])

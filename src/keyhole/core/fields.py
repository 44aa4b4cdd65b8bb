"""Fields of request data in the several forms that clients send: lists and maps as JSON or as text. Pure."""

from __future__ import annotations

from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.numbers import parse_flag

MAX_TEXT = 65_536
_MOST = 1000


def parse_text(value: Any, name: str, *, most: int = MAX_TEXT) -> str:
    """A text; nothing is an empty one. Raises ``InvalidRequest`` that names the field for anything else."""
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > most:
        raise InvalidRequest(f"{name} is a text of at most {most:,} characters")
    return value


def parse_switch(value: Any, name: str) -> bool:
    """``True`` or ``False``, where nothing and an empty text are ``False``. Raises ``InvalidRequest``."""
    return False if value is None or value == "" else parse_flag(value, name)


def parse_texts(value: Any, name: str, *, most: int = _MOST) -> list[str]:
    """Texts from a list or from one text with commas, without the spaces around them and without empty ones.

    Raises:
        InvalidRequest: it is something else, or longer than ``most``; names the field.
    """
    items = value.split(",") if isinstance(value, str) else [] if value is None else value
    if not isinstance(items, list) or len(items) > most or not all(isinstance(item, str) for item in items):
        raise InvalidRequest(f"{name} is a list of at most {most:,} texts", 'write like "a,b" or ["a", "b"]')
    return [item for item in (parse_text(item, name).strip() for item in items) if item]


def parse_map(value: Any, name: str, *, most: int = _MOST) -> dict[str, str]:
    """Texts by name, from an object or from a list (or a text with commas) of ``name=value``.

    Raises:
        InvalidRequest: it is something else, or larger than ``most``; names the field.
    """
    if value is None or value == "":
        return {}
    if not isinstance(value, dict):
        pairs = [item.partition("=") for item in parse_texts(value, name, most=most)]
        if not all(key and sign for key, sign, _ in pairs):
            raise InvalidRequest(f"{name} is a map of texts", 'write like {"a": "b"}')
        return {key: text for key, _, text in pairs}
    if len(value) > most or not all(isinstance(text, str) for text in value.values()):
        raise InvalidRequest(f"{name} is a map of at most {most:,} texts", 'write like {"a": "b"}')
    return {key: parse_text(text, name) for key, text in value.items()}

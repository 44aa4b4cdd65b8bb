"""Numbers in request data, where they may be JSON numbers or text from a query."""

from __future__ import annotations

from typing import Any

from keyhole.core.errors import InvalidRequest

_MAX_DIGITS = 18


def parse_count(value: Any, name: str, *, least: int = 0, most: int = 10**_MAX_DIGITS) -> int:
    """A whole number from ``7`` or ``"7"``. Raises ``InvalidRequest`` that names the field for anything else."""
    text = "" if isinstance(value, bool) else str(value) if isinstance(value, int | str) else ""
    if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS and least <= int(text) <= most):
        raise InvalidRequest(f"{name} is a whole number from {least:,} to {most:,}")
    return int(text)


def parse_flag(value: Any, name: str) -> bool:
    """``True`` or ``False`` from JSON or from the text of a query. Raises ``InvalidRequest`` for anything else."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    raise InvalidRequest(f"{name} is true or false")

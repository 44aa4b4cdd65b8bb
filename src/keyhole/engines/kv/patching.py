"""Changes to a document by naming them (RFC 7396), and its shape without its values. Pure."""

from __future__ import annotations

from typing import Any


def merge(base: Any, changes: Any) -> Any:
    """What ``base`` becomes by a merge patch: members that are ``null`` go, objects are merged, all else replaces."""
    if not isinstance(changes, dict):
        return changes
    merged = dict(base) if isinstance(base, dict) else {}
    for key, value in changes.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge(merged.get(key), value)
    return merged


def subkeys(data: dict[str, Any], depth: int) -> dict[str, Any]:
    """The object ``data`` and those within it down to a depth, with ``None`` for all else; lists count as values."""
    inner = {key: value for key, value in data.items() if isinstance(value, dict) and value and depth > 1}
    return {key: subkeys(inner[key], depth - 1) if key in inner else None for key in data}

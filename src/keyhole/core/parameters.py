"""Request parameters that a policy asks for or limits. Pure.

Source of the rules: "Parameter constraints" in ``developer.hashicorp.com/vault/docs/concepts/policies``. Names are
compared without case, values as text, where ``*`` stands for any text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from keyhole.core.errors import InvalidRequest

Parameters = Mapping[str, tuple[str, ...]]


def parse_parameters(data: Any) -> Parameters | None:
    """A map of names to values as it is stored. Raises ``InvalidRequest`` for a name twice or without a list."""
    if not data:
        return None
    if not isinstance(data, Mapping):
        raise InvalidRequest("allowed_parameters and denied_parameters are maps of a name to a list of values")
    found: dict[str, tuple[str, ...]] = {}
    for key, values in data.items():
        name = str(key).lower()
        if name in found or not isinstance(values, list | tuple | None):
            raise InvalidRequest(
                f'the parameter "{name}" stands twice or has no list of values', "write each name once"
            )
        found[name] = tuple(_text(value) for value in values or ())
    return found


def merge_parameters(left: Parameters | None, right: Parameters | None) -> Parameters | None:
    """Union of two parameter maps; a rule without a map restricts nothing, and an empty list (any value) wins."""
    if left is None or right is None:
        return None if left is None and right is None else left or right
    return {
        name: () if () in (left.get(name), right.get(name)) else (*left.get(name, ()), *right.get(name, ()))
        for name in {*left, *right}
    }


def parameters_pass(
    given: Mapping[str, Any], *, allowed: Parameters | None, denied: Parameters | None, required: frozenset[str]
) -> bool:
    """Whether a request's fields are all that is required, none that is denied, and only what is allowed.

    Args:
        given: top-level fields of the request.
        allowed: name to the values it may have, none for any; ``"*"`` for every other name; ``None`` allows all.
        denied: name to the values it may not have, none for all; ``"*"`` for every name.
        required: names in lower case.
    """
    # Pairs, not a dict: "Force" beside "force" must not hide it, as the engine reads only one of them.
    pairs = [(name.lower(), value) for name, value in given.items()]
    if not required <= {name for name, _ in pairs}:
        return False
    if denied and pairs:
        if "*" in denied:
            return False
        for name, value in pairs:
            patterns = denied.get(name)
            if patterns is not None and (not patterns or _any_glob(patterns, _texts_within(value))):
                return False
    if allowed:
        for name, value in pairs:
            patterns = allowed.get(name)
            if patterns is None and "*" not in allowed:
                return False
            if patterns and not _any_glob(patterns, (_text(value),)):
                return False
    return True


def glob_matches(pattern: str, value: str) -> bool:
    """Whether the value is the pattern with text for each ``*``; in linear time, as the caller chose the value."""
    head, *parts = pattern.split("*")
    if not parts:
        return value == pattern
    *middle, tail = parts
    position, end = len(head), len(value) - len(tail)
    if end < position or not value.startswith(head) or not value.endswith(tail):
        return False
    for part in middle:
        found = value.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return True


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping | list | tuple):
        return "\0"  # no pattern means a container, but "*" still takes it
    return str(value)


def _texts_within(value: Any) -> Iterator[str]:
    """A value and everything inside it, so that wrapping a denied value in a list does not get it through."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        yield _text(item)
        if isinstance(item, Mapping):
            waiting.extend(item.values())
        elif isinstance(item, list | tuple):
            waiting.extend(item)


def _any_glob(patterns: Iterable[str], texts: Iterable[str]) -> bool:
    return any(glob_matches(pattern, text) for text in texts for pattern in patterns)

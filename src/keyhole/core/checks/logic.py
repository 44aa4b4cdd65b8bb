"""Conditions on documents that are put together: one of several, all of several, none. Pure.

    {"any": [{"at": "/amount", "max": 100}, {"at": "/approved_by", "like": "*"}]}
    {"not": {"at": "/to", "like": "*@elsewhere.example"}}

``not`` means that nothing of what it names is so in any reading, so a reader who differs from us gains nothing by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keyhole.core.checks.documents import BodyTest, Pointer, Test, View
from keyhole.core.checks.values import ValueTest
from keyhole.core.errors import InvalidRequest

_MOST = 32  # side by side
_MOST_IN_ALL = 128
_DEEPEST = 4
_KINDS = ("any", "all", "not")
_HINT = '[{"at": "/amount", "max": 5000}, {"any": [{"at": "/to", "absent": true}, {"at": "/to", "like": "dev-*"}]}]'


@dataclass(frozen=True, slots=True)
class Combined:
    """Several conditions as one.

    Attributes:
        kind: ``any``, ``all`` or ``not``.
        parts: the conditions; one of ``not``.
    """

    kind: str
    parts: tuple[Test, ...]

    def holds(self, view: View) -> bool:
        """See ``Test``."""
        if self.kind == "not":
            return self.parts[0].fails(view)
        found = [part.holds(view) for part in self.parts]  # each is judged, so that what looks alike is always seen
        return any(found) if self.kind == "any" else all(found)

    def fails(self, view: View) -> bool:
        """See ``Test``."""
        if self.kind == "not":
            return self.parts[0].holds(view)
        found = [part.fails(view) for part in self.parts]
        return all(found) if self.kind == "any" else any(found)

    def as_data(self) -> dict[str, Any]:
        """See ``Test``."""
        parts = [part.as_data() for part in self.parts]
        return {self.kind: parts[0] if self.kind == "not" else parts}

    def __str__(self) -> str:
        """In words."""
        if self.kind == "not":
            return f"not ({self.parts[0]})"
        return f"({(') or (' if self.kind == 'any' else ') and (').join(map(str, self.parts))})"


def parse_tests(data: Any, name: str) -> tuple[Test, ...]:
    """Read a list of conditions, which all have to hold. Raises ``InvalidRequest`` that names it as ``name``."""
    budget = [_MOST_IN_ALL]
    return _list(data, name, 0, budget)


def _list(data: Any, name: str, depth: int, budget: list[int]) -> tuple[Test, ...]:
    if not isinstance(data, list | tuple) or len(data) > _MOST or any(not isinstance(each, Mapping) for each in data):
        raise InvalidRequest(f"{name} is a list of at most {_MOST} objects", _HINT)
    return tuple(_test(each, name, depth, budget) for each in data)


def _test(data: Mapping[str, Any], name: str, depth: int, budget: list[int]) -> Test:
    budget[0] -= 1
    kinds = [kind for kind in _KINDS if kind in data]
    if budget[0] < 0 or depth > _DEEPEST:
        raise InvalidRequest(f"{name} has too many conditions, or too deep ones", f"at most {_MOST_IN_ALL}")
    if not kinds:
        pointer = Pointer.parse(data.get("at"))
        test = ValueTest.from_data({key: value for key, value in data.items() if key != "at"}, pointer.text)
        return BodyTest(pointer, test)
    if len(data) != 1:
        raise InvalidRequest(f"a condition of {name} is one of at, any, all and not", _HINT)
    inner = data[kinds[0]]
    parts = _list([inner] if kinds[0] == "not" else inner, name, depth + 1, budget)
    if not parts:
        raise InvalidRequest(f"{kinds[0]} has no conditions", _HINT)
    return Combined(kinds[0], parts)

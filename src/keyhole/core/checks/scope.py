"""Which requests of a service something is for, by method and path. Pure.

What is for a request must not be got around, so a path counts as meant where any upstream could read it so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.target import PathGlob

_METHOD = re.compile(r"[A-Z][A-Z-]{0,31}")
_LIMIT = 64
_HINT = '"for": [{"methods": ["POST"], "paths": ["/v1/charges"]}]'


@dataclass(frozen=True, slots=True)
class Rule:
    """Requests with one of these methods (any, if there are none) and one of these paths (likewise)."""

    methods: frozenset[str]
    paths: tuple[PathGlob, ...]

    @classmethod
    def from_data(cls, data: Any) -> Rule:
        """Read an object with ``methods`` and ``paths``. Raises ``InvalidRequest``."""
        if not isinstance(data, Mapping) or data.keys() - {"methods", "paths"}:
            raise InvalidRequest("for has methods and paths", _HINT)
        methods, paths = (data.get(name) or () for name in ("methods", "paths"))
        for each in (methods, paths):
            if not isinstance(each, list | tuple) or len(each) > _LIMIT or any(not isinstance(x, str) for x in each):
                raise InvalidRequest(f"methods and paths are lists of at most {_LIMIT} texts", _HINT)
        if any(not _METHOD.fullmatch(method) for method in methods):
            raise InvalidRequest("a method is written in upper case, as in GET", _HINT)
        if not methods and not paths:
            raise InvalidRequest("for names neither methods nor paths", f"leave it out, or write {_HINT}")
        return cls(frozenset(methods), tuple(PathGlob(path) for path in paths))

    def means(self, method: str, paths: tuple[str, ...]) -> bool:
        """Whether it is for this request."""
        if self.methods and method.upper() not in self.methods:
            return False
        return not self.paths or any(glob.denies(path) for glob in self.paths for path in paths)


@dataclass(frozen=True, slots=True)
class Scope:
    """Which requests something is for.

    Attributes:
        names: rules of which one must fit; empty for all requests.
    """

    names: tuple[Rule, ...] = ()

    @classmethod
    def from_data(cls, data: Any) -> Scope:
        """Read ``for``: an object, a list of objects, or ``None``. Raises ``InvalidRequest``."""
        if data is None:
            return cls()
        rules = [data] if isinstance(data, Mapping) else data
        if not isinstance(rules, list | tuple) or not 0 < len(rules) <= _LIMIT:
            raise InvalidRequest(f"for is an object, or a list of at most {_LIMIT}", _HINT)
        return cls(tuple(Rule.from_data(rule) for rule in rules))

    def as_data(self) -> list[dict[str, Any]]:
        """JSON-ready, in the form that ``from_data`` reads."""
        return [
            {
                **({"methods": sorted(rule.methods)} if rule.methods else {}),
                **({"paths": [glob.pattern for glob in rule.paths]} if rule.paths else {}),
            }
            for rule in self.names
        ]

    def means(self, method: str, paths: tuple[str, ...]) -> bool:
        """Whether it is for this request."""
        return not self.names or any(rule.means(method, paths) for rule in self.names)

    def __str__(self) -> str:
        """In words."""
        words = []
        for rule in self.names:
            parts = [" or ".join(sorted(rule.methods)), " or ".join(glob.pattern for glob in rule.paths)]
            words.append(" ".join(part for part in parts if part))
        return ", ".join(words) or "every request"


EVERYTHING = Scope()

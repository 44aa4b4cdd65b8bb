"""Conditions of a service: what a request must be besides its host, method and path. Pure.

Conditions do not choose between services. A request that goes to a service by its host, path and method, and fails one
of the service's conditions, is refused; it never falls through to another service.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keyhole.core.checks import git
from keyhole.core.checks.documents import Test, judge_body
from keyhole.core.checks.graphql_rule import GraphqlRule
from keyhole.core.checks.hours import Window, parse_windows, zone
from keyhole.core.checks.logic import parse_tests
from keyhole.core.checks.scope import EVERYTHING, Scope
from keyhole.core.checks.urlencoded import read_parameters
from keyhole.core.checks.values import ValueTest
from keyhole.core.errors import InvalidRequest, PolicyDenied
from keyhole.core.message import Headers
from keyhole.core.numbers import parse_count
from keyhole.core.times import format_time, parse_time

BODY_LIMIT = 1024 * 1024  # bytes
_LARGEST = 16 * 1024 * 1024
_MOST = 32
WITHOUT_BODY = frozenset({"GET", "HEAD", "OPTIONS"})
_KNOWN = frozenset({"for", "query", "body", "body_limit", "graphql", "git", "hours", "until"})


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as conditions see it.

    Attributes:
        method: as received.
        target: canonical, with its query.
        paths: the readings of its path.
        headers: end-to-end headers with lower-cased names.
        has_body: whether it has one, however long.
        upgrade: the connection is to change to another protocol, and what goes over it then nobody judges.
    """

    method: str
    target: bytes
    paths: tuple[str, ...]
    headers: Headers
    has_body: bool
    upgrade: bool = False

    @property
    def query(self) -> str:
        """The query as it is sent; canonical targets are ASCII."""
        return self.target.partition(b"?")[2].decode("ascii")


@dataclass(frozen=True, slots=True)
class Condition:
    """Conditions that are judged together.

    Attributes:
        scope: which requests they are for.
        query: on parameters, by name.
        body: on the body; all must hold.
        body_limit: bytes of a body that is judged.
        graphql: on operations and fields.
        git: ``fetch``, ``push`` (which may fetch too), or empty.
        hours: windows of which one must be open.
        until: seconds since the epoch from which on the service is closed; 0 for never.
    """

    scope: Scope = EVERYTHING
    query: tuple[tuple[str, ValueTest], ...] = ()
    body: tuple[Test, ...] = ()
    body_limit: int = BODY_LIMIT
    graphql: GraphqlRule | None = None
    git: str = ""
    hours: tuple[Window, ...] = ()
    until: float = 0.0

    @classmethod
    def from_data(cls, data: Any) -> Condition:
        """Read one object of conditions. Raises ``InvalidRequest`` that names the field."""
        if not isinstance(data, Mapping):
            raise InvalidRequest("conditions are an object, or a list of objects", '{"query": {"dry_run": ["true"]}}')
        if unknown := data.keys() - _KNOWN:
            raise InvalidRequest(f"unknown condition {min(unknown)[:40]!r}", f"known: {', '.join(sorted(_KNOWN))}")
        return cls(
            scope=Scope.from_data(data.get("for")),
            query=_query_tests(data.get("query") or {}),
            body=parse_tests(data.get("body") or [], "body"),
            body_limit=parse_count(data.get("body_limit") or BODY_LIMIT, "body_limit", least=1, most=_LARGEST),
            graphql=GraphqlRule.from_data(data["graphql"]) if data.get("graphql") is not None else None,
            git=git.parse_rule(data["git"]) if data.get("git") else "",
            hours=parse_windows(data["hours"]) if data.get("hours") else (),
            until=parse_time(data["until"]) if data.get("until") else 0.0,
        )

    def as_data(self) -> dict[str, Any]:
        """JSON-ready, in the form that ``from_data`` reads."""
        return {
            **({"for": self.scope.as_data()} if self.scope.names else {}),
            **({"query": {name: test.as_data() for name, test in self.query}} if self.query else {}),
            **({"body": [each.as_data() for each in self.body]} if self.body else {}),
            **({"body_limit": self.body_limit} if self.body_limit != BODY_LIMIT else {}),
            **({"graphql": self.graphql.as_data()} if self.graphql else {}),
            **({"git": self.git} if self.git else {}),
            **({"hours": [window.text for window in self.hours]} if self.hours else {}),
            **({"until": format_time(self.until)} if self.until else {}),
        }

    def require_known_zones(self) -> None:
        """Raises ``InvalidRequest`` for a time zone that this machine does not know."""
        for window in self.hours:
            zone(window.zone)

    def judge_head(self, asked: Asked, now: float) -> None:
        """Judge what needs no body. Raises ``PolicyDenied`` or ``InvalidRequest``."""
        self.judge_time(now)
        self._judge_upgrade(asked)
        for reading in read_parameters(asked.query) if self.query else ():
            for name, test in self.query:
                found = reading.only(name)
                there = found is not None and all(test.holds_text(value) for value in found.values)
                if not (there if found is not None else test.absent or test.optional):
                    raise PolicyDenied(f"the parameter {name!r} is not as the service wants it", f"it must be {test}")
        if self.git and not self._git_in_body(asked):
            self._judge_git(asked, None)
        if self.graphql is not None and not asked.has_body:
            self.graphql.judge(asked.method, asked.query, asked.headers, None)

    def judge_known(self, asked: Asked, now: float) -> list[str]:
        """Judge a request of which only names are known, and say which conditions would need its values.

        Raises ``PolicyDenied``.
        """
        self.judge_time(now)
        self._judge_upgrade(asked)
        judged = bool(self.body) and (asked.has_body or asked.method not in WITHOUT_BODY)
        needs = {"query": self.query, "body": judged, "graphql": self.graphql, "git": self.git}
        return [name for name, condition in needs.items() if condition]

    def _judge_upgrade(self, asked: Asked) -> None:
        if asked.upgrade and (self.body or self.graphql or self.git):
            raise PolicyDenied("the service judges bodies, and over a WebSocket nobody could", "use another service")

    def judge_time(self, now: float) -> None:
        """Judge when it is. Raises ``PolicyDenied``."""
        if self.until and now >= self.until:
            raise PolicyDenied(f"it was open until {format_time(self.until)}", "ask for more time")
        if self.hours and not any(window.is_open(now) for window in self.hours):
            raise PolicyDenied("it is closed at this hour", f"open {', '.join(w.text for w in self.hours)}")

    def needs_body(self, asked: Asked) -> bool:
        """Whether the rest can be judged with the whole body only."""
        if self.graphql is not None and asked.has_body:
            return True
        if self.body and (asked.has_body or asked.method not in WITHOUT_BODY):
            return True
        return bool(self.git) and self._git_in_body(asked)

    def judge_body(self, asked: Asked, content: bytes) -> None:
        """Judge the body, where ``needs_body``. Raises ``PolicyDenied`` or ``InvalidRequest``."""
        if self.graphql is not None:
            self.graphql.judge(asked.method, asked.query, asked.headers, content)
        if self.body:
            judge_body(self.body, asked.headers, content)
        if self.git and self._git_in_body(asked):
            self._judge_git(asked, content)

    @staticmethod
    def _git_in_body(asked: Asked) -> bool:
        return any(git.asks_in_body(asked.method, path) for path in asked.paths)

    def _judge_git(self, asked: Asked, content: bytes | None) -> None:
        kinds = [value for name, value in asked.headers if name == b"content-type"]
        meanings = {git.meaning(asked.method, path, asked.query, kinds, content) for path in asked.paths}
        allowed = {git.FETCH, git.PUSH} if self.git == git.PUSH else {git.FETCH}
        if meanings <= allowed:
            return
        if meanings == {git.PUSH}:
            raise PolicyDenied("the service may fetch and not push", "use a service that may push, or ask for one")
        raise PolicyDenied("the service is for git only, and this is none of its requests", "use another service")

    def describe(self) -> list[str]:
        """In words, one line each."""
        lines = [f"query {name}: {test}" for name, test in self.query]
        lines += [f"body {each}" for each in self.body]
        if self.graphql is not None:
            lines.append(f"graphql: {' or '.join(self.graphql.operations)}")
            for name, patterns in (("allowed", self.graphql.fields), ("denied", self.graphql.deny_fields)):
                lines += [f"graphql fields {name}: {' '.join(each.text for each in patterns)}"] if patterns else []
        lines += [f"git: {self.git}"] if self.git else []
        lines += [f"open: {' or '.join(window.text for window in self.hours)}"] if self.hours else []
        lines += [f"until: {format_time(self.until)}"] if self.until else []
        return [f"{line} (for {self.scope})" for line in lines] if self.scope.names else lines


def _query_tests(data: Any) -> tuple[tuple[str, ValueTest], ...]:
    if not isinstance(data, Mapping) or len(data) > _MOST:
        raise InvalidRequest(f"query is an object of at most {_MOST} parameters", '{"dry_run": ["true"]}')
    if any(not name or len(name) > 256 for name in data):
        raise InvalidRequest("the name of a parameter is 1 to 256 characters")
    return tuple((name, ValueTest.from_data(test, name)) for name, test in data.items())

"""Policies: what a caller may do where. Pure; compiled once per set of policies, never per request.

The matching rules are those of HashiCorp Vault (``developer.hashicorp.com/vault/docs/concepts/policies``), plus the
capability ``use``. Exactly one rule path decides a request:

1. the exact path; for a listing also the exact path without its trailing slash;
2. else, among rules with a ``*`` at the end or ``+`` for a whole segment, the best by: later first wildcard, not ending
   in ``*``, fewer ``+``, longer, lexicographically greater;
3. else nothing, which is a refusal.

The same rule path in several policies is merged: ``deny`` wins and stays, else capabilities are united.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from keyhole.core.errors import InvalidRequest

CAPABILITIES = ("create", "read", "update", "patch", "delete", "list", "sudo", "deny", "use")
ROOT = "root"
_PARAMETER_OPERATIONS = frozenset({"create", "read", "update", "patch"})
Parameters = Mapping[str, tuple[str, ...]]
_DECIDED = 4096
_LONG = 256


@dataclass(frozen=True, slots=True)
class PathRule:
    """One stanza of a policy: a path pattern and what it gives.

    Attributes:
        path: exact path, or with ``*`` at its end, or with ``+`` for whole segments.
        capabilities: a subset of ``CAPABILITIES``.
        allowed: parameter name to the values it may have; empty values mean any.
        denied: parameter name to values it may not have; empty values mean none at all.
        required: parameters that must be present.
    """

    path: str
    capabilities: frozenset[str]
    allowed: Parameters | None = None
    denied: Parameters | None = None
    required: frozenset[str] = frozenset()

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> PathRule:
        """Build a rule from its stored form. Raises ``InvalidRequest`` for unknown capabilities or bad patterns."""
        path = str(data["path"]).removeprefix("/")
        capabilities = frozenset(data.get("capabilities", ()))
        for capability in sorted(capabilities - set(CAPABILITIES)):
            raise InvalidRequest(
                f'path "{path}": invalid capability "{capability}"', f"use some of {', '.join(CAPABILITIES)}"
            )
        if "*" in path[:-1]:
            raise InvalidRequest(f'path "{path}": "*" is only allowed at the end', 'use "+" for a whole segment')
        if any("+" in segment and segment != "+" for segment in path.split("/")):
            raise InvalidRequest(f'path "{path}": "+" stands for a whole segment')
        return cls(
            path,
            capabilities,
            _parameters(data.get("allowed_parameters")),
            _parameters(data.get("denied_parameters")),
            frozenset(str(name).lower() for name in data.get("required_parameters", ())),
        )

    @property
    def restricts(self) -> bool:
        """Whether it asks for or limits parameters."""
        return bool(self.required or self.denied or self.allowed)

    def merged(self, other: PathRule) -> PathRule:
        """This rule and another one for the same path, as one."""
        if "deny" in self.capabilities or "deny" in other.capabilities:
            return PathRule(self.path, frozenset({"deny"}))
        return PathRule(
            self.path,
            self.capabilities | other.capabilities,
            _merge(self.allowed, other.allowed),
            _merge(self.denied, other.denied),
            self.required | other.required,
        )


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer of a policy. Falsy when it refuses; ``reason`` then says why in words a person can act on."""

    allowed: bool
    reason: str = ""
    rule: str = ""

    def __bool__(self) -> bool:
        return self.allowed


ALLOWED_BY_ROOT = Decision(allowed=True, rule=ROOT)


class Acl:
    """The compiled union of a caller's policies. Immutable.

    Args:
        rules: of all policies together.
        root: the policy ``root`` is among them: everything is allowed.
    """

    __slots__ = ("_decided", "_exact", "_lengths", "_root", "_wild")

    def __init__(self, rules: Iterable[PathRule], *, root: bool = False) -> None:
        self._root = root
        self._decided: dict[tuple[str, str, bool], Decision] = {}
        by_path: dict[str, PathRule] = {}
        for rule in rules:
            known = by_path.get(rule.path)
            by_path[rule.path] = known.merged(rule) if known else rule
        self._exact: dict[str, PathRule] = {}
        wild: dict[str, list[_Wildcard]] = {}
        for rule in by_path.values():
            if _is_pattern(rule.path):
                candidate = _Wildcard(rule)
                wild.setdefault(candidate.fixed, []).append(candidate)
            else:
                self._exact[rule.path] = rule
        for bucket in wild.values():
            bucket.sort(key=lambda w: w.rank, reverse=True)
        self._wild = wild
        # The fixed text before the first wildcard is what ranks first, so the longest fixed text is tried first.
        self._lengths = sorted({len(fixed) for fixed in wild}, reverse=True)

    def rule_for(self, path: str, *, listing: bool = False) -> PathRule | None:
        """The one rule that decides for this path, or ``None``."""
        rule = self._exact.get(path)
        if rule is None and listing:
            rule = self._exact.get(path.removesuffix("/"))
        if rule is None:
            rule = self._best(path)
        if rule is None and listing and path.endswith("/"):
            rule = self._best(path[:-1])
        return rule

    def decide(
        self, operation: str, path: str, *, parameters: Mapping[str, Any] | None = None, sudo: bool = False
    ) -> Decision:
        """May the caller do this?

        Args:
            operation: one of ``CAPABILITIES`` but ``sudo`` and ``deny``.
            path: absolute API path without a leading slash.
            parameters: top-level request fields, for rules that restrict them.
            sudo: the path is root-protected and needs ``sudo`` besides.
        """
        if self._root:
            return ALLOWED_BY_ROOT
        decision = self._decided.get((operation, path, sudo))
        if decision is None:
            rule = self.rule_for(path, listing=operation == "list")
            decision = self._judge(rule, operation, path, parameters or {}, sudo=sudo)
            if decision.allowed and not (rule is None or rule.restricts) and len(path) <= _LONG:
                # So it is for ever and whatever the parameters, as this list never changes.
                if len(self._decided) >= _DECIDED:
                    self._decided.clear()
                self._decided[operation, path, sudo] = decision
        return decision

    @staticmethod
    def _judge(
        rule: PathRule | None, operation: str, path: str, parameters: Mapping[str, Any], *, sudo: bool
    ) -> Decision:
        if rule is None:
            return Decision(allowed=False, reason=f"no policy of yours has a rule for {path}")
        if operation not in rule.capabilities or "deny" in rule.capabilities:
            return Decision(allowed=False, reason=f'the rule "{rule.path}" does not give {operation}', rule=rule.path)
        if sudo and "sudo" not in rule.capabilities:
            return Decision(allowed=False, reason=f'the rule "{rule.path}" does not give sudo', rule=rule.path)
        if operation in _PARAMETER_OPERATIONS and not _parameters_pass(rule, parameters):
            return Decision(
                allowed=False, reason=f'the rule "{rule.path}" does not accept these parameters', rule=rule.path
            )
        return Decision(allowed=True, rule=rule.path)

    def capabilities(self, path: str) -> list[str]:
        """What the caller has on a path, sorted, as ``sys/capabilities`` answers it."""
        if self._root:
            return [ROOT]
        rule = self.rule_for(path, listing=True)
        if rule is None or "deny" in rule.capabilities or not rule.capabilities:
            return ["deny"]
        return sorted(rule.capabilities)

    def sees(self, prefix: str) -> bool:
        """Does any rule give anything at or below a path that ends in a slash?"""
        if self._root:
            return True
        granting = (rule for rule in self._exact.values() if rule.capabilities and "deny" not in rule.capabilities)
        if any(rule.path.startswith(prefix) for rule in granting):
            return True
        return any(
            (fixed.startswith(prefix) or prefix.startswith(fixed))
            and any(w.rule.capabilities and "deny" not in w.rule.capabilities for w in bucket)
            for fixed, bucket in self._wild.items()
        )

    def includes(self, rule: PathRule) -> bool:
        """Whether a caller with this list may do all that a rule allows.

        Only a rule for one exact path is compared. A pattern reaches paths that other rules of the caller may take
        away, so it counts as more, unless it gives nothing at all.
        """
        if self._root or not rule.capabilities or "deny" in rule.capabilities:
            return True
        own = None if _is_pattern(rule.path) else self.rule_for(rule.path)
        if own is None or "deny" in own.capabilities or not rule.capabilities <= own.capabilities:
            return False
        limits = (own.allowed, own.denied, own.required)
        return not any(limits) or limits == (rule.allowed, rule.denied, rule.required)

    def _best(self, path: str) -> PathRule | None:
        for length in self._lengths:
            if length <= len(path):
                for candidate in self._wild.get(path[:length], ()):
                    if candidate.matches(path):
                        return candidate.rule
        return None


def _is_pattern(path: str) -> bool:
    return path.endswith("*") or "+" in path.split("/")


class _Wildcard:
    """A rule with ``*`` or ``+``, ready to match and to be ranked among its equals."""

    __slots__ = ("fixed", "matches", "rank", "rule")

    def __init__(self, rule: PathRule) -> None:
        self.rule = rule
        path = rule.path
        prefix = path.endswith("*")
        body = path.removesuffix("*")
        segments = body.split("/")
        plus = segments.count("+")
        self.fixed = "".join(f"{segment}/" for segment in segments[: segments.index("+")]) if plus else body
        self.rank = (not prefix, -plus, len(path), path)
        self.matches: Callable[[str], bool]
        if plus:
            # The segment may be empty: the folder "a/" is what a listing asks "a/+" for.
            pattern = "/".join("[^/]*" if s == "+" else re.escape(s) for s in segments)
            regex = re.compile(pattern + (".*" if prefix else ""), re.DOTALL)
            self.matches = lambda text: regex.fullmatch(text) is not None
        else:
            self.matches = lambda text: text.startswith(body)


def _parameters(data: Any) -> Parameters | None:
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


def _merge(left: Parameters | None, right: Parameters | None) -> Parameters | None:
    """Union of two parameter maps; a rule without a map restricts nothing, and an empty list (any value) wins."""
    if left is None or right is None:
        return None if left is None and right is None else left or right
    return {
        name: () if () in (left.get(name), right.get(name)) else (*left.get(name, ()), *right.get(name, ()))
        for name in {*left, *right}
    }


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping | list | tuple):
        return "\0"  # no pattern means a container, but "*" still takes it
    return str(value)


def _glob(pattern: str, value: str) -> bool:
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
    return any(_glob(pattern, text) for text in texts for pattern in patterns)


def _parameters_pass(rule: PathRule, parameters: Mapping[str, Any]) -> bool:
    if not rule.restricts:
        return True
    # Pairs, not a dict: "Force" beside "force" must not hide it, as the engine reads only one of them.
    given = [(name.lower(), value) for name, value in parameters.items()]
    if not rule.required <= {name for name, _ in given}:
        return False
    if rule.denied and given:
        if "*" in rule.denied:
            return False
        for name, value in given:
            patterns = rule.denied.get(name)
            if patterns is not None and (not patterns or _any_glob(patterns, _texts_within(value))):
                return False
    if rule.allowed:
        for name, value in given:
            patterns = rule.allowed.get(name)
            if patterns is None and "*" not in rule.allowed:
                return False
            if patterns and not _any_glob(patterns, (_text(value),)):
                return False
    return True

"""Policies: what a caller may do where. Pure; compiled once per set of policies, never per request.

The matching rules are those of HashiCorp Vault (``developer.hashicorp.com/vault/docs/concepts/policies``), plus the
capability ``use``. Exactly one rule path decides a request:

1. the exact path; for a listing also the exact path without its trailing slash;
2. else, among rules with a ``*`` at the end or ``+`` for a whole segment, the best by: later first wildcard, not ending
   in ``*``, fewer ``+``, longer, lexicographically greater;
3. else nothing, which is a refusal.

The same rule path in several policies is merged: ``deny`` wins and stays, else capabilities are united.

A path may have templates (``core.templates``); rules are filled in for the entity that asks before they are compiled.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from keyhole.core.errors import InvalidRequest
from keyhole.core.parameters import Parameters, merge_parameters, parameters_pass, parse_parameters

if TYPE_CHECKING:
    from keyhole.core.identity import IdentityView

CAPABILITIES = ("create", "read", "update", "patch", "delete", "list", "sudo", "deny", "use")
ROOT = "root"
DEFAULT = "default"
WRAPPING = "response-wrapping"
_PARAMETER_OPERATIONS = frozenset({"create", "read", "update", "patch"})
# A rule for one of these holds for the paths below too, which name what the request is about in the path instead of in
# its body. Vault has both forms and lets a rule for the first not hold for the second.
_ALSO_BELOW = ("sys/leases/renew", "sys/renew")
_DECIDED = 4096
_LONG = 256


def _without_templates(path: str) -> str:
    from keyhole.core.templates import without_templates  # noqa: PLC0415  # most policies have none

    return without_templates(path)


class PathRule(NamedTuple):
    """One stanza of a policy: a path pattern and what it gives.

    Attributes:
        path: exact path, or with ``*`` at its end, or with ``+`` for whole segments.
        capabilities: a subset of ``CAPABILITIES``.
        allowed: parameter name to the values it may have; empty values mean any.
        denied: parameter name to values it may not have; empty values mean none at all.
        required: parameters that must be present.
        min_wrap: seconds; the answer has to be wrapped for at least so long. 0 for not set.
        max_wrap: seconds; the answer has to be wrapped, for at most so long. 0 for not set.
    """

    path: str
    capabilities: frozenset[str]
    allowed: Parameters | None = None
    denied: Parameters | None = None
    required: frozenset[str] = frozenset()
    min_wrap: int = 0
    max_wrap: int = 0

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> PathRule:
        """Build a rule from its stored form. Raises ``InvalidRequest`` for unknown capabilities or bad patterns."""
        path = str(data["path"]).removeprefix("/")
        if path.startswith("/"):  # of a rule that is kept and read again, one slash would go each time
            raise InvalidRequest(f'path "/{path}" begins with two slashes', "begin it with the name of a mount")
        capabilities = frozenset(data.get("capabilities", ()))
        for capability in sorted(capabilities - set(CAPABILITIES)):
            raise InvalidRequest(
                f'path "{path}": invalid capability "{capability}"', f"use some of {', '.join(CAPABILITIES)}"
            )
        plain = _without_templates(path) if "{" in path or "}" in path else path
        if "*" in plain[:-1]:
            raise InvalidRequest(f'path "{path}": "*" is only allowed at the end', 'use "+" for a whole segment')
        if any("+" in segment and segment != "+" for segment in plain.split("/")):
            raise InvalidRequest(f'path "{path}": "+" stands for a whole segment')
        return cls(
            path,
            capabilities,
            parse_parameters(data.get("allowed_parameters")),
            parse_parameters(data.get("denied_parameters")),
            frozenset(str(name).lower() for name in data.get("required_parameters", ())),
            int(data.get("min_wrapping_ttl", 0)),
            int(data.get("max_wrapping_ttl", 0)),
        )

    @property
    def restricts(self) -> bool:
        """Whether it asks for or limits parameters or wrapping."""
        return bool(self.required or self.denied or self.allowed or self.min_wrap or self.max_wrap)

    @property
    def is_template(self) -> bool:
        """Whether its path is another one for each entity."""
        return "{{" in self.path

    def filled(self, view: IdentityView) -> PathRule | None:
        """The rule for one entity; ``None`` where it has none for this one."""
        if not self.is_template:
            return self
        from keyhole.core.templates import fill  # noqa: PLC0415  # most policies have none

        path = fill(self.path, view)
        return None if path is None else self._replace(path=path)

    def wraps(self, ttl: int) -> bool:
        """Whether an answer that is wrapped for so many seconds (0: not at all) is what it demands."""
        if not (self.min_wrap or self.max_wrap):
            return True
        return ttl > 0 and self.min_wrap <= ttl <= (self.max_wrap or ttl)

    def merged(self, other: PathRule) -> PathRule:
        """This rule and another one for the same path, as one."""
        if "deny" in self.capabilities or "deny" in other.capabilities:
            return PathRule(self.path, frozenset({"deny"}))
        return PathRule(
            self.path,
            self.capabilities | other.capabilities,
            merge_parameters(self.allowed, other.allowed),
            merge_parameters(self.denied, other.denied),
            self.required | other.required,
            _least(self.min_wrap, other.min_wrap),
            _least(self.max_wrap, other.max_wrap),
        )


class Decision(NamedTuple):
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
        rules: of all policies together, filled in.
        root: the policy ``root`` is among them: everything is allowed.
        services: the only ones whose use can be allowed; ``None`` for no such limit.
    """

    __slots__ = ("_decided", "_exact", "_lengths", "_root", "_services", "_wild")

    def __init__(
        self, rules: Iterable[PathRule], *, root: bool = False, services: frozenset[str] | None = None
    ) -> None:
        self._root = root
        self._services = services
        self._decided: dict[tuple[str, str, bool], Decision] = {}
        by_path: dict[str, PathRule] = {}
        for rule in rules:
            known = by_path.get(rule.path)
            by_path[rule.path] = known.merged(rule) if known else rule
        for path in _ALSO_BELOW:
            if path in by_path and not by_path[path].restricts and f"{path}/*" not in by_path:
                by_path[f"{path}/*"] = by_path[path]._replace(path=f"{path}/*")
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
        self,
        operation: str,
        path: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        sudo: bool = False,
        wrap_ttl: int = 0,
    ) -> Decision:
        """May the caller do this?

        Args:
            operation: one of ``CAPABILITIES`` but ``sudo`` and ``deny``.
            path: absolute API path without a leading slash.
            parameters: top-level request fields, for rules that restrict them.
            sudo: the path is root-protected and needs ``sudo`` besides.
            wrap_ttl: seconds for which the answer is to be wrapped; 0 for not at all.
        """
        if self._services is not None and operation == "use" and path.rpartition("/")[2] not in self._services:
            return Decision(allowed=False, reason="this token was made for other services")
        if self._root:
            return ALLOWED_BY_ROOT
        decision = self._decided.get((operation, path, sudo))
        if decision is None:
            rule = self.rule_for(path, listing=operation == "list")
            decision = self._judge(rule, operation, path, parameters or {}, sudo=sudo)
            if decision.allowed and rule is not None and operation != "use" and not rule.wraps(wrap_ttl):
                reason = f'the rule "{rule.path}" wants the answer wrapped, {rule.min_wrap or 1} s or longer'
                reason += f" and at most {rule.max_wrap} s" if rule.max_wrap else ""
                return Decision(allowed=False, reason=reason, rule=rule.path)
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
        if operation in _PARAMETER_OPERATIONS and not parameters_pass(
            parameters, allowed=rule.allowed, denied=rule.denied, required=rule.required
        ):
            return Decision(
                allowed=False, reason=f'the rule "{rule.path}" does not accept these parameters', rule=rule.path
            )
        return Decision(allowed=True, rule=rule.path)

    def capabilities(self, path: str) -> list[str]:
        """What the caller has on a path, sorted, as ``sys/capabilities`` answers it."""
        if self._root:
            return [ROOT]
        rule = self.rule_for(path, listing=True)
        given = rule.capabilities if rule is not None and "deny" not in rule.capabilities else frozenset()
        if self._services is not None and path.rpartition("/")[2] not in self._services:
            given -= {"use"}
        return sorted(given) or ["deny"]

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

    def resultant(self) -> dict[str, Any]:
        """All rules, as ``sys/internal/ui/resultant-acl`` answers them; the path of a glob is without its star."""
        if self._root:
            return {"root": True, "exact_paths": {}, "glob_paths": {}}
        rules = [wild.rule for bucket in self._wild.values() for wild in bucket]
        return {
            "root": False,
            "exact_paths": {path: _granted(rule) for path, rule in self._exact.items()},
            "glob_paths": {rule.path.removesuffix("*"): _granted(rule) for rule in rules},
        }

    def includes(self, rule: PathRule) -> bool:
        """Whether a caller with this list may do all that a rule allows.

        Only a rule for one exact path is compared. A pattern reaches paths that other rules of the caller may take
        away, and a template whatever its entity is called, so they count as more, unless they give nothing at all.
        """
        if (self._root and self._services is None) or not rule.capabilities or "deny" in rule.capabilities:
            return True
        own = None if _is_pattern(rule.path) or rule.is_template else self.rule_for(rule.path)
        if own is None or "deny" in own.capabilities or not rule.capabilities <= own.capabilities:
            return False
        if self._services is not None and "use" in rule.capabilities:
            return False
        return not own.restricts or _limits(own) == _limits(rule)

    def _best(self, path: str) -> PathRule | None:
        for length in self._lengths:
            if length <= len(path):
                for candidate in self._wild.get(path[:length], ()):
                    if candidate.matches(path):
                        return candidate.rule
        return None


def _granted(rule: PathRule) -> dict[str, list[str]]:
    denied = "deny" in rule.capabilities or not rule.capabilities
    return {"capabilities": ["deny"] if denied else sorted(rule.capabilities)}


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


def _limits(rule: PathRule) -> tuple[object, ...]:
    return rule.allowed, rule.denied, rule.required, rule.min_wrap, rule.max_wrap


def _least(one: int, other: int) -> int:
    """The smaller of two times of which 0 means "not set"."""
    return min(filter(None, (one, other)), default=0)

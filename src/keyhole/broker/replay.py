"""What changed rules would have decided of calls that were noted, by the functions that decide calls.

What saw a value when the call was made cannot be asked again: conditions on bodies, parameters, GraphQL and git, rates,
counts and approvals. Where such a thing has the last word, the replay says so and does not guess. Hours count as of the
time of the call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from keyhole.broker.checks import foreseen
from keyhole.broker.directory import Directory, Wanted
from keyhole.core.errors import KeyholeError
from keyhole.core.host import Authority
from keyhole.core.identity import NOBODY, Caller
from keyhole.core.passthrough import PASSTHROUGH
from keyhole.core.policy import PathRule
from keyhole.core.question import TUNNEL, Question
from keyhole.core.service import Service
from keyhole.core.target import canonical_target, readings
from keyhole.core.times import format_time
from keyhole.vault.compiled import OrgState
from keyhole.vault.vault import Vault

NEWLY_REFUSED, NEWLY_ALLOWED, ANOTHER, UNDECIDED = "newly_refused", "newly_allowed", "another_service", "undecided"
KINDS = (NEWLY_REFUSED, NEWLY_ALLOWED, ANOTHER, UNDECIDED)
_GROUPS = 200


class Answer(NamedTuple):
    """What rules say of a call.

    Attributes:
        allowed: as far as they can tell.
        service: that it goes through, or that the refusal is about.
        code: of the refusal.
        reason: in words.
        depends: what has the last word, where a call is allowed, and cannot be asked again.
    """

    allowed: bool
    service: str = ""
    code: str = ""
    reason: str = ""
    depends: tuple[str, ...] = ()

    def as_data(self) -> dict[str, Any]:
        """JSON-ready."""
        said = {"service": self.service, "code": self.code, "reason": self.reason, "depends": list(self.depends)}
        return {"allowed": self.allowed, **{name: value for name, value in said.items() if value}}


@dataclass(slots=True)
class Changes:
    """What is changed for the replay.

    Attributes:
        policies: rules by name of the policy; none for one that is removed.
        services: by name; ``None`` for one that is removed.
        egress: of the org; empty for the one that it has.
    """

    policies: dict[str, list[PathRule]] = field(default_factory=dict)
    services: dict[str, Service | None] = field(default_factory=dict)
    egress: str = ""

    def __bool__(self) -> bool:
        return bool(self.policies or self.services or self.egress)


class Rules:
    """The rules of an org, perhaps changed, to be asked about calls that were noted.

    Args:
        vault: open.
        state: of the org.
        services: all that there are.
        changes: what is another than in the vault.
    """

    def __init__(self, vault: Vault, state: OrgState, services: Mapping[str, Service], changes: Changes) -> None:
        merged = {**services, **changes.services}
        self._vault = vault
        self._services = {name: service for name, service in merged.items() if service is not None}
        self._known = services
        self._directory = Directory(self._services.values())
        self._egress = changes.egress or state.org.egress
        # Of its own, so that nothing of what is tried here is compiled for anybody else.
        self._state = OrgState(
            state.org,
            state.epoch,
            state.generation,
            state.mounts,
            state.known,
            state.bindings,
            rules=changes.policies,
        )

    async def decide(self, question: Question) -> Answer:
        """What becomes of a call."""
        caller = await self._caller(question)
        authority = Authority(question.host, question.port)
        if question.upgrade == TUNNEL:
            refusal = self._directory.tunnel(caller, authority, self._egress).refusal
            return Answer(allowed=True) if refusal is None else _refused(refusal)
        try:
            target = canonical_target(question.path.encode())
        except KeyholeError as error:
            return _refused(error)
        wanted = Wanted(question.scheme, authority, question.method, readings(target), question.service, [], target)
        shown = self._known.get(question.shown)
        if shown is not None:
            wanted.headers = [(b"shown", text.encode()) for text in shown.shown()]
        match = self._directory.decide(caller, wanted, self._egress, passed=question.upgrade == PASSTHROUGH)
        if match.refusal is not None:
            return _refused(match.refusal, match.about)
        name = match.service.name if match.service is not None else ""
        try:
            depends = foreseen(match, wanted, question)
        except KeyholeError as error:
            return _refused(error, name)
        return Answer(allowed=True, service=name, depends=tuple(depends))

    async def _caller(self, question: Question) -> Caller:
        """Who asked, with the policies that the token had then, as they are now."""
        state, view = self._state, NOBODY
        if question.entity:
            found = await state.known.person(self._vault.orgs.identities(state.org.id), question.entity)
            view = found.view if found is not None else NOBODY
        services = None if question.services is None else frozenset(question.services)
        acl = await self._vault.compiled.acl(state, question.policies, view, services)
        return Caller(state.org.name, state.org.id, question.agent, "", "proxy", question.policies, acl)


class Replay:
    """The outcome, call by call.

    Args:
        before: the rules of today.
        after: the rules with the changes; the same where there are none, and then they are held against the answers
            that were given.
        examples: calls of each kind that are told in full.
    """

    def __init__(self, before: Rules, after: Rules, examples: int) -> None:
        self._before = before
        self._after = after
        self._examples = examples
        self.calls = self.unasked = self.otherwise = 0
        self.first = self.last = 0.0
        self.kinds: Counter[str] = Counter()
        self.depends: Counter[str] = Counter()
        self._groups: Counter[tuple[str, ...]] = Counter()
        self._told: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}

    async def ask(self, question: Question) -> None:
        """Ask about one call."""
        if not question.path and question.upgrade != TUNNEL:
            self.unasked += 1
            return
        self.calls += 1
        self.first = min(self.first or question.at, question.at)
        self.last = max(self.last, question.at)
        given = Answer(question.allowed, question.through, question.code)
        answer = await self._after.decide(question)
        # What then had the last word has it now too, as far as anybody can tell.
        today = given = given._replace(depends=answer.depends)
        if self._before is not self._after:
            today = await self._before.decide(question)
        self.depends.update(answer.depends)
        by_rules = question.allowed or question.stage == "rules"
        if today is given and not by_rules:  # what refused it then cannot be asked again
            kind = UNDECIDED if answer.allowed else ""
        else:
            kind = _kind(today, answer)
            if by_rules and _differs(given, today):
                self.otherwise += 1
        if not kind:
            return
        self.kinds[kind] += 1
        group = (kind, question.agent, today.service, answer.service)
        if group in self._groups or len(self._groups) < _GROUPS:
            self._groups[group] += 1
        if len(self._told[kind]) < self._examples:
            self._told[kind].append(_example(question, given, today, answer))

    def as_data(self) -> dict[str, Any]:
        """JSON-ready."""
        groups = [
            {"kind": kind, "agent": agent, "from": was, "to": now, "calls": number}
            for (kind, agent, was, now), number in self._groups.most_common()
        ]
        return {
            "calls": self.calls,
            "first": format_time(self.first) if self.calls else "",
            "last": format_time(self.last) if self.calls else "",
            **{kind: self.kinds[kind] for kind in KINDS},
            "decided_otherwise_then": self.otherwise,
            "not_asked": self.unasked,
            "depends": dict(sorted(self.depends.items())),
            "groups": groups,
            "examples": {kind: told for kind, told in self._told.items() if told},
        }


def _differs(one: Answer, other: Answer) -> bool:
    return one.allowed != other.allowed or (one.allowed and one.service != other.service)


def _kind(before: Answer, after: Answer) -> str:
    """How an answer differs from the one before; empty if it does not."""
    if before.allowed and not after.allowed:
        return NEWLY_REFUSED
    if not before.allowed and after.allowed:
        return UNDECIDED if after.depends else NEWLY_ALLOWED
    if before.allowed and before.service != after.service:
        return ANOTHER
    return UNDECIDED if set(after.depends) - set(before.depends) else ""


def _refused(error: KeyholeError, service: str = "") -> Answer:
    return Answer(allowed=False, service=service, code=error.code, reason=error.reason)


def _example(question: Question, given: Answer, today: Answer, answer: Answer) -> dict[str, Any]:
    return {
        "at": format_time(question.at),
        "agent": question.agent,
        "method": "CONNECT" if question.upgrade == TUNNEL else question.method,
        "url": f"{question.scheme}://{Authority(question.host, question.port)}{question.path}",
        "given": given.as_data(),
        "before": today.as_data(),
        "after": answer.as_data(),
        **({"run": dict(question.run)} if question.run else {}),
    }

"""What is asked of a call after its service was found and before anything is lent: the one place where that is decided.

    conditions on the head - rate - the body, held - conditions on it - approval - concurrency and count

Whoever is refused here has made nobody open a secret, mint a token or connect to an upstream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from keyhole.broker.approvals import Case, Desk, case_of, noted, use_up
from keyhole.broker.directory import Match, Wanted
from keyhole.broker.held import HeldBody, hold
from keyhole.broker.late import PATIENCE, require_still
from keyhole.broker.meters import Meter, Meters
from keyhole.core.checks.approval import BODY_LIMIT as APPROVABLE
from keyhole.core.checks.conditions import WITHOUT_BODY, Asked
from keyhole.core.errors import InternalError, PolicyDenied
from keyhole.core.identity import Caller
from keyhole.core.message import Body, Call
from keyhole.core.question import Question
from keyhole.core.request import Request
from keyhole.core.service import Service
from keyhole.core.target import canonical_target
from keyhole.vault.compiled import OrgState
from keyhole.vault.vault import Vault

_TOO_MUCH = "the service judges the whole body: send less at once"


@dataclass(slots=True)
class Passed:
    """A call that may be made.

    Attributes:
        call: with its body held, where it was judged: those bytes are sent.
        request: as its record shows it.
        end: called once the call has ended, however often.
    """

    call: Call
    request: Request
    end: Callable[[], None]


class Gate:
    """Judges calls by the checks of their services."""

    def __init__(self) -> None:
        self._meters = Meters()
        self._desk = Desk()

    async def admit(
        self,
        vault: Vault,
        state: OrgState,
        caller: Caller,
        match: Match,
        wanted: Wanted,
        call: Call,
        request: Request,
        taking: Callable[[int], None] | None = None,
    ) -> Passed:
        """Judge a call that was matched to a service with checks. Raises the refusal.

        ``taking`` counts what is held of its body.
        """
        service, checks = match.service, match.checks
        if service is None or checks is None:
            raise InternalError("a call without checks was to be checked")
        target = canonical_target(call.target)
        asked = Asked(call.method, target, wanted.paths, call.headers, call.body is not None, bool(call.upgrade))
        conditions = [each for each in checks.conditions if each.scope.means(asked.method, asked.paths)]
        for condition in conditions:
            condition.judge_head(asked, vault.clock.now())
        meter = self._meters.of(vault, state, caller, service, checks.limits)
        if meter is not None:
            meter.take_rate()
        judged = [each for each in conditions if each.needs_body(asked)]
        wanted_approvals = [each for each in checks.approvals if each.scope.means(asked.method, asked.paths)]
        content = b""
        if call.body is not None and (judged or wanted_approvals):
            limits = [each.body_limit for each in judged]
            limit = min([*limits, *[APPROVABLE] * len(wanted_approvals)])
            content = await _held(vault, caller, service, call.body, limit, taking)
            call = replace(call, body=HeldBody(content, call.body.trailers))
        for condition in judged:
            condition.judge_body(asked, content)
        if not wanted_approvals:
            turn = await meter.begin() if meter is not None else None
            return Passed(call, request, _nothing if turn is None else turn.end)
        _require_end(call.upgrade)
        origin = (wanted.scheme, wanted.authority)
        case = case_of(vault, state, caller, service, wanted_approvals, request, asked, origin, content)
        return await self._approved(case, meter, call)

    async def _approved(self, case: Case, meter: Meter | None, call: Call) -> Passed:
        """Have a call approved. The approval is used up last, when nothing else can refuse the call."""
        found = await self._desk.require(case)
        turn = await meter.begin() if meter is not None else None
        try:
            approval = await use_up(case, found)
        except BaseException:
            if turn is not None:
                turn.undo()
            raise
        return Passed(call, noted(case.request, approval), _nothing if turn is None else turn.end)


def foresee(match: Match, wanted: Wanted, target: bytes, now: float) -> list[str]:
    """What would be asked of a call, in words. Raises the refusal where its head alone does not pass; nothing is spent.

    Args:
        match: what it would go to.
        wanted: what it was matched by; its body, if it would have one, is not known.
        target: canonical.
        now: seconds since the epoch.
    """
    if match.checks is None:
        return []
    asked = Asked(wanted.method, target, wanted.paths, [], has_body=wanted.method not in WITHOUT_BODY)
    for condition in match.checks.conditions:
        if condition.scope.means(asked.method, asked.paths):
            condition.judge_head(asked, now)
    return match.checks.describe(asked.method, asked.paths)


def foreseen(match: Match, wanted: Wanted, question: Question) -> list[str]:
    """What has the last word on a call that is known by names alone, of what is asked of it after it was matched.

    Raises the refusal where time and head refuse it without a look at any value.

    Args:
        match: what it goes to.
        wanted: what it was matched by.
        question: the call.
    """
    checks = match.checks
    if checks is None:
        return []
    has_body = question.size != 0
    asked = Asked(wanted.method, wanted.target, wanted.paths, [], has_body=has_body, upgrade=bool(question.upgrade))
    found = []
    for condition in checks.conditions:
        if condition.scope.means(asked.method, asked.paths):
            found += condition.judge_known(asked, question.at)
    if checks.limits is not None:
        found += [name for name in ("rate", "count", "concurrent") if getattr(checks.limits, name)]
    if any(each.scope.means(asked.method, asked.paths) for each in checks.approvals):
        _require_end(question.upgrade)
        found.append("approval")
    return list(dict.fromkeys(found))


def _require_end(upgrade: str) -> None:
    if upgrade:
        raise PolicyDenied("a person approves whole requests, and a WebSocket has no end", "use another service")


async def _held(
    vault: Vault, caller: Caller, service: Service, body: Body, limit: int, taking: Callable[[int], None] | None
) -> bytes:
    """The whole body. Whoever took long to send it is judged again."""
    loop = asyncio.get_running_loop()
    start = loop.time()
    content = await hold(body, limit, _TOO_MUCH, taking=taking)
    if loop.time() - start >= PATIENCE:
        await require_still(vault, caller, service)
    return content


def _nothing() -> None:
    """There is nothing to end."""

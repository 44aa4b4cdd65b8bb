"""What is asked of a call after its service was found and before anything is lent: the one place where that is decided.

    conditions on the head - rate - the body, held - conditions on it - approval - concurrency and count

Whoever is refused here has made nobody open a secret, mint a token or connect to an upstream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace

from keyhole.broker.directory import Match, Wanted
from keyhole.broker.held import HeldBody, hold
from keyhole.broker.late import PATIENCE, require_still
from keyhole.broker.meters import Meters
from keyhole.core.checks.conditions import WITHOUT_BODY, Asked
from keyhole.core.errors import InternalError
from keyhole.core.identity import Caller
from keyhole.core.message import Call
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

    async def admit(
        self,
        vault: Vault,
        state: OrgState,
        caller: Caller,
        match: Match,
        wanted: Wanted,
        call: Call,
        request: Request,
    ) -> Passed:
        """Judge a call that was matched to a service with checks. Raises the refusal."""
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
        if judged:
            content = await _held(vault, caller, service, call, min(each.body_limit for each in judged))
            for condition in judged:
                condition.judge_body(asked, content)
            call = replace(call, body=HeldBody(content) if call.body is not None else None)
        end = await meter.begin() if meter is not None else _nothing
        return Passed(call, request, end)


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


async def _held(vault: Vault, caller: Caller, service: Service, call: Call, limit: int) -> bytes:
    """The whole body. Whoever took long to send it is judged again."""
    if call.body is None:
        return b""
    loop = asyncio.get_running_loop()
    start = loop.time()
    content = await hold(call.body, limit, _TOO_MUCH)
    if loop.time() - start >= PATIENCE:
        await require_still(vault, caller, service)
    return content


def _nothing() -> None:
    """There is nothing to end."""

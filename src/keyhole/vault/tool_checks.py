"""What is asked of a use of a tool after it was found, and before anything of it is lent.

    schema and globs - conditions on arguments and time - rate - approval - count

What a person approves is one call: of this agent, of this tool as it was approved itself, of this server as it is
bound, with these arguments. With another of them it is another call.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from keyhole.core.errors import ApprovalRequired, Conflict, InvalidRequest, KeyholeError, PolicyDenied
from keyhole.core.identity import Caller
from keyhole.core.record import Phase, Record, clip
from keyhole.core.request import Request
from keyhole.core.strict_json import JsonBounds, parse_json
from keyhole.core.tool_server import Rule, ToolServer
from keyhole.vault import approvals
from keyhole.vault.approvals import DENIED, Found, Wish
from keyhole.vault.compiled import OrgState
from keyhole.vault.limiting import Meter
from keyhole.vault.storage import Storage
from keyhole.vault.tool_rules import require_arguments

if TYPE_CHECKING:
    from keyhole.core.checks.approval import Approval
    from keyhole.core.checks.documents import Test
    from keyhole.vault.vault import Vault

_RETRIES = 20
_NAMES = 32
_BOUNDS = JsonBounds()


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool that was found.

    Attributes:
        server: its binding.
        tool: its name there.
        digest: of the tool as it was approved.
        arguments: of the call.
    """

    server: ToolServer
    tool: str
    digest: str
    arguments: Mapping[str, Any]

    @property
    def rules(self) -> list[Rule]:
        """What holds for it."""
        return self.server.rules_of(self.tool)

    @property
    def text(self) -> bytes:
        """The arguments as JSON in one form. Raises ``InvalidRequest`` for what is none."""
        try:
            return json.dumps(self.arguments, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
        except (ValueError, TypeError, RecursionError):
            raise InvalidRequest("the arguments are no JSON that every reader takes", "send plain JSON") from None


def judge(call: ToolCall, now: float) -> None:
    """Judge arguments and time. Raises ``InvalidRequest`` or ``PolicyDenied``, which name no value of an argument."""
    rules = call.rules
    _ = call.text  # what is no plain JSON, such as NaN, would be judged as one thing and sent as another
    require_arguments(rules, call.arguments)
    conditions = [each for rule in rules if rule.checks is not None for each in rule.checks.conditions]
    document = None
    for condition in conditions:
        condition.judge_time(now)
        if condition.body:
            from keyhole.core.checks.documents import judge_json  # noqa: PLC0415  # for tools with conditions alone

            document = parse_json(call.text, _BOUNDS, exact=True) if document is None else document
            judge_json(condition.body, document, _refusal)


def _refusal(test: Test) -> KeyholeError:
    return InvalidRequest("the arguments are not as this tool may be used with", f"it must hold: {test}")


async def admit(vault: Vault, state: OrgState, caller: Caller, request: Request, call: ToolCall) -> str:
    """Judge a call; returns the id of the approval by which it is made, which is used up, or ``""``.

    Raises:
        InvalidRequest: of the arguments.
        RateLimited: the agent calls it too often.
        ApprovalRequired: a person has to approve it, and is asked now.
        PolicyDenied: a person denied it, or it may not be used at this hour.
    """
    judge(call, vault.clock.now())
    meters = _meters(vault, state, caller, call)
    for meter in meters:
        meter.take_rate()
    wanted = [each for rule in call.rules if rule.checks is not None for each in rule.checks.approvals]
    if not wanted:
        await _count(meters)
        return ""
    storage = vault.storage(state.org.id, approvals.MOUNT)
    wish = _wish(state, caller, request, call, wanted)
    found = await _look(vault, storage, wish)
    if not found.approved:
        raise await _asked(vault, state, caller, request, call, wish, found)
    await _count(meters)
    again = partial(_look, vault, storage, wish)
    return await approvals.use_up(storage, wish, found, again, "call it again to ask for another")


def _meters(vault: Vault, state: OrgState, caller: Caller, call: ToolCall) -> list[Meter]:
    """One for each rule with limits; tools that one rule is for have each their own."""
    found = []
    for rule in call.rules:
        limits = rule.checks.limits if rule.checks is not None else None
        key = hashlib.sha256(f"{call.tool}\0{rule.tools}".encode()).hexdigest()[:32]
        name = f"the tool {call.server.name}/{call.tool}"
        meter = vault.limiting.at(vault, state, caller, f"tools/{call.server.name}/{key}", name, limits)
        if meter is not None:
            found.append(meter)
    return found


async def _count(meters: Sequence[Meter]) -> None:
    for meter in meters:
        (await meter.begin()).end()


def _wish(state: OrgState, caller: Caller, request: Request, call: ToolCall, wanted: Sequence[Approval]) -> Wish:
    from keyhole.core.checks.approval import BODY_LIMIT, Subject, preview, shape  # noqa: PLC0415  # as above

    text = call.text
    if len(text) > BODY_LIMIT:
        raise InvalidRequest("a person approves arguments of at most 1 MiB", "send less at once")
    server = call.server
    bound = hashlib.sha256(json.dumps(server.as_data(), sort_keys=True).encode()).hexdigest()
    subject = Subject.of_tool((state.org.id, server.name, bound, call.tool, call.digest), text)
    facts: dict[str, Any] = {
        "kind": "tool",
        "service": f"tools/{server.name}",
        "method": "USE",
        "host": server.name,
        "target": f"/{call.tool}",
        "parameters": [clip(str(name)) for name in list(call.arguments)[:_NAMES]],
        "size": len(text),
        "body_sha256": hashlib.sha256(text).hexdigest(),
        "tool_sha256": call.digest,
        "request_id": request.id,
        "shape": shape("application/json", text),
        **({"preview": preview(text)} if all(each.preview for each in wanted) else {}),
        **caller.run.as_data(),
    }
    return Wish(caller.name, subject, min(each.ttl for each in wanted), facts, caller.entity.id)


async def _look(vault: Vault, storage: Storage, wish: Wish) -> Found:
    found = await approvals.find(storage, wish, vault.clock.now())
    if found.standing is None and found.request is not None and found.request["state"] == DENIED:
        raise PolicyDenied(f"{found.request['by']} denied this call", f"keyhole requests {found.request['id']}")
    return found


async def _asked(
    vault: Vault, state: OrgState, caller: Caller, request: Request, call: ToolCall, wish: Wish, found: Found
) -> ApprovalRequired:
    """Store the request and record that it was made, unless there is one; the refusal that names it."""
    storage = vault.storage(state.org.id, approvals.MOUNT)
    for _ in range(_RETRIES):
        if found.request is not None:
            return _required(str(found.request["id"]))
        try:
            request_id = await approvals.ask(storage, wish, vault.clock.now(), found)
        except Conflict:
            found = await _look(vault, storage, wish)
        else:
            await vault.journal.intend(_event(caller, request, call, request_id), state.org.id)
            return _required(request_id)
    raise Conflict("the approval is being asked for by many at once", "try again")


def _required(request_id: str) -> ApprovalRequired:
    return ApprovalRequired(
        "a person has to approve this call", f"keyhole approve {request_id}, then call it again", approval=request_id
    )


def _event(caller: Caller, request: Request, call: ToolCall, request_id: str) -> Record:
    run: dict[str, Any] = {**caller.run.as_data(), "tool": f"{call.server.name}/{call.tool}"}
    return Record(
        phase=Phase.EVENT,
        id=request.id,
        caller=caller.name,
        accessor=caller.accessor,
        operation="approval",
        path=f"approvals/requests/{request_id}",
        approval=request_id,
        remote=request.remote,
        parameters=tuple(clip(str(name)) for name in list(call.arguments)[:_NAMES]),
        **run,
    )

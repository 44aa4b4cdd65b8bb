"""The step of the door in which a tool is used: decided on ``tools/SERVER/TOOL``, recorded, and its secrets opened.

A tool that was never approved, or that is not any more what was approved, is refused as one that is not there.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from keyhole.core.errors import (
    ApprovalRequired,
    InternalError,
    InvalidRequest,
    KeyholeError,
    NotFound,
    PolicyDenied,
)
from keyhole.core.identity import Caller
from keyhole.core.path import parse_path, parse_secret_ref
from keyhole.core.policy import Decision
from keyhole.core.record import Intent, Phase, Record, clip
from keyhole.core.request import Operation, Request
from keyhole.core.tool_server import SIDES, ToolServer, is_digest, is_tool_name, parse_server_name
from keyhole.core.value import Secret
from keyhole.vault.compiled import OrgState
from keyhole.vault.lending import TOOLS
from keyhole.vault.storage import Storage
from keyhole.vault.tool_checks import ToolCall, admit, judge

if TYPE_CHECKING:
    from keyhole.vault.vault import Vault

MOUNT = "tools"
_NAMES = 32  # of arguments, in a record


@dataclass(frozen=True, slots=True)
class ToolLoan:
    """What the door gives for one use of a tool.

    Attributes:
        server: its binding.
        intent: to be concluded when the use ends.
        secrets: of its server, by ``(path, field)``.
    """

    server: ToolServer
    intent: Intent
    secrets: Mapping[tuple[str, str], Secret] = field(repr=False)


async def load_server(storage: Storage, name: str) -> ToolServer:
    """The binding of a server. Raises ``NotFound``."""
    item = await storage.get_one(f"s/{parse_server_name(name)}")
    if item.data is None:
        raise NotFound(f"there is no server {name!r}", "keyhole mcp server list")
    return ToolServer.from_data(name, json.loads(item.data))


async def load_pins(storage: Storage, name: str) -> dict[str, dict[str, Any]]:
    """What was approved of a server: by tool its digest, by whom and when."""
    item = await storage.get_one(f"p/{name}")
    return {} if item.data is None else dict(json.loads(item.data))


async def use_tool(vault: Vault, state: OrgState, caller: Caller, request: Request) -> ToolLoan:
    """Decide and record one use, and open the secrets of the tool's server. Nothing is released before the record is.

    Args:
        vault: open.
        state: of the caller's org.
        caller: authenticated within this same request.
        request: its path is ``tools/SERVER/TOOL``; its data are the tool's ``digest`` as it is now and ``arguments``.

    Raises:
        KeyholeError: the refusal, which is recorded.
    """
    async with refusals(vault, state, caller, request) as asked:
        call = await _found(vault, state, caller, request, asked)
        approval = await admit(vault, state, caller, request, call)
    server = call.server
    record = _intent(caller, request, asked.path, asked.decision, server, call.arguments, approval)
    durable = vault.journal.intend(record, state.org.id)
    try:
        secrets = await opened(vault, state, caller, server)
    except BaseException as error:
        await durable
        code = error.code if isinstance(error, KeyholeError) else InternalError.code
        vault.conclude(state, record, code)
        raise
    await durable
    return ToolLoan(server, record, secrets)


async def use_goes_on(
    vault: Vault, state: OrgState, caller: Caller, request: Request, intent: Intent
) -> tuple[ToolServer, Mapping[tuple[str, str], Secret]]:
    """Decide whether a use that was begun may go on with what its client says now.

    It is the same use: neither counted nor approved again, and recorded only where it is refused.

    Args:
        vault: open.
        state: of the caller's org.
        caller: who began it.
        request: as for ``use_tool``.
        intent: of the use.

    Returns:
        The server as it is bound now, and its secrets.

    Raises:
        KeyholeError: the refusal, which is recorded.
    """
    begun = intent.record()
    async with refusals(vault, state, caller, request) as asked:
        call = await _found(vault, state, caller, request, asked)
        if asked.path != begun.path:
            raise InvalidRequest("the call that was begun is another one", "call it anew")
        judge(call, vault.clock.now())
        if not begun.approval and any(rule.checks is not None and rule.checks.approvals for rule in call.rules):
            raise ApprovalRequired("by now a person has to approve this call", "call it anew")
        return call.server, await opened(vault, state, caller, call.server)


@dataclass(slots=True)
class Asked:
    """What a refusal is recorded with: the path that was asked for, and what the policies say."""

    path: str
    decision: Decision


@asynccontextmanager
async def refusals(vault: Vault, state: OrgState, caller: Caller, request: Request) -> AsyncIterator[Asked]:
    """Record what is refused within the block, which may say more of it."""
    asked = Asked(request.path, Decision(allowed=False))
    try:
        yield asked
    except KeyholeError as error:
        facts = {"target": error.digests} if isinstance(error, ToolChanged) else {}
        await _refuse(vault, state, caller, request, error, asked.path, asked.decision, facts)
        raise


async def _found(vault: Vault, state: OrgState, caller: Caller, request: Request, asked: Asked) -> ToolCall:
    """The call of a tool that the caller may use, and that is what was approved. Raises what it is refused for."""
    asked.path = parse_path(asked.path)
    if vault.quotas.concern(state):
        await vault.quotas.admit(state, request, asked.path)
    asked.decision = caller.acl.decide("use", asked.path)
    if not asked.decision:
        raise PolicyDenied("permission denied", f"{asked.decision.reason}; ask for a grant")
    name, _, tool = asked.path.removeprefix(TOOLS).partition("/")
    storage = vault.storage(caller.org_id, MOUNT)
    server = await load_server(storage, name)
    digest = str(request.data.get("digest", ""))
    await _require_offered(storage, server, tool, digest)
    arguments = request.data.get("arguments") or {}
    if not isinstance(arguments, dict):
        raise InvalidRequest("arguments are an object", "send them by name")
    return ToolCall(server, tool, digest, arguments)


async def opened(vault: Vault, state: OrgState, caller: Caller, server: ToolServer) -> dict[tuple[str, str], Secret]:
    """The secrets of a server, by ``(path, field)``.

    Raises:
        NotFound, Expired, ConsentRequired: one is not there.
        PolicyDenied: one may not go to this server.
    """
    if server.oauth:
        await vault.sources.require_audience(state, caller, server.oauth, server.url)
    opening = vault.sources.opening(state, caller, service=server)
    return {ref: await opening.lend(*ref) for ref in server.secret_refs()}


async def renewed(
    vault: Vault, state: OrgState, caller: Caller, server: ToolServer, secrets: Mapping[tuple[str, str], Secret]
) -> dict[tuple[str, str], Secret]:
    """The same after the server has refused its token: with another one, where there is another."""
    ref = parse_secret_ref(server.oauth)
    refused = {ref[1]: secrets[ref].reveal()}
    found = await vault.sources.relend(state, caller, server, refused)
    return {**secrets, **({ref: found[ref[1]]} if ref[1] in found else {})}


class ToolChanged(PolicyDenied):
    """The tool is not what was approved. ``digests`` says what it is and what it was."""

    digests = ""


async def _require_offered(storage: Storage, server: ToolServer, tool: str, digest: str) -> None:
    missing = NotFound(f"the server {server.name} has no tool of this name", "keyhole mcp server tools NAME")
    if not (tool in SIDES or is_tool_name(tool)) or not server.offers(tool):
        raise missing
    if tool in SIDES:
        return
    pin = (await load_pins(storage, server.name)).get(tool)
    if pin is None or pin["digest"] != digest:
        error = ToolChanged(
            "the tool has changed since it was approved" if pin else "the tool was never approved",
            f"a person looks at it and approves it: keyhole mcp server approve {server.name} {tool}",
        )
        error.digests = changed(digest, pin)
        raise error


def changed(digest: str, pin: Mapping[str, Any] | None) -> str:
    """What a record says of a tool that is not what was approved."""
    now = digest if is_digest(digest) else "none"
    return f"now {now}, approved {pin['digest'] if pin else 'none'}"


async def _refuse(
    vault: Vault,
    state: OrgState,
    caller: Caller,
    request: Request,
    error: KeyholeError,
    path: str,
    decision: Decision,
    facts: Mapping[str, Any],
) -> None:
    asked = Request(caller, Operation.USE, path, facts, remote=request.remote, id=request.id)
    error.request_id = request.id
    await vault.record_refusal(state, caller, asked, error, path=clip(path), rule=decision.rule)


def _intent(
    caller: Caller,
    request: Request,
    path: str,
    decision: Decision,
    server: ToolServer,
    arguments: Mapping[str, Any],
    approval: str,
) -> Intent:
    names = tuple(clip(str(name)) for name in list(arguments)[:_NAMES])
    run: dict[str, Any] = {**caller.run.as_data(), "tool": path.removeprefix(TOOLS)}
    return Intent.of(
        Record(
            phase=Phase.INTENT,
            id=request.id,
            caller=caller.name,
            accessor=caller.accessor,
            operation=Operation.USE.value,
            path=path,
            rule=decision.rule,
            remote=request.remote,
            secrets=tuple(sorted({ref for ref, _ in server.secret_refs()})),
            parameters=names,
            approval=approval,
            **run,
        )
    )


class Stamps:
    """Says of opened secrets whether they are the same as before, without saying what they are.

    Args:
        key: of the vault.
    """

    def __init__(self, key: bytes) -> None:
        self._key = hmac.digest(key, b"keyhole tool servers 1", "sha256")

    def of(self, server: ToolServer, secrets: Mapping[tuple[str, str], Secret]) -> str:
        """Another text whenever the binding or one of its values is another."""
        mac = hmac.new(self._key, json.dumps(server.as_data(), sort_keys=True).encode(), hashlib.sha256)
        for ref in sorted(secrets):
            mac.update(hashlib.sha256(secrets[ref].reveal()).digest())
        return mac.hexdigest()

    def ticket(self, intent: Intent, accessor: str) -> str:
        """Proof that an intent is one of ours and of this caller."""
        return hmac.new(
            self._key, b"ticket\0" + accessor.encode() + b"\0" + intent.encode(), hashlib.sha256
        ).hexdigest()

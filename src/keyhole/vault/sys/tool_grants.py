"""Grants of tools: written into the agent's own policy, asked about with ``what-can``, ``who-can`` and ``why``."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from keyhole.core.errors import InvalidRequest, KeyholeError, NotFound, PolicyDenied
from keyhole.core.fields import parse_text
from keyhole.core.identity import Caller
from keyhole.core.path import parse_secret_ref
from keyhole.core.policy import Acl, PathRule
from keyhole.core.tool_server import SIDES, ToolServer, is_tool_name, parse_server_name, tool_path
from keyhole.vault import policies
from keyhole.vault.compiled import OrgState
from keyhole.vault.lending import TOOLS
from keyhole.vault.tool_checks import ToolCall, judge
from keyhole.vault.tool_use import MOUNT, load_pins, load_server
from keyhole.vault.vault import Vault

_HINT = "name it like github/create_issue, github/get_*, github/* or github/@resources"


def split_pattern(text: str) -> tuple[str, str]:
    """Server and tool of what is granted, ``*`` at the end of the tool for any. Raises ``InvalidRequest``."""
    server, slash, tool = text.removeprefix(TOOLS).partition("/")
    begin = tool.removesuffix("*")
    if not slash or not tool or not (tool in SIDES or begin in {"", "@"} or is_tool_name(begin)):
        raise InvalidRequest("this is no tool of a server", _HINT)
    return parse_server_name(server), tool


async def set_grant(vault: Vault, caller: Caller, agent: str, text: str, *, given: bool) -> dict[str, Any]:
    """Let an agent use a tool, or tools by the beginning of their names, or no longer.

    Raises:
        NotFound: there is no such server.
        PolicyDenied: the caller may neither use all that nor has ``sudo`` on the grant.
    """
    server, tool = split_pattern(text)
    path, granting = tool_path(server, tool), f"agents/{agent}/tools"
    pins = dict[str, Any]()
    if given:
        storage = vault.storage(caller.org_id, MOUNT)
        await load_server(storage, server)
        pins = await load_pins(storage, server)
        rule = PathRule(path, frozenset({"use"}))  # one with * is more than what a caller may do by rules of its own
        if not (caller.acl.includes(rule) or caller.allows("update", granting, sudo=True)):
            raise PolicyDenied(
                f"granting a tool needs use of it, and you may not use {path!r}",
                f"ask for that right, or for sudo on {granting}",
            )
    storage = vault.storage(caller.org_id, policies.MOUNT, configures=True)
    changed = await policies.set_capability(storage, f"agent/{agent}", path, "use", given=given)
    seen = [name for name in pins if name == tool or (tool.endswith("*") and name.startswith(tool[:-1]))]
    return {"agent": agent, "tool": f"{server}/{tool}", "changed": changed, "approved": sorted(seen)}


async def usable_tools(vault: Vault, org_id: str, acl: Acl) -> list[dict[str, Any]]:
    """The tools that rules allow: approved, offered and granted; by server, with the secrets that it gets."""
    storage, found = vault.storage(org_id, MOUNT), []
    names = await storage.list("s")
    servers = await asyncio.gather(*(load_server(storage, name) for name in names))
    for server in servers:
        pins = await load_pins(storage, server.name)
        tools = [tool for tool in [*sorted(pins), *sorted(SIDES)] if server.offers(tool)]
        tools = [tool for tool in tools if acl.decide("use", tool_path(server.name, tool))]
        if tools:
            found.append({"server": server.name, "tools": tools, "secrets": secrets_of(server)})
    return found


def secrets_of(server: ToolServer) -> list[str]:
    """Names of what a server gets."""
    return sorted({path for path, _ in server.secret_refs()})


async def servers_with(vault: Vault, org_id: str, secret: str) -> list[ToolServer]:
    """The servers that get a secret."""
    storage = vault.storage(org_id, MOUNT)
    servers = await asyncio.gather(*(load_server(storage, name) for name in await storage.list("s")))
    return [server for server in servers if parse_secret_ref(secret)[0] in secrets_of(server)]


async def uses_some(vault: Vault, org_id: str, server: ToolServer, acl: Acl) -> bool:
    """Whether rules allow any approved tool of a server, or what it has besides."""
    pins = await load_pins(vault.storage(org_id, MOUNT), server.name)
    return any(acl.decide("use", tool_path(server.name, tool)) for tool in [*pins, *SIDES] if server.offers(tool))


async def explain_tool(
    vault: Vault, state: OrgState, caller: Caller, text: str, arguments: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What would happen to a call of a tool: by which rule, with which secrets, and what else is asked of it.

    Args:
        vault: open.
        state: of the org.
        caller: who would call.
        text: ``tools/SERVER/TOOL``.
        arguments: of the call, where they are known.
    """
    path = text.rstrip("/")
    answer: dict[str, Any] = {"caller": caller.name, "method": "USE", "url": path, "tool": path.removeprefix(TOOLS)}
    try:
        name, _, tool = path.removeprefix(TOOLS).partition("/")
        decision = caller.acl.decide("use", path)
        if not decision:
            raise PolicyDenied("permission denied", f"{decision.reason}; keyhole grant AGENT {path}")
        answer["rule"] = decision.rule
        storage = vault.storage(state.org.id, MOUNT)
        server = await load_server(storage, name)
        if not server.offers(tool) or not (tool in SIDES or is_tool_name(tool)):
            raise NotFound(f"the server {name} offers no tool of this name", f"keyhole mcp server show {name}")
        pin = (await load_pins(storage, name)).get(tool)
        if pin is None and tool not in SIDES:
            raise PolicyDenied("the tool was never approved", f"keyhole mcp server approve {name} {tool}")
        call = ToolCall(server, tool, pin["digest"] if pin else "", arguments or {})
        if arguments is not None:
            judge(call, vault.clock.now())
        for secret in secrets_of(server):
            answer.setdefault("secrets", []).append(secret)
        answer["checks"] = [line for rule in call.rules for line in rule.describe()]
        answer["approved"] = {"by": pin["by"], "at": pin["at"], "digest": pin["digest"]} if pin else None
    except KeyholeError as error:
        refusal = {"code": error.code, "reason": error.reason, "hint": error.hint}
        return {**answer, "allowed": False, "error": refusal}
    return {**answer, "allowed": True}


def asked_pattern(data: Mapping[str, Any]) -> str:
    """The tool that a request names. Raises ``InvalidRequest``."""
    return parse_text(data.get("tool"), "tool")

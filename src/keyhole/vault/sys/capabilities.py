"""Who may do what: capabilities of tokens on paths, and the two questions that people ask about grants."""

from __future__ import annotations

from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.path import parse_path
from keyhole.core.policy import Acl
from keyhole.core.request import Operation, Reply
from keyhole.engines import Call, Context, Field, Route
from keyhole.vault.identity import standing
from keyhole.vault.sys.agents import MOUNT as AGENTS
from keyhole.vault.sys.agents import agent_now, require_agent
from keyhole.vault.sys.tool_grants import servers_with, usable_tools, uses_some
from keyhole.vault.tokens import MOUNT as TOKENS
from keyhole.vault.vault import Vault

_LOOKED_AT = ("read", "update", "delete")


class _Handlers:
    """Handlers of the questions about grants."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def of_self(self, context: Context, call: Call) -> Reply:
        return Reply(_capabilities(context.caller.acl, call))

    async def of_token(self, context: Context, call: Call) -> Reply:
        storage = self._vault.storage(context.caller.org_id, TOKENS)
        what = "accessor" if call.path.endswith("accessor") else "token"
        given = call.data.get(what)
        if not isinstance(given, str) or not given or not given.isascii():
            raise InvalidRequest(f"missing {what}", f'send {{"{what}": "…", "paths": [...]}}')
        if what == "token":
            token = await self._vault.tokens.find(storage, given.encode())
        else:
            token = await self._vault.tokens.by_accessor(storage, given)
        if token is None or not token.live(context.now):
            raise InvalidRequest(f"invalid {what}", "it is unknown, expired or revoked")
        state = await self._vault.compiled.state(context.caller.org_id)
        return Reply(_capabilities(await standing.acl_of(self._vault, state, token), call))

    async def agents_with_acl(self, context: Context) -> list[tuple[str, Acl]]:
        names = await self._vault.storage(context.caller.org_id, AGENTS, configures=True).list("a")
        state = await self._vault.compiled.state(context.caller.org_id)
        return [(name, (await agent_now(self._vault, state, name)).acl) for name in names]

    async def who_can(self, context: Context, call: Call) -> Reply:
        path = parse_path(call.params["path"])
        revealing = f"secret/data/{path}"
        if call.data.get("source") in {True, "true"}:
            path, revealing = f"/{path}", path
        services = (await self._vault.services(await self._vault.compiled.state(context.caller.org_id))).values()
        binding = [s.name for s in services if any(ref == path for ref, _ in s.secret_refs())]
        servers = [] if path.startswith("/") else await servers_with(self._vault, context.caller.org_id, path)
        answer = []
        for name, rules in await self.agents_with_acl(context):
            used = [s for s in binding if rules.decide("use", f"services/{s}")]
            org_id = context.caller.org_id
            used += [f"tools/{s.name}" for s in servers if await uses_some(self._vault, org_id, s, rules)]
            direct = [op for op in _LOOKED_AT if rules.decide(op, revealing)]
            if used or direct:
                answer.append({"agent": name, "uses_through": used, "may": direct})
        return Reply({"secret": path, "services": binding, "agents": answer})

    async def what_can(self, context: Context, call: Call) -> Reply:
        name = call.params["name"]
        await require_agent(self._vault, context.caller.org_id, name)
        agent = await agent_now(self._vault, await self._vault.compiled.state(context.caller.org_id), name)
        policies = [*agent.policies, *agent.identity_policies]
        return Reply({"agent": name, **await self.usable(context, agent.acl), "policies": policies})

    async def what_can_self(self, context: Context, _call: Call) -> Reply:
        caller = context.caller
        found = await self.usable(context, caller.acl)
        return Reply({"agent": caller.name, **found, "policies": [*caller.policies, *caller.identity_policies]})

    async def usable(self, context: Context, rules: Acl) -> dict[str, Any]:
        """Services and tools whose use the rules allow, where they go, and the names of their secrets."""
        services = (await self._vault.services(await self._vault.compiled.state(context.caller.org_id))).values()
        usable = [s for s in services if rules.decide("use", f"services/{s.name}")]
        return {
            "services": [
                {"name": s.name, "hosts": [str(host) for host in s.hosts], "secret": s.secret} for s in usable
            ],
            "tools": await usable_tools(self._vault, context.caller.org_id, rules),
        }


def routes(vault: Vault) -> tuple[Route, ...]:
    """The table."""
    r = _Handlers(vault)
    paths = (Field("paths", "list of API paths"),)
    return (
        Route(
            "capabilities-self", {Operation.CREATE: r.of_self}, fields=paths, help="What the caller may do on paths."
        ),
        Route("capabilities", {Operation.CREATE: r.of_token}, fields=paths, help="What a token may do on paths."),
        Route("capabilities-accessor", {Operation.CREATE: r.of_token}, fields=paths, help="The same by accessor."),
        Route(
            "who-can/{path...}",
            {Operation.READ: r.who_can},
            fields=(Field("source", "the path is of a source, such as database/creds/NAME", "boolean"),),
            help="Which agents can use or read a secret or a source.",
        ),
        Route("what-can", {Operation.READ: r.what_can_self}, help="Which services the caller can use."),
        Route("what-can/{name}", {Operation.READ: r.what_can}, help="Which services an agent can use."),
    )


def _capabilities(acl: Acl, call: Call) -> dict[str, Any]:
    given = call.data.get("paths") or call.data.get("path")
    paths = given if isinstance(given, list) else str(given or "").split(",")
    if not given or not all(isinstance(path, str) and path for path in paths):
        raise InvalidRequest("paths must be supplied", 'send {"paths": ["secret/data/x"]}')
    found: dict[str, Any] = {path: acl.capabilities(path.removeprefix("/")) for path in paths}
    if len(paths) == 1:
        found["capabilities"] = found[paths[0]]
    return found

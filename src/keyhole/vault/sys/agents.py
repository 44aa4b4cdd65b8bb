"""``agents/``: machine identities. Granting writes into the agent's own policy ``agent/NAME``.

Nobody gives away through an agent what it has not got itself: who makes a token for an agent must be allowed all that
the agent is, and its end is theirs; who grants a service must be allowed its use. ``sudo`` on that path lifts this.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from keyhole.core.errors import InvalidRequest, NotFound, PolicyDenied, Unauthenticated
from keyhole.core.fields import parse_text
from keyhole.core.identity import Caller, Login
from keyhole.core.lease import parse_duration
from keyhole.core.numbers import parse_count, parse_flag
from keyhole.core.path import parse_name, parse_policy_name
from keyhole.core.policy import DEFAULT, ROOT, PathRule
from keyhole.core.request import Operation, Reply
from keyhole.core.service import Service
from keyhole.core.session import pairs, placeholder_key, service_of_session
from keyhole.core.times import format_time
from keyhole.engines import Call, Context, Field, Route
from keyhole.vault import approvals, policies
from keyhole.vault.compiled import OrgState
from keyhole.vault.identity import standing
from keyhole.vault.identity.book import Book
from keyhole.vault.identity.entering import enter, leave
from keyhole.vault.identity.places import AGENTS
from keyhole.vault.identity.records import Entity
from keyhole.vault.sys.agent_tokens import end_one, live_tokens, tokens_of
from keyhole.vault.sys.token_create import asked_cidrs, services_of
from keyhole.vault.sys.token_roles import parse_policies
from keyhole.vault.sys.tokens import end_tokens, own_parent
from keyhole.vault.sys.tool_grants import asked_pattern, set_grant
from keyhole.vault.tokens import MOUNT as TOKENS
from keyhole.vault.tokens import Grant
from keyhole.vault.vault import Vault

MOUNT = "agents"
DEFAULT_TTL = 24 * 3600
MOST_PLACEHOLDERS = 512
"""Placeholders of one session: what its environment can hold, and far above what the work of one agent asks for."""
_SCOPES = ("full", "proxy")


def own_policy(name: str) -> str:
    """The policy into which grants to an agent are written."""
    return f"agent/{name}"


async def require_agent(vault: Vault, org_id: str, name: str) -> None:
    """Raises ``NotFound`` where the org has no such agent."""
    if (await vault.storage(org_id, MOUNT, configures=True).get_one(f"a/{name}")).data is None:
        raise NotFound(f"there is no agent {name!r}", f"keyhole agent add {name}")


async def entity_of(vault: Vault, state: OrgState, name: str) -> Entity | None:
    """The entity of an agent; it has none before its first token."""
    return await Book(vault.orgs.identities(state.org.id)).entity_of(state.mounts.at(AGENTS).accessor, name)


async def agent_now(vault: Vault, state: OrgState, name: str) -> Caller:
    """An agent as a token of its own with all its policies would be now; one that is disabled may do nothing."""
    entity = await entity_of(vault, state, name)
    grant = Grant(
        name=f"agent/{name}",
        policies=(DEFAULT, own_policy(name)),
        entity_id=entity.id if entity is not None else "",
    )
    try:
        person = await standing.person(vault, state, grant.entity_id)
        acl = await standing.acl_of(vault, state, grant)
    except Unauthenticated:
        acl = await vault.compiled.acl(state, ())
        return Caller(state.org.name, state.org.id, grant.name, "", "full", (), acl)
    return Caller(
        state.org.name,
        state.org.id,
        grant.name,
        "",
        "full",
        grant.policies,
        acl,
        entity=person.view,
        identity_policies=person.policies,
    )


async def grant_service(vault: Vault, caller: Caller, name: str, service: str) -> bool:
    """Let an agent use a service; whether that is new.

    Raises:
        NotFound: there is no such service.
        PolicyDenied: the caller may neither use it nor has ``sudo`` on the grant.
    """
    if service not in await vault.services(await vault.compiled.state(caller.org_id)):
        raise NotFound(f"there is no service {service!r}", "keyhole service list")
    path, granting = f"services/{service}", f"{AGENTS}{name}/services/{service}"
    if not (caller.allows("use", path) or caller.allows("update", granting, sudo=True)):
        raise PolicyDenied(
            f"granting a service needs use of it, and you may not use {service!r}",
            f"ask for that right, or for sudo on {granting}",
        )
    storage = vault.storage(caller.org_id, policies.MOUNT, configures=True)
    return await policies.set_capability(storage, own_policy(name), path, "use", given=True)


class _Handlers:
    """Handlers of the agent routes of a vault."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def exists(self, context: Context, params: Mapping[str, str]) -> bool:
        return (await context.storage.get_one(f"a/{params['name']}")).data is not None

    async def required(self, context: Context, call: Call) -> str:
        await require_agent(self._vault, context.caller.org_id, call.params["name"])
        return call.params["name"]

    async def write(self, context: Context, call: Call) -> Reply:
        name = call.params["name"]
        if parse_name(name) != parse_policy_name(name):
            raise InvalidRequest(
                "the name of an agent is in lower case", f"keyhole agent add {parse_policy_name(name)}"
            )
        item = await context.storage.get_one(f"a/{name}")
        call.require_new(stored=item.data is not None)
        data = json.loads(item.data) if item.data is not None else {"created": context.now}
        data["description"] = str(call.data.get("description") or data.get("description") or "")[:200]
        await context.storage.change([(f"a/{name}", json.dumps(data).encode(), item.revision)])
        return Reply({"name": name, "policies": [DEFAULT, own_policy(name)]})

    async def read(self, context: Context, call: Call) -> Reply:
        name = await self.required(context, call)
        data = json.loads((await context.storage.get_one(f"a/{name}")).data)
        live = await live_tokens(self._vault, context.caller.org_id, name, context.now)
        return Reply(
            {
                "name": name,
                "created": format_time(data["created"]),
                "description": data["description"],
                "policies": [DEFAULT, own_policy(name)],
                "services": await self.granted(context, name, "services/"),
                "tools": await self.granted(context, name, "tools/"),
                "tokens": len(live),
            }
        )

    async def granted(self, context: Context, name: str, below: str) -> list[str]:
        stored = await policies.read(self.policy_storage(context), own_policy(name))
        rules = stored["rules"] if stored else []
        used = [r["path"] for r in rules if "use" in r["capabilities"]]
        return [path.removeprefix(below) for path in used if path.startswith(below)]

    def policy_storage(self, context: Context) -> Any:
        return self._vault.storage(context.caller.org_id, policies.MOUNT, configures=True)

    async def delete(self, context: Context, call: Call) -> None:
        name = call.params["name"]
        item = await context.storage.get_one(f"a/{name}")
        if item.data is not None:
            await context.storage.change((), [(f"a/{name}", item.revision)])
        await policies.delete(self.policy_storage(context), own_policy(name))
        await approvals.forget(self._vault.storage(context.caller.org_id, approvals.MOUNT), f"agent/{name}")
        # Last, because whoever is making a token looks afterwards whether the agent is still there.
        await self.end_all(context, name)
        await leave(self._vault, await self.state(context), AGENTS, name)

    async def state(self, context: Context) -> OrgState:
        return await self._vault.compiled.state(context.caller.org_id)

    async def end_all(self, context: Context, name: str) -> int:
        ended = 0
        for token_id in await self._vault.tokens.of_entity(
            self._vault.storage(context.caller.org_id, TOKENS), f"agent/{name}"
        ):
            ended += await end_tokens(self._vault, context.caller.org_id, token_id)
        return ended

    async def names(self, context: Context, _call: Call) -> Reply:
        keys = await context.storage.list("a")
        if not keys:
            raise NotFound("there are no agents", "keyhole agent add NAME")
        return Reply({"keys": list(keys)})

    async def token(self, context: Context, call: Call) -> Reply:
        name = await self.required(context, call)
        scope = call.data.get("scope") or "full"
        if scope not in _SCOPES:
            raise InvalidRequest("scope is full or proxy", "proxy is for calls alone, full also asks the vault")
        bound = parse_flag(call.data.get("placeholders") or False, "placeholders")
        given = await self.policies(context, call, name)
        state, parent = await self.state(context), await own_parent(self._vault, context)
        entity = await entity_of(self._vault, state, name)
        if entity is not None and entity.disabled:
            raise PolicyDenied(
                f"the entity of the agent {name!r} is disabled", f"enable it: identity/entity/id/{entity.id}"
            )
        grant = Grant(
            name=f"agent/{name}",
            policies=given,
            entity_id=entity.id if entity is not None else "",
            alone=bool(call.data.get("policies")),
            scope="proxy" if scope == "proxy" else "full",
            ttl=parse_duration(call.data.get("ttl") or DEFAULT_TTL),
            explicit_max=parse_duration(call.data.get("explicit_max_ttl") or 0, name="explicit_max_ttl"),
            uses=parse_count(call.data.get("num_uses") or 0, "num_uses"),
            run=context.caller.run.extended(call.data),
            bound=bound,
            cidrs=asked_cidrs(context.caller, call.data),
            services=await self.services(context, call, name),
            path=call.path,
        )
        if context.caller.allows("update", call.path, sudo=True):
            parent = None
        else:
            await self.require_no_more(context, call, name, grant)
        usable = await self.usable(context, name, grant) if bound else []
        grant = grant._replace(entity_id=await enter(self._vault, state, state.mounts.at(AGENTS), _as_login(name)))
        storage = self._vault.storage(context.caller.org_id, TOKENS)
        org_id = "" if context.caller.org_id == self._vault.root_org else context.caller.org_id
        clear, made, warning = await self._vault.tokens.create(
            storage, grant, now=context.now, parent=parent, org_id=org_id
        )
        if not await self.exists(context, call.params):
            await end_tokens(self._vault, context.caller.org_id, made.id)
            await leave(self._vault, state, AGENTS, name)
            raise NotFound(f"the agent {name!r} was deleted", f"keyhole agent add {name}")
        data: dict[str, Any] = {"token": clear, "accessor": made.accessor, "expires_at": format_time(made.expires)}
        if bound:
            key = placeholder_key(self._vault.keys.token_key, context.caller.org_id)
            data["placeholders"] = {s.name: dict(pairs(s, service_of_session(s, key, made.id))) for s in usable}
        return Reply(data, warnings=[warning] if warning else [])

    async def policies(self, context: Context, call: Call, name: str) -> tuple[str, ...]:
        """Policies of a token: the agent's, or those that are named, which are the agent's or the caller's own."""
        own = (DEFAULT, own_policy(name))
        asked = parse_policies(call.data.get("policies"), "policies")
        if not asked:
            return own
        if ROOT in asked:
            raise InvalidRequest("an agent has not the policy root", "name a policy that says what it may do")
        there = {*await policies.names(self.policy_storage(context)), own_policy(name)}
        for missing in (policy for policy in asked if policy not in there):
            raise NotFound(f"there is no policy {missing!r}", "keyhole policy list")
        extra = [policy for policy in asked if policy not in {*own, *context.caller.policies}]
        if extra and not context.caller.allows("update", call.path, sudo=True):
            raise PolicyDenied(
                f"a policy that neither the agent nor you have: {', '.join(extra)}",
                f"ask for that policy, or for sudo on {call.path}",
            )
        return (DEFAULT, *(policy for policy in asked if policy != DEFAULT))

    async def services(self, context: Context, call: Call, name: str) -> tuple[str, ...] | None:
        """The only services that a token may use, where they are named."""
        chosen = services_of(context.caller, call.data)
        if call.data.get("services") is not None:
            there = await self._vault.services(await self._vault.compiled.state(context.caller.org_id))
            for missing in (service for service in chosen or () if service not in there):
                raise NotFound(f"there is no service {missing!r}", f"keyhole what-can {name}")
        return chosen

    async def usable(self, context: Context, name: str, grant: Grant) -> list[Service]:
        """The services that a token may use.

        Raises:
            InvalidRequest: they have more placeholders than one session gets. Some of them without would be worse: a
                session takes no placeholder but its own, so their calls would go out with a key that is none.
        """
        state = await self.state(context)
        acl = await standing.acl_of(self._vault, state, grant)
        found = [s for s in (await self._vault.services(state)).values() if acl.decide("use", f"services/{s.name}")]
        count = sum(len(list(pairs(service, service))) for service in found)
        if count > MOST_PLACEHOLDERS:
            raise InvalidRequest(
                f"the agent {name!r} may use {len(found)} services with {count} placeholders; one session gets at most "
                f"{MOST_PLACEHOLDERS}",
                "name those that it needs: keyhole agent token --service NAME; or use an agent with fewer services",
            )
        return found

    async def require_no_more(self, context: Context, call: Call, name: str, grant: Grant) -> None:
        """Raises ``PolicyDenied`` when the token could do what the caller cannot, by the agent's policies or groups."""
        caller = context.caller
        gained = await standing.added(self._vault, await self.state(context), grant)
        own = {DEFAULT, *caller.policies, *caller.identity_policies}
        for policy in dict.fromkeys((*grant.policies, *gained)):
            for rule in await policies.load(self.policy_storage(context), policy):
                # A template that the caller has too stands for something else when the agent asks.
                same = not rule.is_template or caller.entity.id == grant.entity_id or _looks_at_itself(rule)
                if not (policy in own and same) and not caller.acl.includes(rule):
                    raise PolicyDenied(
                        f"the agent {name!r} may do more than you: its policy has a rule for {rule.path!r}",
                        f"ask for that right, or for sudo on {call.path}",
                    )

    async def tokens(self, context: Context, call: Call) -> Reply:
        name = await self.required(context, call)
        return Reply(await tokens_of(self._vault, context.caller.org_id, name, context.now))

    async def revoke(self, context: Context, call: Call) -> Reply:
        name, asked = await self.required(context, call), call.data.get("accessor")
        if asked is None:
            return Reply({"revoked": await self.end_all(context, name)})
        accessor = parse_text(asked, "accessor")
        if not accessor:  # a variable that is not set must not end them all
            raise InvalidRequest("the accessor is empty", f"keyhole agent tokens {name}")
        return Reply({"revoked": await end_one(self._vault, context.caller.org_id, name, accessor)})

    async def grant(self, context: Context, call: Call) -> Reply:
        name, service = await self.required(context, call), parse_name(call.params["service"])
        changed = await grant_service(self._vault, context.caller, name, service)
        return Reply({"agent": name, "service": service, "changed": changed})

    async def take_back(self, context: Context, call: Call) -> Reply:
        name, service = await self.required(context, call), parse_name(call.params["service"])
        changed = await policies.set_capability(
            self.policy_storage(context), own_policy(name), f"services/{service}", "use", given=False
        )
        return Reply({"agent": name, "service": service, "changed": changed})

    async def tools(self, context: Context, call: Call) -> Reply:
        name, given = await self.required(context, call), not parse_flag(call.data.get("revoke") or False, "revoke")
        return Reply(await set_grant(self._vault, context.caller, name, asked_pattern(call.data), given=given))


def _looks_at_itself(rule: PathRule) -> bool:
    return rule.path.startswith("identity/") and rule.capabilities <= {"read"}


def _as_login(name: str) -> Login:
    """An agent as somebody who logs in at ``agents/``."""
    return Login(name=f"agent/{name}", policies=(), alias=name)


def routes(vault: Vault) -> tuple[Route, ...]:
    """The table."""
    r = _Handlers(vault)
    return (
        Route("", {Operation.LIST: r.names}, help="Names of agents."),
        Route(
            "{name}",
            {Operation.READ: r.read, Operation.CREATE: r.write, Operation.DELETE: r.delete},
            exists=r.exists,
            fields=(Field("description", "for people"),),
            help="An agent; deleting it revokes its tokens.",
        ),
        Route(
            "{name}/token",
            {Operation.CREATE: r.token},
            fields=(
                Field("ttl", "duration, 24h unless said"),
                Field("scope", "full, or proxy: nothing but calls"),
                Field("placeholders", "answer placeholders that are this token's own, and take no others from it"),
                Field("num_uses", "requests it is good for; 0 for unlimited"),
                Field("explicit_max_ttl", "a cap that renewals cannot pass"),
                Field(
                    "policies",
                    "list of the agent's policies, or of the caller's own; the agent's unless said",
                ),
                Field("services", "list of the only services that it may use"),
                Field("bound_cidrs", "addresses from which it counts"),
                Field("workflow", "run context, as are run, step, tool and on_behalf_of"),
                Field("traceparent", "the W3C trace that its requests belong to, unless they say"),
            ),
            help="A new token for the agent.",
        ),
        Route("{name}/tokens", {Operation.READ: r.tokens}, help="Its live tokens by accessor, the newest first."),
        Route(
            "{name}/revoke",
            {Operation.CREATE: r.revoke},
            fields=(Field("accessor", "of the only token to be ended"),),
            help="End all tokens of the agent, or one of them.",
        ),
        Route(
            "{name}/services/{service}",
            {Operation.CREATE: r.grant, Operation.DELETE: r.take_back},
            help="Grant the use of a service, or take it back.",
        ),
        Route(
            "{name}/tools",
            {Operation.CREATE: r.tools},
            fields=(Field("tool", "SERVER/TOOL, * at its end for any"), Field("revoke", "true: take it back")),
            help="Grant the use of a tool, or take it back.",
        ),
    )

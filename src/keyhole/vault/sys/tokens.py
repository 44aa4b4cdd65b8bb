"""``auth/token/``: the routes of Vault's token method."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from keyhole.core.errors import InvalidRequest, NotFound, PolicyDenied, Unauthenticated
from keyhole.core.identity import Caller
from keyhole.core.lease import parse_duration
from keyhole.core.numbers import parse_count, parse_flag
from keyhole.core.path import parse_policy_name
from keyhole.core.policy import ROOT
from keyhole.core.request import Operation, Reply
from keyhole.core.times import format_time
from keyhole.engines import Call, Context, Field, Route
from keyhole.vault.identity import standing
from keyhole.vault.policies import DEFAULT
from keyhole.vault.storage import Change
from keyhole.vault.tokens import MOUNT, Grant, Token, auth_block
from keyhole.vault.vault import Vault

_NOT_PLAIN = re.compile(r"[^A-Za-z0-9-]")
_LONGEST_NAME = 128
CREATE_FIELDS = (
    Field("policies", "list of names"),
    Field("ttl", "duration"),
    Field("explicit_max_ttl", "a cap that renewals cannot pass"),
    Field("period", "each renewal gives this much; needs sudo"),
    Field("num_uses", "requests it is good for; 0 for unlimited"),
    Field("display_name", "for people"),
    Field("no_parent", "an orphan; needs sudo"),
    Field("no_default_policy", "leave the default policy out"),
    Field("renewable", "true unless said"),
    Field("meta", "map of texts"),
    Field("scope", "full, or proxy: nothing but calls"),
)


async def end_tokens(vault: Vault, org_id: str, token_id: str, *, orphan_children: bool = False) -> int:
    """Revoke a token with its tree, and what goes with each: its leases, its drawer. Returns how many ended.

    A token is removed last, so that a sweep goes on where a crash or the store ended this.
    """
    storage = vault.storage(org_id, MOUNT)
    state = vault.compiled.last(org_id) or await vault.compiled.state(org_id)
    drawers = vault.storage(org_id, "cubbyhole")
    gone = await vault.tokens.disable(storage, token_id, orphan_children=orphan_children)
    for ended in reversed(gone):
        await vault.expiry.end(state, await vault.leases.of_token(org_id, ended))
        paths = [f"{ended}/{name}" for name in await drawers.list(ended, recursive=True)]
        if paths:
            items = await drawers.get(*paths)
            await drawers.commit(Change(deletes=[(p, i.revision) for p, i in zip(paths, items, strict=True)]))
        await vault.tokens.remove(storage, ended)
    return len(gone)


async def own_parent(vault: Vault, context: Context) -> Token | None:
    """The caller's own token, as the parent of another; ``None`` for the owner of a local vault.

    Raises:
        Unauthenticated: it was revoked meanwhile.
        InvalidRequest: it is limited in its uses, and a child would not be.
    """
    caller = context.caller
    if not caller.token_id:
        return None
    parent = await vault.tokens.get(vault.storage(caller.org_id, MOUNT), caller.token_id)
    if parent is None:
        raise Unauthenticated("the parent token was revoked", "ask for a new one")
    if parent.uses:
        raise InvalidRequest("restricted use token cannot generate child tokens")
    return parent


def describe(token: Token, now: float, identity_policies: tuple[str, ...], *, clear: str = "") -> dict[str, Any]:
    """What a lookup answers, in Vault's field names."""
    data: dict[str, Any] = {
        "accessor": token.accessor,
        "creation_time": int(token.created),
        "creation_ttl": token.ttl,
        "display_name": token.name.replace("/", "-"),
        "entity_id": token.entity_id,
        "expire_time": format_time(token.expires) if token.expires else None,
        "explicit_max_ttl": token.explicit_max,
        "id": clear,
        "issue_time": format_time(token.created),
        "meta": dict(token.meta) or None,
        "num_uses": token.uses,
        "orphan": not token.parent,
        "path": token.path,
        "policies": list(token.policies),
        "renewable": token.renewable,
        "ttl": token.remaining(now),
        "type": "service",
        "scope": token.scope,
        **token.run.as_data(),
    }
    if identity_policies:
        data |= {"identity_policies": list(identity_policies), "external_namespace_policies": {}}
    if token.cidrs:
        data["bound_cidrs"] = list(token.cidrs)
    if token.period:
        data["period"] = token.period
    return data


class _Handlers:
    """Handlers of the token routes of a vault."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def storage(self, context: Context) -> Any:
        return self._vault.storage(context.caller.org_id, MOUNT)

    async def own(self, context: Context) -> Token | None:
        return (
            await self._vault.tokens.get(self.storage(context), context.caller.token_id)
            if context.caller.token_id
            else None
        )

    async def by_token(self, context: Context, call: Call) -> Token | None:
        clear = str(call.data.get("token") or "")
        if not clear:
            raise InvalidRequest("missing token", 'send {"token": "…"}')
        return await self._vault.tokens.get(self.storage(context), self._vault.tokens.hash(clear.encode()))

    async def by_accessor(self, context: Context, call: Call) -> Token | None:
        return await self._vault.tokens.by_accessor(self.storage(context), str(call.data.get("accessor") or ""))

    async def create(self, context: Context, call: Call) -> Reply:
        parent = await own_parent(self._vault, context)
        orphan = parse_flag(call.data.get("no_parent") or False, "no_parent") or call.path.endswith("create-orphan")
        elevated = bool(context.caller.allows("update", call.path, sudo=True))
        if (orphan or call.data.get("period")) and not elevated:
            raise PolicyDenied("root or sudo privileges required to create orphan or periodic tokens")
        grant = replace(
            _grant(context.caller, call.data, elevated=elevated),
            default_ttl=context.default_ttl,
            max_ttl=context.max_ttl,
            entity_id=parent.entity_id if parent is not None and not orphan else "",
        )
        if grant.endless and parent is not None and parent.expires:
            raise InvalidRequest("expiring root tokens cannot create non-expiring root tokens", "give a ttl")
        org_id = "" if context.caller.org_id == self._vault.root_org else context.caller.org_id
        clear, token, warning = await self._vault.tokens.create(
            self.storage(context), grant, now=context.now, parent=None if orphan else parent, org_id=org_id
        )
        added = await self.added(context, token)
        return Reply(auth=auth_block(token, context.now, clear, added), warnings=[warning] if warning else [])

    async def added(self, context: Context, token: Token) -> tuple[str, ...]:
        """The policies that the token's entity adds."""
        state = await self._vault.compiled.state(context.caller.org_id)
        return await standing.policies_of(self._vault, state, token.entity_id)

    async def lookup_self(self, context: Context, _call: Call) -> Reply:
        token = await self.own(context)
        if token is None:
            raise NotFound("the owner of a local vault has no token", "set KEYHOLE_TOKEN to act as one")
        return Reply(describe(token, context.now, await self.added(context, token)))

    async def lookup(self, context: Context, call: Call) -> Reply:
        token = await self.by_token(context, call)
        if token is None or not token.live(context.now):
            raise PolicyDenied("bad token", "it is unknown, expired or revoked")
        added = await self.added(context, token)
        return Reply(describe(token, context.now, added, clear=str(call.data["token"])))

    async def lookup_accessor(self, context: Context, call: Call) -> Reply:
        token = await self.by_accessor(context, call)
        if token is None or not token.live(context.now):
            raise PolicyDenied("invalid accessor", "it is unknown, expired or revoked")
        return Reply(describe(token, context.now, await self.added(context, token)))

    async def renew(self, context: Context, call: Call, token: Token | None) -> Reply:
        if token is None or not token.live(context.now):
            raise PolicyDenied("bad token", "it is unknown, expired or revoked")
        increment = parse_duration(call.data.get("increment") or 0, name="increment")
        renewed, warning = await self._vault.tokens.renew(
            self.storage(context), token, increment=increment, now=context.now
        )
        clear = str(call.data.get("token") or "")
        added = await self.added(context, renewed)
        return Reply(auth=auth_block(renewed, context.now, clear, added), warnings=[warning] if warning else [])

    async def renew_self(self, context: Context, call: Call) -> Reply:
        return await self.renew(context, call, await self.own(context))

    async def renew_token(self, context: Context, call: Call) -> Reply:
        return await self.renew(context, call, await self.by_token(context, call))

    async def renew_accessor(self, context: Context, call: Call) -> Reply:
        return await self.renew(context, call, await self.by_accessor(context, call))

    async def end(self, context: Context, token: Token | None) -> None:
        if token is not None:
            await end_tokens(self._vault, context.caller.org_id, token.id)

    async def revoke_self(self, context: Context, _call: Call) -> None:
        await self.end(context, await self.own(context))

    async def revoke(self, context: Context, call: Call) -> None:
        await self.end(context, await self.by_token(context, call))

    async def revoke_accessor(self, context: Context, call: Call) -> None:
        await self.end(context, await self.by_accessor(context, call))

    async def revoke_orphan(self, context: Context, call: Call) -> None:
        token = await self.by_token(context, call)
        if token is not None:
            await end_tokens(self._vault, context.caller.org_id, token.id, orphan_children=True)

    async def accessors(self, context: Context, _call: Call) -> Reply:
        return Reply({"keys": await self._vault.tokens.accessors(self.storage(context))})


def routes(vault: Vault) -> tuple[Route, ...]:
    """The table."""
    r = _Handlers(vault)
    write = Operation.CREATE
    sudo = frozenset({Operation.UPDATE, Operation.LIST})
    by = (Field("token", "the token"),)
    acc = (Field("accessor", "the token's accessor"),)
    more = (Field("increment", "duration from now"),)
    return (
        Route("create", {write: r.create}, fields=CREATE_FIELDS, help="A child token of the caller's."),
        Route("create-orphan", {write: r.create}, sudo=sudo, fields=CREATE_FIELDS, help="A token without a parent."),
        Route("lookup-self", {Operation.READ: r.lookup_self}, help="The caller's own token."),
        Route("lookup", {write: r.lookup}, fields=by, help="A token."),
        Route("lookup-accessor", {write: r.lookup_accessor}, fields=acc, help="A token by its accessor."),
        Route("renew-self", {write: r.renew_self}, fields=more, help="Extend the caller's own token."),
        Route("renew", {write: r.renew_token}, fields=by + more, help="Extend a token."),
        Route("renew-accessor", {write: r.renew_accessor}, fields=acc + more, help="Extend a token by its accessor."),
        Route("revoke-self", {write: r.revoke_self}, help="End the caller's own token and its descendants."),
        Route("revoke", {write: r.revoke}, fields=by, help="End a token and its descendants."),
        Route("revoke-accessor", {write: r.revoke_accessor}, fields=acc, help="The same by accessor."),
        Route("revoke-orphan", {write: r.revoke_orphan}, sudo=sudo, fields=by, help="End a token, not its children."),
        Route("accessors", {Operation.LIST: r.accessors}, sudo=sudo, help="Accessors of all tokens."),
    )


def _grant(caller: Caller, data: Mapping[str, Any], *, elevated: bool) -> Grant:
    """What the child may be: never more than its parent, unless the caller has sudo."""
    wanted = data.get("policies") or []
    asked = wanted.split(",") if isinstance(wanted, str) else wanted
    if not isinstance(asked, list):
        raise InvalidRequest("policies is a list of names", 'write "policies": ["NAME"]')
    names = {parse_policy_name(str(name)) for name in asked} or set(caller.policies)
    if ROOT in names and (ROOT not in caller.policies or len(names) > 1):
        raise InvalidRequest("root tokens may not be created without parent token being root, and root stands alone")
    extra = names - set(caller.policies) - {DEFAULT}
    if extra and not elevated:
        raise InvalidRequest(f"child policies must be subset of parent: {', '.join(sorted(extra))}")
    if ROOT not in names and not parse_flag(data.get("no_default_policy") or False, "no_default_policy"):
        names.add(DEFAULT)
    scope = data.get("scope") or caller.scope
    if scope not in ("full", "proxy") or (caller.scope == "proxy" and scope != "proxy"):
        raise InvalidRequest("scope is full or proxy, and a child of a proxy token is one too")
    meta = data.get("meta") or {}
    if not isinstance(meta, dict) or not all(isinstance(text, str) for text in meta.values()):
        raise InvalidRequest("meta is a map of texts")
    ttl = parse_duration(data.get("ttl") or 0)
    # As Vault: whatever is not a letter or digit is a dash, so that the name is one segment.
    name = _NOT_PLAIN.sub("-", str(data.get("display_name") or "")[:_LONGEST_NAME])
    return Grant(
        name=f"token/{name}" if name else caller.name,
        policies=tuple(names),
        scope="proxy" if scope == "proxy" else "full",
        ttl=ttl,
        explicit_max=parse_duration(data.get("explicit_max_ttl") or 0, name="explicit_max_ttl"),
        period=parse_duration(data.get("period") or 0, name="period"),
        uses=parse_count(data.get("num_uses") or 0, "num_uses"),
        renewable=parse_flag(data.get("renewable", True), "renewable"),
        endless=ROOT in names and not ttl,
        meta=meta,
        run=caller.run.extended(data),
        cidrs=caller.cidrs,
    )

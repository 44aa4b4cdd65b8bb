"""``auth/token/``: the routes of Vault's token method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keyhole.core.errors import InvalidRequest, NotFound, PolicyDenied, Unauthenticated
from keyhole.core.identity import Login
from keyhole.core.lease import parse_duration
from keyhole.core.numbers import parse_flag
from keyhole.core.parameters import glob_matches
from keyhole.core.request import Operation, Reply
from keyhole.core.times import format_time
from keyhole.engines import Call, Context, Field, Route
from keyhole.vault import policies
from keyhole.vault.identity import standing
from keyhole.vault.identity.entering import enter
from keyhole.vault.storage import Change
from keyhole.vault.sys import token_roles
from keyhole.vault.sys.token_create import CREATE_FIELDS, Role, Unprivileged, chosen_id, grant_of
from keyhole.vault.sys.token_roles import ALIAS
from keyhole.vault.tokens import MOUNT, Token, auth_block
from keyhole.vault.vault import Vault

_MISSING = "missing token ID"
_CHOSEN = (
    "A token that somebody chose is only as hard to guess as it was to think of; leave the id out for 262 random bits."
)
_TIDY = (
    "Tidy operation successfully started. Any information from the operation will be printed to Vault's server logs."
)

_PAGE = 500


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


async def end_tokens_where(vault: Vault, org_id: str, ends: Callable[[Token], bool]) -> None:
    """Revoke all tokens of an org that are so. All are looked at, so that making one need write nothing more."""
    storage = vault.storage(org_id, MOUNT)
    ids = await storage.list("t")
    for start in range(0, len(ids), _PAGE):
        for token in await vault.tokens.get_many(storage, ids[start : start + _PAGE]):
            if ends(token):
                await end_tokens(vault, org_id, token.id)


async def own_parent(vault: Vault, context: Context) -> Token | None:
    """The caller's own token, as the parent of another; ``None`` for the owner of a local vault.

    Raises:
        Unauthenticated: it was revoked meanwhile.
        InvalidRequest: it is limited in its uses, and a child would not be; or a batch token, which has no children.
    """
    caller = context.caller
    if caller.type == "batch":
        raise InvalidRequest("batch tokens cannot create more tokens", "use a service token")
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
        "display_name": token.display or token.name.replace("/", "-"),
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
        "type": token.type,
        "scope": token.scope,
        **token.run.as_data(),
    }
    if identity_policies:
        data |= {"identity_policies": list(identity_policies), "external_namespace_policies": {}}
    more = {
        "bound_cidrs": list(token.cidrs),
        "period": token.period,
        "role": token.role,
        "last_renewal": format_time(token.renewed) if token.renewed else "",
        "last_renewal_time": int(token.renewed),
    }
    data.update({name: value for name, value in more.items() if value})
    if token.services is not None:
        data["services"] = list(token.services)
    return data


class _Handlers:
    """Handlers of the token routes of a vault."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def storage(self, context: Context) -> Any:
        return self._vault.storage(context.caller.org_id, MOUNT)

    async def own(self, context: Context, call: Call) -> Token | None:
        """The caller's token; ``None`` for the owner of a local vault."""
        if call.token:
            return await self._vault.tokens.find(self.storage(context), call.token)
        token_id = context.caller.token_id
        return await self._vault.tokens.get(self.storage(context), token_id) if token_id else None

    async def by_token(self, context: Context, call: Call) -> Token | None:
        clear = _text(call, "token", _MISSING)
        return await self._vault.tokens.find(self.storage(context), clear.encode())

    async def by_accessor(self, context: Context, call: Call) -> Token | None:
        return await self._vault.tokens.by_accessor(self.storage(context), _text(call, "accessor", "missing accessor"))

    async def create(self, context: Context, call: Call) -> Reply:
        storage, caller = self.storage(context), context.caller
        parent = await own_parent(self._vault, context)
        named = call.params.get("role", "")
        role = await token_roles.load(storage, named) if named else None
        elevated = bool(caller.allows("update", call.path, sudo=True))
        lonely = parse_flag(call.data.get("no_parent") or False, "no_parent")
        if lonely and not elevated and role is None:
            raise Unprivileged("root or sudo privileges required to create orphan token", "or use create-orphan")
        grant = grant_of(caller, call.data, role, elevated=elevated)
        if grant.endless and parent is not None and parent.expires:
            raise InvalidRequest("expiring root tokens cannot create non-expiring root tokens", "give a ttl")
        in_root = caller.org_id == self._vault.root_org
        clear = chosen_id(caller, call.data, elevated=elevated, in_root=in_root)
        suffix = f"/{role['path_suffix']}" if role and role["path_suffix"] else ""
        if role["orphan"] if role else lonely or call.path.endswith("create-orphan"):
            parent = None
        made, token, warning = await self._vault.tokens.create(
            storage,
            grant._replace(
                path=call.path + suffix,
                role=named,
                entity_id=await self.entity(context, call, role) or (parent.entity_id if parent else ""),
                alone=parent.alone if parent else False,
                default_ttl=context.default_ttl,
                max_ttl=context.max_ttl,
            ),
            now=context.now,
            parent=parent,
            org_id="" if in_root else caller.org_id,
            clear=clear,
        )
        warnings = [*filter(None, (warning, _CHOSEN if clear else "")), *await self.missing(context, token)]
        return Reply(auth=auth_block(token, context.now, made, await self.added(context, token)), warnings=warnings)

    async def entity(self, context: Context, call: Call, role: Role) -> str:
        """The entity that the request names by its alias at the token mount, made on first sight; else empty."""
        given = call.data.get("entity_alias") or ""
        if not given:
            return ""
        if role is None:
            raise InvalidRequest("'entity_alias' is only allowed in combination with token role")
        alias = given.lower() if isinstance(given, str) else ""
        if not any(glob_matches(glob, alias) for glob in role["allowed_entity_aliases"]) or not ALIAS.fullmatch(alias):
            raise InvalidRequest("invalid 'entity_alias' value", "use one that the role's allowed_entity_aliases have")
        state = await self._vault.compiled.state(context.caller.org_id)
        login = Login(name=context.caller.name, policies=(), alias=alias)
        return await enter(self._vault, state, state.mounts.at(context.mount), login)

    async def added(self, context: Context, token: Token) -> tuple[str, ...]:
        """The policies that the token's entity adds."""
        state = await self._vault.compiled.state(context.caller.org_id)
        return await standing.shown(self._vault, state, token)

    async def missing(self, context: Context, token: Token) -> list[str]:
        """A warning for each of its policies that does not exist, and so grants nothing."""
        there = await policies.names(self._vault.storage(context.caller.org_id, policies.MOUNT, configures=True))
        return [f'Policy "{name}" does not exist' for name in token.policies if name not in there]

    async def lookup_self(self, context: Context, call: Call) -> Reply:
        token = await self.own(context, call)
        if token is None:
            raise NotFound("the owner of a local vault has no token", "set KEYHOLE_TOKEN to act as one")
        return Reply(describe(token, context.now, await self.added(context, token), clear=call.token.decode()))

    async def lookup(self, context: Context, call: Call) -> Reply:
        if not call.data.get("token"):
            return await self.lookup_self(context, call)
        token = await self.by_token(context, call)
        if token is None or not token.live(context.now):
            raise PolicyDenied("bad token", "it is unknown, expired or revoked")
        added = await self.added(context, token)
        return Reply(describe(token, context.now, added, clear=str(call.data["token"])))

    async def lookup_accessor(self, context: Context, call: Call) -> Reply:
        token = await self.by_accessor(context, call)
        if token is None or not token.live(context.now):
            raise InvalidRequest("invalid accessor", "it is unknown, or its token has ended")
        return Reply(describe(token, context.now, await self.added(context, token)))

    async def renew(self, context: Context, call: Call, token: Token, clear: str) -> Reply:
        increment = parse_duration(call.data.get("increment") or 0, name="increment")
        if token.type == "batch":
            raise InvalidRequest("batch tokens cannot be renewed", "make a new one")
        renewed, warning = await self._vault.tokens.renew(
            self.storage(context), token, increment=increment, now=context.now
        )
        added = await self.added(context, renewed)
        return Reply(auth=auth_block(renewed, context.now, clear, added), warnings=[warning] if warning else [])

    async def renew_self(self, context: Context, call: Call) -> Reply:
        token = await self.own(context, call)
        if token is None:
            raise NotFound("the owner of a local vault has no token", "it needs no renewal")
        return await self.renew(context, call, token, call.token.decode())

    async def renew_token(self, context: Context, call: Call) -> Reply:
        if not call.data.get("token"):
            return await self.renew_self(context, call)
        token = await self.by_token(context, call)
        if token is None or not token.live(context.now):
            raise InvalidRequest("token not found", "it is unknown, expired or revoked")
        return await self.renew(context, call, token, str(call.data["token"]))

    async def renew_accessor(self, context: Context, call: Call) -> Reply:
        token = await self.by_accessor(context, call)
        if token is None or not token.live(context.now):
            raise InvalidRequest("invalid accessor", "it is unknown, or its token has ended")
        return await self.renew(context, call, token, "")

    async def end(self, context: Context, token: Token | None) -> None:
        if token is None:
            return
        if token.type == "batch":
            raise InvalidRequest("batch tokens cannot be revoked", "revoke the token that made it")
        await end_tokens(self._vault, context.caller.org_id, token.id)

    async def revoke_self(self, context: Context, call: Call) -> None:
        await self.end(context, await self.own(context, call))

    async def revoke(self, context: Context, call: Call) -> None:
        await self.end(context, await self.by_token(context, call))

    async def revoke_accessor(self, context: Context, call: Call) -> None:
        await self.end(context, await self.by_accessor(context, call))

    async def revoke_orphan(self, context: Context, call: Call) -> None:
        token = await self.by_token(context, call)
        if token is not None and token.type == "service":
            await end_tokens(self._vault, context.caller.org_id, token.id, orphan_children=True)
        else:
            await self.end(context, token)

    async def tidy(self, context: Context, _call: Call) -> Reply:
        """End what is past its time, and forget accessors whose token is gone."""
        storage = self.storage(context)
        for accessor in await self._vault.tokens.accessors(storage):
            token = await self._vault.tokens.by_accessor(storage, accessor)
            if token is None:
                item = await storage.get_one(f"a/{accessor}")
                if item.data is not None:
                    await storage.commit(Change(deletes=[(f"a/{accessor}", item.revision)]))
            elif not token.live(context.now):
                await end_tokens(self._vault, context.caller.org_id, token.id)
        return Reply(warnings=[_TIDY], status=202)

    async def accessors(self, context: Context, _call: Call) -> Reply:
        return Reply({"keys": await self._vault.tokens.accessors(self.storage(context))})


def _text(call: Call, name: str, missing: str) -> str:
    text = call.data.get(name)
    if not text:
        raise InvalidRequest(missing, f'send {{"{name}": "…"}}')
    if not isinstance(text, str) or not text.isascii():
        raise InvalidRequest(f"{name} is a text in ASCII")
    return text


def routes(vault: Vault) -> tuple[Route, ...]:
    """The table."""
    r = _Handlers(vault)
    read, write = Operation.READ, Operation.CREATE
    sudo = frozenset({Operation.UPDATE, Operation.LIST})
    by = (Field("token", "the token; the caller's own unless said", "string"),)
    acc = (Field("accessor", "the token's accessor", "string"),)
    more = (Field("increment", "duration from now", "duration"),)
    new = {write: r.create}
    return (
        Route("create", new, fields=CREATE_FIELDS, help="A child token of the caller's."),
        Route("create-orphan", new, fields=CREATE_FIELDS, help="A token without a parent."),
        Route("create/{role}", new, fields=CREATE_FIELDS, help="A token as a token role says."),
        Route("lookup-self", {read: r.lookup_self, write: r.lookup_self}, sees_token=True, help="The caller's token."),
        Route("lookup", {read: r.lookup, write: r.lookup}, sees_token=True, fields=by, help="A token."),
        Route("lookup-accessor", {write: r.lookup_accessor}, fields=acc, help="A token by its accessor."),
        Route("renew-self", {write: r.renew_self}, sees_token=True, fields=more, help="Extend the caller's own token."),
        Route("renew", {write: r.renew_token}, sees_token=True, fields=by + more, help="Extend a token."),
        Route("renew-accessor", {write: r.renew_accessor}, fields=acc + more, help="Extend a token by its accessor."),
        Route(
            "revoke-self", {write: r.revoke_self}, sees_token=True, help="End the caller's own token, its descendants."
        ),
        Route("revoke", {write: r.revoke}, fields=by, help="End a token and its descendants."),
        Route("revoke-accessor", {write: r.revoke_accessor}, fields=acc, help="The same by accessor."),
        Route("revoke-orphan", {write: r.revoke_orphan}, sudo=sudo, fields=by, help="End a token, not its children."),
        Route("accessors", {Operation.LIST: r.accessors}, sudo=sudo, help="Accessors of all tokens."),
        Route("tidy", {write: r.tidy}, help="Remove what is left of tokens that have ended."),
        *token_roles.routes(r.storage),
    )

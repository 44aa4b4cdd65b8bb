"""Who stands behind a credential, with what it may do. The door asks here first; nothing here decides a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyhole.core.cidr import within
from keyhole.core.errors import PolicyDenied, Unauthenticated
from keyhole.core.identity import ROOT_ORG, Caller
from keyhole.core.policy import ROOT
from keyhole.core.request import Anonymous, Credential, LocalOwner, Request
from keyhole.vault.compiled import OrgState
from keyhole.vault.identity import standing
from keyhole.vault.tokens import MOUNT, Token, org_of

if TYPE_CHECKING:
    from keyhole.core.stated import Stated
    from keyhole.vault.vault import Vault

OWNER = "user/owner"


async def authenticate(
    vault: Vault, credential: Credential, org: str, *, spend: bool, remote: str
) -> tuple[OrgState, Caller]:
    """As ``Vault.authenticate``."""
    if isinstance(credential, Caller):
        if org and org != credential.org:
            raise Unauthenticated("permission denied", f"the caller does not belong to the org {org!r}")
        return vault.compiled.last(credential.org_id) or await vault.compiled.state(credential.org_id), credential
    if isinstance(credential, Anonymous) or credential == b"":
        hint = "send one in X-Vault-Token, to the proxy as its password, or log in: keyhole login"
        raise Unauthenticated("missing client token", hint)
    if isinstance(credential, LocalOwner):
        return await _owner(vault, org)
    org_id = org_of(credential) or vault.root_org
    before = vault.compiled.last(org_id)
    known = None if before is None else before.callers.get(vault.tokens.hash(credential))
    await vault.shares.meet(remote, org_id, "" if known is None else known[2].name)
    try:
        state = await vault.compiled.state(org_id)
    except Unauthenticated:
        raise _unknown() from None  # a guess at an org must not tell whether there is one
    if state.org.leaving:
        raise _unknown()
    here = not org or org == state.org.name
    caller = await _of_token(vault, state, credential, remote, spend=spend and here)
    if not here:
        raise Unauthenticated("permission denied", f"the token does not belong to the org {org!r}")
    return state, caller


def working(caller: Caller, stated: Stated) -> Caller:
    """A caller in the work that its request says it does. Raises ``PolicyDenied`` for work that is not the token's."""
    # Tokens are called like who made them; the owner of a local vault is who has no token and may do everything.
    owner = not caller.token_id and caller.policies == (ROOT,)
    return caller._replace(run=stated.joined(caller.run, vouched=owner))


async def at_work(vault: Vault, state: OrgState, caller: Caller, request: Request) -> tuple[OrgState, Caller]:
    """As ``working``, for a request that may say something; a refusal is recorded."""
    try:
        return state, caller if request.stated is None else working(caller, request.stated)
    except PolicyDenied as error:
        await vault.record_refusal(state, caller, request, error)
        raise


async def _owner(vault: Vault, org: str) -> tuple[OrgState, Caller]:
    """Whoever opened the store with its key: root of the org ``root``, and nobody in any other."""
    if org not in {"", ROOT_ORG}:
        raise Unauthenticated(
            "the owner of a local vault belongs to the org root", f"use a token of the org {org!r}: KEYHOLE_TOKEN"
        )
    state = await vault.compiled.state(vault.root_org)
    acl = await vault.compiled.acl(state, (ROOT,))
    return state, Caller(state.org.name, state.org.id, OWNER, "", "full", (ROOT,), acl)


async def _of_token(vault: Vault, state: OrgState, clear: bytes, remote: str, *, spend: bool) -> Caller:
    """The caller of a live token. A cached one counts while nothing in the store has changed."""
    now, token_id = vault.clock.now(), vault.tokens.hash(clear)
    # Taken before the token is read: what changes meanwhile makes what is remembered look old, not new.
    generation = state.generation
    known = state.callers.get(token_id)
    if known is not None and known[0] == generation and known[1].live(now) and not known[1].cidrs:
        return known[2]
    storage = vault.storage(state.org.id, MOUNT)
    token = await vault.tokens.find(storage, clear)
    if token is None or not token.live(now) or (token.cidrs and not within(remote, token.cidrs)):
        state.callers.pop(token_id, None)  # who shows it again comes as a stranger
        raise _unknown()
    if token.mount and token.mount not in {mount.id for mount in state.mounts}:
        raise _unknown()  # a batch token, or one that was made while the mount that gives it was being disabled
    fresh = known is not None and (known[1].revision, known[1].expires) == (token.revision, token.expires)
    if known is not None and fresh and standing.is_current(known[2], state):
        caller = known[2]
    else:
        caller = await _make(vault, state, token)
    if token.uses:
        if spend and await vault.tokens.spend(storage, token) is None:
            state.callers.pop(token_id, None)
    else:
        vault.compiled.remember(state, generation, token, caller)
    return caller


async def _make(vault: Vault, state: OrgState, token: Token) -> Caller:
    # Taken first: what changes meanwhile makes the caller look old, not new.
    revision, person = state.known.revision, await standing.person(vault, state, token.entity_id)
    return Caller(
        org=state.org.name,
        org_id=state.org.id,
        name=token.name,
        accessor=token.accessor,
        scope=token.scope,
        policies=token.policies,
        acl=await standing.acl_of(vault, state, token),
        token_id=token.id,
        type=token.type,
        holder=token.parent if token.type == "batch" else token.id,
        until=token.expires if token.type == "batch" else 0.0,
        services=None if token.services is None else frozenset(token.services),
        run=token.run,
        bound=token.bound,
        cidrs=token.cidrs,
        entity=person.view,
        identity_policies=() if token.alone else person.policies,
        alone=token.alone,
        identities=revision,
        display=token.display or token.name.replace("/", "-"),
        meta=token.meta,
    )


def _unknown() -> Unauthenticated:
    return Unauthenticated("permission denied", "the token is unknown, expired or revoked: ask for a new one")

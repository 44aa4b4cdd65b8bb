"""Logins at the door: requests that need no token, because they prove who asks and get one.

    prove - record - make the token - record

A proof that fails is a stranger's refusal: recorded within their bounds, in the journal of the org root, by its path
and address, without anything that was sent. An org that does not exist is answered like a wrong proof, after its work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyhole.core.errors import InternalError, KeyholeError, NotFound, Unauthenticated
from keyhole.core.identity import Caller, Login
from keyhole.core.path import parse_path
from keyhole.core.request import Operation, Reply, Request
from keyhole.engines import Call
from keyhole.vault.compiled import OrgState
from keyhole.vault.identity import standing
from keyhole.vault.identity.entering import enter
from keyhole.vault.mounts import Mounts, Target
from keyhole.vault.recording import intent_of
from keyhole.vault.tokens import MOUNT, Grant, auth_block

if TYPE_CHECKING:
    from keyhole.vault.vault import Vault

_WRITES = frozenset({Operation.CREATE, Operation.UPDATE})


def login_at(mounts: Mounts, request: Request) -> Target | None:
    """The open route that is asked for, if it is one."""
    if not request.path.startswith("auth/") or request.operation not in _WRITES:
        return None
    try:
        target = mounts.resolve(request.operation, parse_path(request.path))
    except KeyholeError:
        return None  # the door says what is wrong with it, to who may know
    return target if target.route.open else None


async def log_in(vault: Vault, request: Request, target: Target) -> Reply:
    """Answer a login with a token, or refuse it. A token that comes with the request counts for nothing."""
    try:
        state, login = await _prove(vault, request, target)
    except KeyholeError as error:
        await vault.record_unknown(request, error)
        raise
    acl = await vault.compiled.acl(state, ())
    caller = Caller(state.org.name, state.org.id, login.name, "", "full", (), acl)
    record = intent_of(caller, request, Operation.UPDATE, parse_path(request.path), "")
    result = "aborted"
    try:
        await vault.journal.intend(record, state.org.id)
        reply = await _token(vault, state, login, target)
        result = "ok"
    except Exception as error:
        result = error.code if isinstance(error, KeyholeError) else InternalError.code
        raise
    finally:
        vault.conclude(state, record, result)
    return reply


async def _prove(vault: Vault, request: Request, target: Target) -> tuple[OrgState, Login]:
    state, data, params = await _org(vault, request.org), request.data, target.params
    known = state is not None
    if state is None:
        state = await vault.compiled.state(vault.root_org)
        data = {name: _nobody(vault, request.org, value) for name, value in data.items()}
        params = {name: str(_nobody(vault, request.org, value)) for name, value in params.items()}
    stranger = Caller(state.org.name, state.org.id, "", "", "full", (), await vault.compiled.acl(state, ()))
    context = vault.context(state, stranger, target.mount)
    call = Call(Operation.UPDATE, parse_path(request.path), params, data, request.remote)
    reply = await target.handler(context, call)
    if reply is None or reply.login is None or not known:
        raise Unauthenticated("permission denied", "the login was refused")
    return state, reply.login


def _nobody(vault: Vault, org: str, value: object) -> object:
    """What stands for a text that was sent to an org that does not exist: nobody's, and the same for the same text."""
    return vault.tokens.hash(f"{org}\0{value.lower()}".encode()) if value and isinstance(value, str) else value


async def _org(vault: Vault, name: str) -> OrgState | None:
    if not name:
        return await vault.compiled.state(vault.root_org)
    try:
        return await vault.compiled.state((await vault.orgs.by_name(name)).id)
    except (NotFound, Unauthenticated):
        return None


async def _token(vault: Vault, state: OrgState, login: Login, target: Target) -> Reply:
    grant = Grant(
        name=login.name,
        policies=login.policies,
        ttl=login.ttl,
        explicit_max=login.explicit_max,
        period=login.period,
        uses=login.uses,
        meta=login.meta,
        max_ttl=login.max_ttl,
        cidrs=login.cidrs,
        path=f"{target.mount.path}login",
        entity_id=await enter(vault, state, target.mount, login),
    )
    now = vault.clock.now()
    org_id = "" if state.org.id == vault.root_org else state.org.id
    clear, token, warning = await vault.tokens.create(vault.storage(state.org.id, MOUNT), grant, now=now, org_id=org_id)
    added = await standing.policies_of(vault, await vault.compiled.state(state.org.id), token.entity_id)
    return Reply(auth=auth_block(token, now, clear, added), warnings=[warning] if warning else [])

"""Logins at the door, and what else needs no token: requests to open routes, in the org that is asked.

    prove - record and make the token - record

A proof that fails is a stranger's refusal: recorded within their bounds, in the journal of the org root, by its path
and address, without anything that was sent. An org that does not exist is answered as one that holds nothing, and a
login method that is not there as one that knows nobody: no answer tells which orgs and mounts there are.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING

from keyhole import auth
from keyhole.core.errors import InternalError, InvalidRequest, KeyholeError, NotFound, Unauthenticated
from keyhole.core.identity import Caller, Login, TokenType
from keyhole.core.path import parse_path
from keyhole.core.request import Operation, Reply, Request
from keyhole.engines import Call
from keyhole.vault import wrapping
from keyhole.vault.audit import Intended
from keyhole.vault.bindings import Bindings
from keyhole.vault.callers import at_work
from keyhole.vault.compiled import OrgState
from keyhole.vault.identity import standing
from keyhole.vault.identity.entering import enter
from keyhole.vault.identity.known import Known
from keyhole.vault.mounts import AUTH, Mount, Mounts, Target, unset
from keyhole.vault.orgs import NO_ORG, Org
from keyhole.vault.recording import given_out, intent_of
from keyhole.vault.tokens import MOUNT, Grant, auth_block

if TYPE_CHECKING:
    from keyhole.vault.vault import Vault

_LOGINS = ("login", "oidc/callback")  # how routes begin that say who somebody is
_WRITES = frozenset({Operation.CREATE, Operation.UPDATE})
_KNOWN = 1000


async def log_in(vault: Vault, request: Request) -> Reply | None:
    """Answer a login with a token, or refuse it; ``None`` for what is no login. A token that came along means nothing.

    Raises:
        KeyholeError: the refusal.
    """
    if request.operation not in _WRITES:
        return None
    if vault.recognise(request.credential, request.org) is None:
        await vault.shares.meet(request.remote, request.org)
    state = await _state(vault, request.org)
    target = _open_route(state, request)
    return await _serve(vault, request, state, target) if target is not None else None


async def answer_stranger(vault: Vault, request: Request, error: Unauthenticated) -> Reply:
    """What somebody without a valid token gets: an open route's answer, else the refusal, which is recorded.

    What an open route says to everybody is not recorded one by one; its refusals are.

    Raises:
        KeyholeError: the refusal.
    """
    state = await _state(vault, request.org)
    target = _open_route(state, request)
    if target is None:
        state = _with_decoy(vault, state, request)
        target = _open_route(state, request)
    if target is None:
        await vault.record_unknown(request, error)
        raise error
    return await _serve(vault, request, state, target)


async def _serve(vault: Vault, request: Request, state: OrgState, target: Target) -> Reply:
    if vault.quotas.concern(state):
        await vault.quotas.admit(state, request)
    try:
        reply = await _ask(vault, request, state, target)
    except KeyholeError as error:
        if _is_login(target):
            vault.meters.logins[target.mount.type, "refused"] += 1
        await vault.record_unknown(request, error)
        raise
    if reply.login is None:
        return reply
    reply = await _give_token(vault, request, state, target, reply.login)
    vault.meters.logins[target.mount.type, "ok"] += 1
    return reply


def _is_login(target: Target) -> bool:
    return target.route.pattern.startswith(_LOGINS)


async def _ask(vault: Vault, request: Request, state: OrgState, target: Target) -> Reply:
    stranger = await _known_as(vault, state, "")
    context = vault.context(state, stranger, target.mount)
    operation = Operation.UPDATE if request.operation in _WRITES else request.operation
    path = parse_path(request.path, listing=operation is Operation.LIST)
    shown = request.peer_certificate
    call = Call(operation, path, target.params, request.data, request.remote, certificate=shown)
    return await target.handler(context, call) or Reply()


async def _give_token(vault: Vault, request: Request, state: OrgState, target: Target, login: Login) -> Reply:
    caller, path = await _known_as(vault, state, login.name), parse_path(request.path)
    state, caller = await at_work(vault, state, caller, request)
    record = intent_of(caller, request, Operation.UPDATE, path, "")
    intended = Intended(vault.journal, record, state.org.id)
    result, said = "aborted", dict[str, str]()
    try:
        if await vault.devices.present(state):
            await intended.durable()
            await vault.devices.asking(state, caller, request, path, Operation.UPDATE)
        reply = await _token(vault, state, login, target, intended)
        await intended.durable()
        reply = await wrapping.wrap(vault, state, request, path, reply)
        result, said = "ok", given_out(reply)
    except Exception as error:
        result = error.code if isinstance(error, KeyholeError) else InternalError.code
        await intended.durable()
        raise
    finally:
        intended.queue()
        vault.conclude(state, record, result, **said)
    return reply


async def _known_as(vault: Vault, state: OrgState, name: str) -> Caller:
    """Who is about to get a token, and may do nothing yet; empty for a stranger."""
    caller = state.logins.get(name)
    if caller is None:
        if len(state.logins) >= _KNOWN:
            state.logins.clear()
        acl = await vault.compiled.acl(state, ())
        caller = state.logins[name] = Caller(state.org.name, state.org.id, name, "", "full", (), acl)
    return caller


def _open_route(state: OrgState, request: Request) -> Target | None:
    """The open route that is asked for, if it is one."""
    try:
        path = parse_path(request.path, listing=request.operation is Operation.LIST)
        target = state.mounts.resolve(request.operation, path)
    except KeyholeError:
        return None  # the door says what is wrong with it, to who may know
    return target if target.route.open else None


def _with_decoy(vault: Vault, state: OrgState, request: Request) -> OrgState:
    """The org with a login method that knows nobody where one is asked for and nothing is mounted.

    Of which type it is follows from the path, or from a keyed hash: always the same for one path of one org.
    """
    top, _, below = request.path.partition("/")
    kind, _, rest = below.partition("/")
    if f"{top}/" != AUTH or not kind or not rest or state.mounts.find(f"{request.path}/") is not None:
        return state
    path = f"{AUTH}{kind}/"
    if kind not in auth.MEMBERS:
        digest = vault.tokens.hash(f"{state.org.name}\0{path}".encode())
        kind = auth.MEMBERS[int(digest[:8], 16) % len(auth.MEMBERS)]
    engine = vault.decoys.get(kind)
    if engine is None:
        engine = vault.decoys[kind] = vault.tables.make_engine(path, kind, {})
    mounts = Mounts([Mount(path, "none", engine, kind, config=unset(path))])
    there = copy(state)
    there.org, there.mounts, there.logins = state.org._replace(id=NO_ORG), mounts, {}
    return there


async def _state(vault: Vault, name: str) -> OrgState:
    """The org that is asked; for one that does not exist a state without anything in it."""
    try:
        org_id = await vault.orgs.id_of(name) if name else vault.root_org
        return vault.compiled.current(org_id) or await vault.compiled.state(org_id)
    except (NotFound, Unauthenticated):
        await vault.store.generation()  # as much work as for an org that is there
        return OrgState(Org(NO_ORG, name, "", 0.0), 0, 0, vault.bare_mounts, Known(0), Bindings(0))


async def _token(vault: Vault, state: OrgState, login: Login, target: Target, intended: Intended) -> Reply:
    """A token, made in one commit with the intent."""
    mount = target.mount
    grant = Grant(
        name=login.name,
        policies=login.policies,
        ttl=login.ttl,
        default_ttl=mount.default_ttl,
        explicit_max=login.explicit_max,
        period=login.period,
        uses=login.uses,
        meta=login.meta,
        max_ttl=min(login.max_ttl or mount.max_ttl, mount.max_ttl),
        cidrs=login.cidrs,
        path=f"{mount.path}login",
        mount=mount.id,
        type=_type(mount, login),
        entity_id=await enter(vault, state, mount, login, intended.durable),
    )
    now = vault.clock.now()
    org_id = "" if state.org.id == vault.root_org else state.org.id
    clear, token, warning = await vault.tokens.create(
        vault.storage(state.org.id, MOUNT), grant, now=now, org_id=org_id, along=intended.along
    )
    added = await standing.shown(vault, await vault.compiled.state(state.org.id), token)
    return Reply(auth=auth_block(token, now, clear, added), warnings=[warning] if warning else [])


def _type(mount: Mount, login: Login) -> TokenType:
    """What the mount insists on, else what the role says, else what the mount says. Raises ``InvalidRequest``."""
    tuned = str(mount.config.get("token_type", "default-service"))
    said = tuned if login.type == "default" or not tuned.startswith("default") else login.type
    if not said.endswith("batch"):
        return "service"
    if login.uses or login.period:
        raise InvalidRequest(
            "a batch token can be neither periodic nor limited in its uses", "tune token_type of the mount"
        )
    return "batch"

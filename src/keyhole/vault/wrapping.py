"""Response wrapping: instead of an answer, a token that gives the answer to whoever shows it first, once.

The answer lies in the drawer of a token of the policy ``response-wrapping`` that is good for one use. Its use is spent
by compare-and-set before the answer is read, so of many who unwrap at the same time one gets it; who finds it spent
knows that somebody else has read it. What was leased for the answer stays with who asked for it.

``sys/wrapping/lookup``, ``unwrap`` and ``rewrap`` take the token in ``token``, or as the credential of the request.
The second way comes here before the door asks who the caller is: of every other token it says that it wraps nothing.
"""

from __future__ import annotations

import base64
import contextlib
import json
from typing import TYPE_CHECKING, Any

from keyhole.core.errors import InternalError, InvalidRequest, KeyholeError, NotFound, Unauthenticated
from keyhole.core.identity import Caller
from keyhole.core.lease import SYSTEM_MAX_TTL, Lease, LeaseState
from keyhole.core.policy import WRAPPING
from keyhole.core.request import Operation, Reply, Request, WrapInfo
from keyhole.core.times import format_time
from keyhole.core.value import Secret
from keyhole.vault.callers import at_work
from keyhole.vault.compiled import OrgState
from keyhole.vault.recording import given_out, intent_of
from keyhole.vault.storage import Change, Write
from keyhole.vault.tokens import MOUNT, Grant, Token, org_of

if TYPE_CHECKING:
    from keyhole.vault.vault import Vault

_FOLDER = "sys/wrapping/"
_WRITES = frozenset({Operation.CREATE, Operation.UPDATE})
_VERBS = {"lookup": _WRITES | {Operation.READ}, "unwrap": _WRITES, "rewrap": _WRITES}
_DRAWERS = "cubbyhole"
_RESPONSE = "response"
_INFO = "wrapinfo"


class WrapsNothing(InvalidRequest):
    """The token is no wrapping token, or its answer was taken already."""

    def __init__(self) -> None:
        super().__init__(
            "wrapping token is not valid or does not exist",
            "if you expected one, somebody else may have unwrapped it: look into the audit log",
        )


def asks(request: Request) -> str:
    """``lookup``, ``unwrap`` or ``rewrap`` when the wrapping token itself is what the request shows; else empty."""
    if _FOLDER not in request.path:
        return ""
    path = request.path.strip("/")
    verb = path.removeprefix(_FOLDER)
    if not path.startswith(_FOLDER) or request.operation not in _VERBS.get(verb, ()):
        return ""
    named = request.data.get("token")
    if verb == "lookup" or not named or (isinstance(named, str) and named.encode() == request.credential):
        return verb
    return ""


async def by_holder(vault: Vault, request: Request, verb: str) -> Reply:
    """Answer who shows a wrapping token and needs no other.

    Raises:
        WrapsNothing: it is none. That is a stranger's refusal.
    """
    try:
        state, token = await _shown(vault, request)
    except InvalidRequest as error:
        await vault.record_unknown(request, error)
        raise
    if vault.quotas.concern(state):
        await vault.quotas.admit(state, request)
    acl = await vault.compiled.acl(state, token.policies)
    caller = Caller(
        state.org.name, state.org.id, token.name, token.accessor, "full", token.policies, acl, token_id=token.id
    )
    state, caller = await at_work(vault, state, caller, request)
    record = intent_of(caller, request, Operation.UPDATE, f"{_FOLDER}{verb}", "")
    result, said = "aborted", dict[str, str]()
    try:
        await vault.journal.intend(record, state.org.id)
        if vault.devices.concern(state.generation):
            await vault.devices.asking(state, caller, request, f"{_FOLDER}{verb}", Operation.UPDATE)
        reply = await do(vault, state, token, verb)
        result, said = "ok", given_out(reply)
    except Exception as error:
        result = error.code if isinstance(error, KeyholeError) else InternalError.code
        raise
    finally:
        vault.conclude(state, record, result, **said)
    return reply


async def do(vault: Vault, state: OrgState, token: Token, verb: str) -> Reply:
    """Look a wrapping token up, unwrap it or wrap its answer anew. Raises ``WrapsNothing``."""
    drawer = vault.storage(state.org.id, _DRAWERS)
    info, response = await drawer.get(f"{token.id}/{_INFO}", f"{token.id}/{_RESPONSE}")
    if info.data is None or response.data is None:
        raise WrapsNothing
    about = json.loads(info.data)
    if verb == "lookup":
        return Reply(
            {
                "creation_path": about["creation_path"],
                "creation_time": format_time(about["creation_time"]),
                "creation_ttl": about["creation_ttl"],
            }
        )
    if verb == "unwrap":
        await _spend(vault, state, token)
        return _reply(json.loads(json.loads(response.data)[_RESPONSE]))
    path, ttl, accessor = about["creation_path"], about["creation_ttl"], about["wrapped_accessor"]
    anew = await _store(vault, state, response.data, path, ttl, accessor)
    try:
        await _spend(vault, state, token)
    except WrapsNothing:
        await _end(vault, state, vault.tokens.hash(anew.token.encode()))
        raise
    return Reply(wrap=anew)


async def wrap(vault: Vault, state: OrgState, request: Request, path: str, reply: Reply) -> Reply:
    """The reply, wrapped when it is to be and says something. Refusals never come here, and empty answers stay empty.

    Raises:
        KeyholeError: it cannot be wrapped; what was made for it is taken back.
    """
    said = reply.data is not None or reply.auth is not None or reply.lease is not None or reply.raw is not None
    if not request.wrap_ttl or reply.wrap is not None or not (said or reply.warnings):
        return reply
    try:
        return await _wrap(vault, state, request.wrap_ttl, path, reply)
    except BaseException:
        if reply.lease is not None:
            await vault.expiry.end(state, [reply.lease.id])
        if reply.auth is not None:
            await _end(vault, state, vault.tokens.hash(reply.auth["client_token"].encode()))
        raise


async def _wrap(vault: Vault, state: OrgState, ttl: int, path: str, reply: Reply) -> Reply:
    if not reply.found:
        raise NotFound("there is nothing to wrap here")
    if ttl > SYSTEM_MAX_TTL:
        raise InvalidRequest("the wrap TTL is longer than the system's longest TTL", "ask for a shorter one")
    data = json.dumps({_RESPONSE: json.dumps(_stored(reply))}).encode()
    accessor = str((reply.auth or {}).get("accessor", ""))
    return Reply(wrap=await _store(vault, state, data, path, ttl, accessor), lease=reply.lease)


async def find(vault: Vault, state: OrgState, clear: object) -> Token:
    """The live wrapping token of this org that a field names. Raises ``WrapsNothing``."""
    return await _live(vault, state, clear.encode() if isinstance(clear, str) else b"")


async def _shown(vault: Vault, request: Request) -> tuple[OrgState, Token]:
    named = request.data.get("token")
    shown = named.encode() if isinstance(named, str) and named else request.credential
    if not isinstance(shown, bytes):
        raise WrapsNothing
    try:
        state = await vault.compiled.state(org_of(shown) or vault.root_org)
    except Unauthenticated:
        raise WrapsNothing from None
    if request.org not in {"", state.org.name}:
        raise WrapsNothing
    return state, await _live(vault, state, shown)


async def _live(vault: Vault, state: OrgState, clear: bytes) -> Token:
    token = await vault.tokens.get(vault.storage(state.org.id, MOUNT), vault.tokens.hash(clear))
    if token is None or token.policies != (WRAPPING,) or token.uses != 1 or not token.live(vault.clock.now()):
        raise WrapsNothing
    return token


async def _spend(vault: Vault, state: OrgState, token: Token) -> None:
    """Take the one use; whoever comes second gets nothing."""
    try:
        await vault.tokens.spend(vault.storage(state.org.id, MOUNT), token)
    except Unauthenticated:
        raise WrapsNothing from None
    with contextlib.suppress(KeyholeError):  # a spent token is due, and a sweep ends what this does not
        await _end(vault, state, token.id)


async def _end(vault: Vault, state: OrgState, token_id: str) -> None:
    from keyhole.vault.sys.tokens import end_tokens  # noqa: PLC0415 - it needs the door, which needs this

    await end_tokens(vault, state.org.id, token_id)


async def _store(vault: Vault, state: OrgState, data: bytes, path: str, ttl: int, wrapped_accessor: str) -> WrapInfo:
    """A new wrapping token with an answer in its drawer."""
    now = vault.clock.now()
    grant = Grant(
        name="token/wrapping", policies=(WRAPPING,), ttl=ttl, explicit_max=ttl, uses=1, renewable=False, path=path
    )
    org_id = "" if state.org.id == vault.root_org else state.org.id
    clear, token, _ = await vault.tokens.create(vault.storage(state.org.id, MOUNT), grant, now=now, org_id=org_id)
    about = {"creation_path": path, "creation_time": now, "creation_ttl": ttl, "wrapped_accessor": wrapped_accessor}
    writes = [Write(f"{token.id}/{_RESPONSE}", data, 0), Write(f"{token.id}/{_INFO}", json.dumps(about).encode(), 0)]
    await vault.storage(state.org.id, _DRAWERS).commit(Change(writes))
    return WrapInfo(clear, token.accessor, ttl, now, path, wrapped_accessor)


def _stored(reply: Reply) -> dict[str, Any]:
    """A reply as it lies in the drawer, which is sealed like every entry."""
    lease = reply.lease
    return {
        "data": _plain(reply.data),
        "auth": reply.auth,
        "warnings": reply.warnings,
        "lease": [lease.id, lease.renewable, lease.ttl] if lease is not None else None,
        "duration": reply.duration,
        "status": reply.status,
        "bare": reply.bare,
        "raw": None if reply.raw is None else base64.b64encode(reply.raw).decode(),
        "content_type": reply.content_type,
    }


def _reply(stored: dict[str, Any]) -> Reply:
    data, lease = stored["data"], stored["lease"]
    return Reply(
        # Every leaf is masked until a face that may show it does so.
        data=None if data is None else {name: Secret(json.dumps(value)) for name, value in data.items()},
        auth=stored["auth"],
        warnings=stored["warnings"],
        lease=None if lease is None else _lease(*lease),
        duration=stored["duration"],
        status=stored["status"],
        bare=stored["bare"],
        raw=None if stored["raw"] is None else base64.b64decode(stored["raw"]),
        content_type=stored["content_type"],
    )


def _lease(lease_id: str, renewable: bool, ttl: int) -> Lease:  # noqa: FBT001 - in the order in which it was stored
    """What an answer shows of a lease; the lease itself is where leases are."""
    return Lease(
        id=lease_id,
        issued=0.0,
        expires=0.0,
        ttl=ttl,
        default_ttl=ttl,
        max_ttl=0,
        renewable=renewable,
        internal={},
        mount="",
        state=LeaseState.ACTIVE,
    )


def _plain(value: Any) -> Any:
    """A value with its secret leaves opened, to be sealed again at once."""
    if isinstance(value, Secret):
        return json.loads(value.reveal())
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value

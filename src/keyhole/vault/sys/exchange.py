"""Token exchange (RFC 8693): an agent shows its token and that of a person, and gets one that says for whom it acts.

The person's token is proved by a JWT login method, as if the person logged in with it. What comes of it is a child of
the agent's own token: it may do no more, ends no later than either, and every record of it names the person.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keyhole.core.errors import InvalidRequest, NotFound, PolicyDenied
from keyhole.core.identity import Login
from keyhole.core.lease import parse_duration
from keyhole.core.request import Operation, Reply
from keyhole.crypto.foreign_jwt import unverified_claims
from keyhole.engines import Call, Context, Field, Route
from keyhole.vault.identity import standing
from keyhole.vault.identity.entering import require_enabled
from keyhole.vault.sys.token_create import grant_of
from keyhole.vault.sys.tokens import own_parent
from keyhole.vault.tokens import MOUNT, Grant
from keyhole.vault.vault import Vault

GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
_KINDS = ("urn:ietf:params:oauth:token-type:jwt", "urn:ietf:params:oauth:token-type:id_token")
_ISSUED = "urn:ietf:params:oauth:token-type:access_token"
_METHODS = ("jwt", "oidc")
_DEFAULT_TTL = 3600


class _Handlers:
    """The handler of a vault."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def exchange(self, context: Context, call: Call) -> Reply:
        subject = _subject(call.data)
        before = context.caller.run.on_behalf_of
        login = await self.proved(context, call, subject)
        if before and before != login.name:
            raise PolicyDenied(f"this token acts for {before} already", "use a token that acts for nobody")
        parent = await own_parent(self._vault, context)
        grant = _grant(context, call, login, subject)._replace(
            entity_id=parent.entity_id if parent else "",
            alone=parent.alone if parent else False,
        )
        org_id = "" if context.caller.org_id == self._vault.root_org else context.caller.org_id
        clear, token, warning = await self._vault.tokens.create(
            self._vault.storage(context.caller.org_id, MOUNT), grant, now=context.now, parent=parent, org_id=org_id
        )
        state = await self._vault.compiled.state(context.caller.org_id)
        added = await standing.shown(self._vault, state, token)
        data: dict[str, Any] = {
            "access_token": clear,
            "issued_token_type": _ISSUED,
            "token_type": "Bearer",
            "expires_in": token.remaining(context.now),
            "scope": " ".join(sorted({*token.policies, *added})),
            "accessor": token.accessor,
            "on_behalf_of": login.name,
        }
        return Reply(data, bare=True, warnings=[warning] if warning else [])

    async def proved(self, context: Context, call: Call, subject: str) -> Login:
        """Whom the token is of, by the login method that is named. Raises what a login raises."""
        named = call.data.get("mount") or "jwt"
        state = await self._vault.compiled.state(context.caller.org_id)
        try:
            mount = state.mounts.at(f"auth/{str(named).strip('/')}/")
        except NotFound:
            mount = None
        if mount is None or mount.engine.type not in _METHODS:
            raise InvalidRequest(
                "there is no JWT login method of this name", "enable one, and name it as mount: sys/auth/jwt"
            )
        target = state.mounts.resolve(Operation.CREATE, f"{mount.path}login")
        body = {"jwt": subject, "role": call.data.get("role")}
        stranger = context.caller._replace(acl=await self._vault.compiled.acl(state, ()))
        asking = self._vault.context(state, stranger, mount)
        reply = await target.handler(asking, Call(Operation.CREATE, f"{mount.path}login", {}, body, call.remote))
        if reply is None or reply.login is None or not reply.login.name:
            raise PolicyDenied("permission denied", "the subject_token was not proved")
        await require_enabled(self._vault, state, mount, reply.login)
        return reply.login


def _subject(data: Mapping[str, Any]) -> str:
    """The token of the person, in a request that is one of this kind. Raises ``InvalidRequest``."""
    if data.get("grant_type", GRANT) != GRANT:
        raise InvalidRequest("grant_type is not that of a token exchange", GRANT)
    if data.get("subject_token_type", _KINDS[0]) not in _KINDS:
        raise InvalidRequest("subject_token_type is not known", " or ".join(_KINDS))
    if data.get("actor_token") is not None:
        raise InvalidRequest("the actor is whose token comes with the request", "leave actor_token out")
    subject = data.get("subject_token")
    if not isinstance(subject, str) or not subject:
        raise InvalidRequest("missing subject_token", "send the token of whom you act for")
    return subject


def _grant(context: Context, call: Call, login: Login, subject: str) -> Grant:
    """What the new token is to be: the caller's child, for as long as both count."""
    asked = {name: call.data[name] for name in ("num_uses", "services") if call.data.get(name) is not None}
    asked |= {"policies": _scope(call.data), "renewable": False}
    grant = grant_of(context.caller, asked, None, elevated=False)
    ends = unverified_claims(subject).get("exp")  # it was verified before
    left = int(ends - context.now) if isinstance(ends, int | float) else 0
    if left <= 0:
        raise InvalidRequest("the subject_token is expired", "get a new one")
    ttl = min(parse_duration(call.data.get("ttl") or login.ttl or _DEFAULT_TTL), left)
    return grant._replace(
        ttl=ttl,
        explicit_max=ttl,
        endless=False,
        path=call.path,
        meta={**grant.meta, "subject": login.alias},
        run=grant.run._replace(on_behalf_of=login.name),
        max_ttl=context.max_ttl,
    )


def _scope(data: Mapping[str, Any]) -> list[str]:
    scope = data.get("scope") or ""
    if not isinstance(scope, str):
        raise InvalidRequest("scope is a text of names with blanks between them (RFC 6749 section 3.3)")
    return scope.split()


def routes(vault: Vault) -> tuple[Route, ...]:
    """Its part of the token method's table."""
    return (
        Route(
            "exchange",
            {Operation.CREATE: _Handlers(vault).exchange},
            fields=(
                Field("subject_token", "the JWT of whom the caller acts for"),
                Field("subject_token_type", f"{_KINDS[0]}, or id_token"),
                Field("grant_type", GRANT),
                Field("mount", "the JWT login method that proves it; jwt unless said"),
                Field("role", "its role; the method's default_role unless said"),
                Field("scope", "policies, of those that the caller has; all unless said"),
                Field("services", "list of the only services that it may use"),
                Field("ttl", "duration; not longer than the subject_token counts"),
                Field("num_uses", "requests it is good for; 0 for unlimited"),
            ),
            help="A token that says on whose behalf its holder acts (RFC 8693).",
        ),
    )

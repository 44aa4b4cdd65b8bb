"""JWT and OpenID Connect: machines log in with a token that an issuer signed, people in a browser at the issuer.

Workload identities of clouds and CI come this way too: an issuer, its keys, and what its tokens must say. The signature
is judged before anything that a token or a request names, so what a refusal says of roles is for the issuer's own
only. Fields and texts are those of Vault's method.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keyhole.auth import settings
from keyhole.auth.guesses import Guesses
from keyhole.auth.jwt import oidc
from keyhole.auth.jwt.config import SETTINGS, Config, Configured, Issuer, load
from keyhole.auth.jwt.roles import ROLES, leeway_of
from keyhole.auth.outside import entity_name
from keyhole.core.cidr import within
from keyhole.core.claims import claim, mapped, require_audience, require_claims, require_current, require_recent
from keyhole.core.errors import InvalidRequest
from keyhole.core.identity import Login
from keyhole.core.request import Operation, Reply
from keyhole.engines import Call, Context, Engine, Field, Route

_GROUPS = 1000
_LONGEST_NAME = 1024


class _Method:
    """The logins of a mount."""

    def __init__(self, guesses: Guesses, issuer: Issuer) -> None:
        self._guesses = guesses
        self._issuer = issuer

    async def login(self, context: Context, call: Call) -> Reply:
        token, named = call.data.get("jwt"), call.data.get("role")
        if not isinstance(token, str) or not token:
            raise InvalidRequest("missing token", 'send {"role": "NAME", "jwt": "…"}')
        config = await load(context)
        with self._guesses.one(call.remote, context.now):
            claims = await self._issuer.verify(context, config, token)
            role_name = named or config.data["default_role"]
            if not isinstance(role_name, str) or not role_name:
                raise InvalidRequest("missing role", 'send {"role": "NAME", "jwt": "…"}')
            role = await ROLES.load(context, role_name)
            if role is None:
                raise InvalidRequest(f"role {role_name[:128]!r} could not be found", f"LIST {context.mount}role")
            if role["role_type"] != "jwt":
                raise InvalidRequest("role with oidc role_type is not allowed", "log in with a browser")
            require_audience(claims, role["bound_audiences"])
            return Reply(login=proved(context, call, config, role, claims))

    async def auth_url(self, context: Context, call: Call) -> Reply:
        """Where a browser begins. Whatever is wrong is answered alike, as Vault does."""
        return Reply({"auth_url": await oidc.begin(context, call, self._issuer)})

    async def callback(self, context: Context, call: Call) -> Reply:
        """Where the issuer sends the browser back to, with a code that is changed for a token."""
        with self._guesses.one(call.remote, context.now):
            config, role, claims = await oidc.finish(context, call, self._issuer)
            return Reply(login=proved(context, call, config, role, claims))


def proved(context: Context, call: Call, config: Config, role: Mapping[str, Any], claims: Mapping[str, Any]) -> Login:
    """What the role gives to whom the issuer vouches for. Raises ``InvalidRequest`` where it is for others."""
    if config.issuer and claims.get("iss") != config.issuer:
        raise InvalidRequest("error validating claims: invalid issuer (iss) claim", "check bound_issuer")
    leeway = leeway_of(role)
    require_current(claims, context.now, leeway)
    if role["max_age"]:
        require_recent(claims, context.now, role["max_age"], leeway)
    if role["bound_subject"] and claims.get("sub") != role["bound_subject"]:
        raise InvalidRequest("error validating claims: sub claim does not match bound subject", "check bound_subject")
    require_claims(claims, role["bound_claims"], glob=role["bound_claims_type"] == "glob")
    if role["token_bound_cidrs"] and not within(call.remote, role["token_bound_cidrs"]):
        raise InvalidRequest("the role is not for this address", "check token_bound_cidrs")
    name = claim(claims, role["user_claim"], pointer=role["user_claim_json_pointer"])
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST_NAME:
        raise InvalidRequest(f"claim {role['user_claim']!r} not found in token, or no text", "check user_claim")
    meta = {**mapped(claims, role["claim_mappings"]), "role": role["name"]}
    login = settings.login_of(entity_name("jwt", name), role, meta, alias=name, alias_meta=meta)
    return settings.with_groups(login, _groups(claims, role))


def _groups(claims: Mapping[str, Any], role: Mapping[str, Any]) -> tuple[str, ...]:
    if not role["groups_claim"]:
        return ()
    found = claim(claims, role["groups_claim"])
    groups = [found] if isinstance(found, str) else found
    if not isinstance(groups, list) or len(groups) > _GROUPS or not all(isinstance(each, str) for each in groups):
        raise InvalidRequest(f"claim {role['groups_claim']!r} is no list of groups", "check groups_claim")
    return tuple(groups)


def make(guesses: Guesses) -> Engine:
    """The method, for one mount."""
    configured = Configured()
    r = _Method(guesses, configured.issuer)
    write = Operation.CREATE
    return Engine(
        "jwt",
        (
            Route(
                "login",
                {write: r.login},
                open=True,
                fields=(Field("role", "which role"), Field("jwt", "the token that the issuer signed")),
                help="A token for a token of the issuer.",
            ),
            Route(
                "oidc/auth_url",
                {write: r.auth_url},
                open=True,
                fields=(
                    Field("role", "which role"),
                    Field("redirect_uri", "where the browser is sent back to"),
                    Field("client_nonce", "ties the login to whoever began it"),
                ),
                help="Where a browser begins to log in.",
            ),
            Route(
                "oidc/callback",
                {Operation.READ: r.callback, write: r.callback},
                open=True,
                fields=(
                    Field("state", "as it was given out"),
                    Field("code", "of the issuer"),
                    Field("client_nonce", "as the login began"),
                ),
                help="Where a login in a browser ends.",
            ),
            Route(
                "config",
                {Operation.READ: configured.read, write: configured.write},
                fields=(*settings.fields(SETTINGS), Field("oidc_client_secret", "our secret at the issuer")),
                help="Who is believed.",
            ),
            *ROLES.routes(),
        ),
    )

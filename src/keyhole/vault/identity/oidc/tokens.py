"""``identity/oidc``: tokens for the caller's own entity, what proves them, and who asks whether one is good."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from keyhole.core.errors import IntegrityError, InvalidRequest
from keyhole.core.identity import ROOT_ORG
from keyhole.core.request import Operation, Reply
from keyhole.core.value import Secret
from keyhole.crypto import id_token
from keyhole.engines import Call, Context, Field, Route, StorageView
from keyhole.vault.identity import fields
from keyhole.vault.identity.desk import Desk
from keyhole.vault.identity.oidc import keys, roles
from keyhole.vault.identity.oidc.templates import fill

if TYPE_CHECKING:
    from keyhole.vault.vault import Vault

_CONFIG = "oidc/config"
_SET = (
    'If "issuer" is set explicitly, all tokens must be validated against that address, including those issued by '
    'secondary clusters. Setting issuer to "" will restore the default behavior of using the cluster\'s api_addr '
    "as the issuer."
)


class _Handlers(Desk):
    """Handlers of the routes of identity tokens."""

    async def configure(self, context: Context, call: Call) -> Reply:
        issuer = fields.text(call.data, "issuer").rstrip("/")
        if issuer and not _is_origin(issuer):
            raise InvalidRequest(
                "invalid issuer, which must include only a scheme, host, and optional port "
                "(e.g. https://example.com:8200)"
            )
        item = await context.storage.get_one(_CONFIG)
        await context.storage.change([(_CONFIG, json.dumps({"issuer": issuer}).encode(), item.revision)])
        return Reply(warnings=[_SET] if issuer else [])

    async def configuration(self, context: Context, _call: Call) -> Reply:
        return Reply({"issuer": await _configured(context.storage)})

    async def issuer(self, context: Context) -> str:
        """Claim ``iss``, and the address below which its keys are published. Raises ``InvalidRequest``."""
        base = await _configured(context.storage) or self.vault.address()
        if not base:
            raise InvalidRequest(
                "no issuer is set, and no server says where it is", 'POST identity/oidc/config {"issuer": "https://…"}'
            )
        org = "" if context.caller.org == ROOT_ORG else f"{context.caller.org}/"
        return f"{base}/v1/{org}{context.mount.rstrip('/')}/oidc"

    async def generate(self, context: Context, call: Call) -> Reply:
        name = call.params["name"]
        role, _ = await roles.load(context.storage, name)
        if role is None:
            raise InvalidRequest(f'role "{name}" not found', "list identity/oidc/role")
        key = await keys.load_signing(context.storage, role.key, context.now)
        if key is None:
            raise InvalidRequest(f'key "{role.key}" not found', "list identity/oidc/key")
        if not key.may_sign_for(role.client_id):
            raise InvalidRequest(
                f'the key "{role.key}" does not list the client ID of the role "{name}" as an allowed client ID',
                "add it to allowed_client_ids of the key",
            )
        entity = context.caller.entity
        if not entity.id:
            raise InvalidRequest("no entity associated with the request's token", "log in, and ask with that token")
        now, ttl = int(context.now), min(role.ttl, key.verification_ttl)
        claims = {
            **fill(role.template, entity, now),
            "aud": role.client_id,
            "exp": now + ttl,
            "iat": now,
            "iss": await self.issuer(context),
            "namespace": self.namespace(context),
            "sub": entity.id,
        }
        signing = key.pairs[0]
        token = id_token.sign(signing.der, signing.algorithm, signing.id, claims)
        return Reply({"client_id": role.client_id, "token": Secret(json.dumps(token)), "ttl": ttl})

    async def introspect(self, context: Context, call: Call) -> Reply:
        token = call.data.get("token")
        if not isinstance(token, str) or not token:
            raise InvalidRequest("missing token", 'send {"token": "…"}')
        try:
            await self.check(context, token, fields.text(call.data, "client_id"))
        except (IntegrityError, InvalidRequest) as error:
            return Reply({"active": False, "error": error.reason}, bare=True)
        return Reply({"active": True}, bare=True)

    async def check(self, context: Context, token: str, client_id: str) -> None:
        """Raises ``IntegrityError`` with what is wrong about a token."""
        claims = await self.verified(context, token)
        if claims.get("iss") != await self.issuer(context) or claims.get("namespace") != self.namespace(context):
            raise IntegrityError("the token is of another issuer")
        if not context.now < claims["exp"]:
            raise IntegrityError("the token has expired")
        if client_id and claims.get("aud") != client_id:
            raise IntegrityError("the token is not for this client")
        state = await self.state(context)
        person = await state.known.person(self.vault.orgs.identities(context.caller.org_id), str(claims["sub"]))
        if person is None:
            raise IntegrityError("entity was not found")
        if person.disabled:
            raise IntegrityError("entity is disabled")

    async def verified(self, context: Context, token: str) -> dict[str, Any]:
        """The claims of a token that one of the org's keys signed."""
        key_id = id_token.read_header(token).get("kid")
        for name in await keys.names(context.storage):
            key, _ = await keys.load(context.storage, name)
            for pair in key.published(context.now) if key else ():
                if pair.id == key_id:
                    return id_token.verify(pair.der, pair.algorithm, token)
        raise IntegrityError("unable to validate the token signature")

    async def discovery(self, context: Context, _call: Call) -> Reply:
        issuer = await self.issuer(context)
        return Reply(
            {
                "issuer": issuer,
                "jwks_uri": f"{issuer}/.well-known/keys",
                "id_token_signing_alg_values_supported": list(id_token.ALGORITHMS),
                "response_types_supported": ["id_token"],
                "subject_types_supported": ["public"],
            },
            bare=True,
        )

    async def published(self, context: Context, _call: Call) -> Reply:
        found = []
        for name in await keys.names(context.storage):
            key, _ = await keys.load(context.storage, name)
            pairs = key.published(context.now) if key else []
            found += [dict(pair.public) for pair in pairs]
        return Reply({"keys": found}, bare=True)


async def _configured(storage: StorageView) -> str:
    item = await storage.get_one(_CONFIG)
    return str(json.loads(item.data)["issuer"]) if item.data is not None else ""


def _is_origin(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and text == f"{parts.scheme}://{parts.netloc}"
            and "@" not in parts.netloc
            and parts.port != 0
        )
    except ValueError:
        return False


def routes(vault: Vault) -> tuple[Route, ...]:
    """The table."""
    r = _Handlers(vault)
    read, write = Operation.READ, Operation.CREATE
    well_known = "oidc/.well-known"
    return (
        Route(
            "oidc/config",
            {read: r.configuration, write: r.configure},
            fields=(Field("issuer", "where verifiers reach the server: https://HOST[:PORT]", "string"),),
            help="Where identity tokens come from.",
        ),
        Route("oidc/token/{name}", {read: r.generate}, help="A signed token about the caller's entity."),
        Route(
            "oidc/introspect",
            {write: r.introspect},
            fields=(Field("token", "an identity token", "string"), Field("client_id", "for whom it must be", "string")),
            help="Is an identity token good now?",
            bare=True,
        ),
        Route(
            f"{well_known}/openid-configuration", {read: r.discovery}, open=True, bare=True, help="OpenID discovery."
        ),
        Route(
            f"{well_known}/keys", {read: r.published}, open=True, bare=True, help="The public keys of identity tokens."
        ),
    )

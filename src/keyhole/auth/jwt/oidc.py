"""Logins in a browser: OpenID Connect's authorization code flow with PKCE (RFC 7636).

What is known of a login that has begun travels in its ``state``, sealed, so that any node can end it and nobody who
begins many costs memory.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from keyhole.auth.jwt.config import Config, Issuer, load
from keyhole.auth.jwt.roles import ROLES
from keyhole.auth.outside import asked_host
from keyhole.config import is_loopback
from keyhole.core import base64url
from keyhole.core.claims import require_audience
from keyhole.core.errors import InvalidRequest, KeyholeError
from keyhole.core.strict_json import JsonBounds, parse_object
from keyhole.crypto.aead import AeadKey
from keyhole.engines import Call, Context

LASTS = 600.0  # seconds between the beginning and the end of a login
_ABOUT = b"keyhole oidc state 1"
_LONGEST = 4096
_BOUNDS = JsonBounds(depth=8, string=65536, items=1000)


@dataclass(frozen=True, slots=True)
class _Begun:
    """A login that has begun; see ``begin``."""

    role: str
    redirect_uri: str
    nonce: str
    verifier: str
    client_nonce: str
    until: float


async def begin(context: Context, call: Call, issuer: Issuer) -> str:
    """Where the browser is to go; empty for whatever is wrong, so that nobody learns which roles there are."""
    try:
        config = await load(context)
        named = str(call.data.get("role") or config.data["default_role"])
        role = await ROLES.load(context, named) if named else None
        redirect = call.data.get("redirect_uri")
        if role is None or role["role_type"] != "oidc" or not isinstance(redirect, str):
            return ""
        if not config.data["oidc_client_id"] or not _is_allowed(redirect, role["allowed_redirect_uris"]):
            return ""
        endpoint = str((await issuer.document(context, config)).get("authorization_endpoint") or "")
        if endpoint:  # of an issuer that says none, Vault's clients get the query alone
            asked_host(endpoint, "authorization_endpoint", trusted=bool(config.allow))
    except KeyholeError:
        return ""
    verifier = secrets.token_urlsafe(48)
    nonce = secrets.token_urlsafe(24)
    client_nonce = str(call.data.get("client_nonce") or "")[:256]
    begun = _Begun(role["name"], redirect, nonce, verifier, client_nonce, context.now + LASTS)
    challenge = base64url.encode(hashlib.sha256(verifier.encode()).digest())
    query = {
        "client_id": config.data["oidc_client_id"],
        "code_challenge": challenge,
        "code_challenge_method": "S256",
        **({"max_age": role["max_age"]} if role["max_age"] else {}),
        "nonce": nonce,
        "redirect_uri": redirect,
        **({"response_mode": "form_post"} if config.data["oidc_response_mode"] == "form_post" else {}),
        "response_type": "code",
        "scope": " ".join(dict.fromkeys(["openid", *role["oidc_scopes"]])),
        "state": _seal(config, begun),
    }
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"


async def finish(context: Context, call: Call, issuer: Issuer) -> tuple[Config, Mapping[str, Any], Mapping[str, Any]]:
    """The settings, the role, and the claims of whom the issuer vouches for. Raises ``InvalidRequest``."""
    config = await load(context)
    begun = _open(config, call.data.get("state"), context.now)
    if call.data.get("error"):
        raise InvalidRequest("the issuer refused the login", "begin again, and say yes to the issuer")
    client_nonce = str(call.data.get("client_nonce") or "")
    if not hmac.compare_digest(begun.client_nonce.encode(), client_nonce.encode()):
        raise InvalidRequest("invalid client_nonce", "the login must be ended by whoever began it")
    role = await ROLES.load(context, begun.role)
    code = call.data.get("code")
    if role is None or role["role_type"] != "oidc" or not isinstance(code, str) or not 0 < len(code) <= _LONGEST:
        raise InvalidRequest("no code in the answer of the issuer", "begin again")
    token = await _changed(context, config, issuer, begun, code)
    claims = await issuer.verify(context, config, token)
    audience = claims.get("aud")
    meant = audience if isinstance(audience, list) else [audience]
    who = config.data["oidc_client_id"]
    if who not in meant or claims.get("azp", who) != who:
        raise InvalidRequest("the issuer's token is for another client", "check oidc_client_id")
    if role["bound_audiences"]:
        require_audience(claims, role["bound_audiences"])
    if not hmac.compare_digest(str(claims.get("nonce")).encode(), begun.nonce.encode()):
        raise InvalidRequest("the issuer's token is of another login", "begin again")
    return config, role, claims


async def _changed(context: Context, config: Config, issuer: Issuer, begun: _Begun, code: str) -> str:
    """The id token that the issuer gives for a code (OpenID Connect Core, section 3.1.3)."""
    document = await issuer.document(context, config)
    endpoint = str(document.get("token_endpoint") or "")
    who, secret = config.data["oidc_client_id"], config.data["oidc_client_secret"]
    form = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": begun.redirect_uri,
        "code_verifier": begun.verifier,
    }
    headers = [("Content-Type", "application/x-www-form-urlencoded"), ("Accept", "application/json")]
    ways = document.get("token_endpoint_auth_methods_supported")
    if isinstance(ways, list) and "client_secret_post" in ways and "client_secret_basic" not in ways:
        form |= {"client_id": who, "client_secret": secret}
    else:  # RFC 6749 section 2.3.1: both are form-encoded first
        both = f"{quote(who, safe='')}:{quote(secret, safe='')}".encode()
        headers.append(("Authorization", f"Basic {base64.b64encode(both).decode()}"))
    heard = await context.net.ask(
        "POST",
        endpoint,
        headers=headers,
        body=urlencode(form).encode(),
        ca_pem=config.data["oidc_discovery_ca_pem"],
        allow=config.allow,
    )
    token = parse_object(heard.body, _BOUNDS).get("id_token") if heard.status == 200 else None
    if not isinstance(token, str):
        raise InvalidRequest("the issuer gave no token for the code", "begin again: a code counts once")
    return token


def _is_allowed(redirect: str, allowed: list[str]) -> bool:
    """Exactly one that the role names; on this machine any port will do (RFC 8252 section 7.3)."""
    if redirect in allowed:
        return True
    try:
        parts = urlsplit(redirect)
        if parts.scheme != "http" or not is_loopback(parts.hostname or "") or parts.username is not None:
            return False
        alike = [urlsplit(each) for each in allowed]
    except ValueError:
        return False
    return any(
        (each.scheme, each.hostname, each.path, each.query, each.fragment, each.username)
        == (parts.scheme, parts.hostname, parts.path, parts.query, parts.fragment, None)
        for each in alike
    )


def _seal(config: Config, begun: _Begun) -> str:
    fields = [begun.role, begun.redirect_uri, begun.nonce, begun.verifier, begun.client_nonce, begun.until]
    sealed = AeadKey(bytes.fromhex(config.data["state_key"])).seal(json.dumps(fields).encode(), _ABOUT)
    return base64url.encode(sealed)


def _open(config: Config, state: Any, now: float) -> _Begun:
    try:
        if not isinstance(state, str) or len(state) > _LONGEST:
            raise InvalidRequest("none")
        sealed = base64url.decode(state)
        begun = _Begun(*json.loads(AeadKey(bytes.fromhex(config.data["state_key"])).open(sealed, _ABOUT)))
    except (KeyholeError, ValueError):
        raise InvalidRequest("Expired or missing OAuth state.", "begin again") from None
    if begun.until <= now:
        raise InvalidRequest("Expired or missing OAuth state.", "begin again")
    return begun

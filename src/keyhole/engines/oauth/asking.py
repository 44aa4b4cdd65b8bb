"""Requests to a provider's endpoints (RFC 6749), and what its answers mean. Nothing that it wrote is ever repeated.

An answer is one of three: tokens, a definite no with an error code of the standard, or nothing that can be used. Where
there is none at all, that is an error, which says nothing of what the provider did: a new refresh token may be lost.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote_plus, urlencode

from keyhole.core.errors import InvalidRequest, KeyholeError, UpstreamUnreachable
from keyhole.core.strict_json import JsonBounds, parse_object
from keyhole.crypto.jws import sign_jwt
from keyhole.engines import Context
from keyhole.engines.oauth.connection import Connection
from keyhole.net.ask import Heard

_BOUNDS = JsonBounds(depth=16, string=64 * 1024, items=2000)
_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")
_CODE = re.compile(r"[a-z_]{1,40}")
_LONGEST_LIFE = 10**9
_LONGEST_PAUSE = 3600
_BACKDATED = 30  # seconds by which the provider's clock may be behind
_ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"  # RFC 7523 section 2.2
_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"  # RFC 7523 section 2.1
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"  # RFC 8628 section 3.4

_CONSENT = frozenset({"invalid_grant", "interaction_required", "consent_required", "login_required"})
_DEFINITE = frozenset(
    {"invalid_client", "unauthorized_client", "invalid_scope", "unsupported_grant_type", "invalid_request"}
)  # RFC 6749 section 5.2
_WAITING = frozenset({"authorization_pending", "slow_down", "access_denied", "expired_token"})  # RFC 8628 section 3.5


@dataclass(frozen=True, slots=True)
class Granted:
    """Tokens.

    Attributes:
        access: the access token; empty where it cannot be used.
        life: seconds that it lives; 0 when the provider did not say.
        refresh: a new refresh token; empty when there is none, and the old one goes on.
        scopes: as granted; ``None`` when the provider did not say, which means as asked for.
        why: for what reason the access token cannot be used.
    """

    access: str = field(repr=False)
    life: float
    refresh: str = field(repr=False)
    scopes: tuple[str, ...] | None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Declined:
    """A definite no: an error code of RFC 6749 section 5.2 or RFC 8628 section 3.5."""

    code: str

    @property
    def consent(self) -> bool:
        """Is it what was consented to that counts no more?"""
        return self.code in _CONSENT


@dataclass(frozen=True, slots=True)
class Away:
    """An answer that says neither yes nor no.

    Attributes:
        reason: in words without a value.
        retry_after: seconds after which it may be asked again, as it says; 0 for nothing said.
        lost: it was meant as a yes, and cannot be read.
    """

    reason: str
    retry_after: int = 0
    lost: bool = False

    def error(self) -> KeyholeError:
        """The same as an error."""
        error = UpstreamUnreachable(self.reason, "try again later")
        error.retry_after = self.retry_after
        return error


Answer = Granted | Declined | Away


def renewal(connection: Connection, refresh: str, now: float) -> dict[str, str]:
    """The request for a new access token that needs nobody. Raises ``InvalidRequest`` for a key that does not fit."""
    grant = connection["grant"]
    if connection.by_person:
        return {"grant_type": "refresh_token", "refresh_token": refresh}
    form = {"grant_type": "client_credentials"}
    if grant == "jwt_bearer":
        claims = {**connection["claims"], "iss": connection["client_id"]}
        if connection["subject"]:
            claims["sub"] = connection["subject"]
        form = {"grant_type": _JWT_BEARER, "assertion": _signed(connection, claims, now)}
    scopes = connection["scopes"]
    return {**form, **({"scope": connection.provider.scope_separator.join(scopes)} if scopes else {})}


async def ask_tokens(context: Context, connection: Connection, form: Mapping[str, str], now: float) -> Answer:
    """Ask the token endpoint.

    Raises:
        InvalidRequest: the client's key cannot sign.
        KeyholeError: there was no answer.
    """
    resource = connection["resource"]
    whole = {**connection["token_params"], **({"resource": resource} if resource else {}), **form}
    heard = await _post(context, connection, connection["token_url"], whole, now)
    return read_tokens(connection, heard, now)


async def ask_device(context: Context, connection: Connection, now: float) -> Mapping[str, Any] | Declined | Away:
    """Ask the device authorization endpoint (RFC 8628 section 3.1). Raises as ``ask_tokens``."""
    scopes = connection["scopes"]
    form = {"client_id": connection["client_id"]}
    form |= {"scope": connection.provider.scope_separator.join(scopes)} if scopes else {}
    heard = await _post(context, connection, connection["device_url"], form, now)
    return _read(connection, heard, now)


async def end_token(context: Context, connection: Connection, token: str, hint: str, now: float) -> None:
    """End a token at its provider (RFC 7009). One that is not known there counts as ended.

    Raises:
        KeyholeError: that could not be done now.
    """
    form = {"token": token, "token_type_hint": hint}
    heard = await _post(context, connection, connection["revoke_url"], form, now)
    if heard.status not in {200, 204} and _error_code(connection, _object(heard)) not in {
        "invalid_token",
        "invalid_grant",
        "unsupported_token_type",
    }:
        raise _away(f"the revocation endpoint answered with status {heard.status}", heard, now).error()


def read_tokens(connection: Connection, heard: Heard, now: float) -> Answer:
    """What a token endpoint's answer means (RFC 6749, sections 5.1 and 5.2)."""
    data = _read(connection, heard, now)
    if isinstance(data, Declined | Away):
        return data
    refresh, access, why = data.get("refresh_token"), data.get("access_token"), ""
    kind = data.get("token_type", "bearer")
    if not isinstance(access, str) or not _TOKEN.fullmatch(access):
        why = "the token endpoint's answer has no access token that a header can carry"
    elif not isinstance(kind, str) or kind.lower() not in {"bearer", *connection.provider.token_types}:
        why = "the token endpoint gave a token of another type than bearer"
    fresh = refresh if isinstance(refresh, str) and _TOKEN.fullmatch(refresh) else ""
    if why and not fresh:
        return Away(why, lost=True)
    return Granted("" if why else str(access), _life(data.get("expires_in")), fresh, _scopes(data.get("scope")), why)


async def _post(context: Context, connection: Connection, url: str, form: Mapping[str, str], now: float) -> Heard:
    headers, whole = [("Accept", "application/json"), ("User-Agent", "keyhole")], dict(form)
    client, way = connection["client_id"], connection["client_auth"]
    if way == "basic":  # both are form-encoded first: RFC 6749 section 2.3.1
        pair = f"{quote_plus(client)}:{quote_plus(connection['client_secret'])}".encode()
        headers.append(("Authorization", f"Basic {base64.b64encode(pair).decode()}"))
    elif way != "none" or form.get("grant_type") != _JWT_BEARER:  # an assertion says itself whose it is
        whole["client_id"] = client
        if way == "post":
            whole["client_secret"] = connection["client_secret"]
        elif way == "private_key_jwt":
            claims = {"iss": client, "sub": client}
            whole |= {"client_assertion_type": _ASSERTION, "client_assertion": _signed(connection, claims, now)}
    as_json = connection.provider.json
    kind = "application/json" if as_json else "application/x-www-form-urlencoded"
    body = (json.dumps(whole) if as_json else urlencode(whole)).encode()
    return await context.net.ask(
        "POST",
        url,
        headers=[*headers, ("Content-Type", kind)],
        body=body,
        ca_pem=connection["ca_pem"],
        allow=connection.allow,
    )


def _signed(connection: Connection, claims: Mapping[str, Any], now: float) -> str:
    whole = {
        **claims,
        "aud": connection["audience"] or connection["token_url"],
        "jti": secrets.token_urlsafe(16),
        "iat": int(now) - _BACKDATED,
        "exp": int(now) + connection["lifetime"],
    }
    key = connection["private_key"].encode()
    try:
        return sign_jwt(key, connection["algorithm"], whole, key_id=connection["key_id"]).decode()
    except InvalidRequest:
        raise InvalidRequest(
            f"private_key is not a key for {connection['algorithm']}", "send the whole PEM, and say algorithm"
        ) from None


def _read(connection: Connection, heard: Heard, now: float) -> Mapping[str, Any] | Declined | Away:
    """The object of an answer, or the no in it; some providers say no with status 200."""
    data = _object(heard)
    code = _error_code(connection, data)
    if code and heard.status < 500 and code in _CONSENT | _DEFINITE | _WAITING:
        return Declined(code)
    if heard.status != 200 or data is None or code:
        said = f": {code}" if code else ""
        what = "an answer that is no JSON object" if heard.status == 200 and data is None else f"status {heard.status}"
        return _away(f"the provider's endpoint gave {what}{said}", heard, now)
    return data


def _object(heard: Heard) -> dict[str, Any] | None:
    try:
        return parse_object(heard.body, _BOUNDS) or None
    except InvalidRequest:
        return None


def _error_code(connection: Connection, data: Mapping[str, Any] | None) -> str:
    code = (data or {}).get("error")
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        return ""
    return connection.provider.errors.get(code, code)


def _away(reason: str, heard: Heard, now: float) -> Away:
    pause = _pause(heard.headers.get(b"retry-after", b"").decode("latin-1"), now)
    return Away(reason, pause, lost=heard.status == 200)


def _pause(text: str, now: float) -> int:
    """Seconds of a Retry-After (RFC 9110 section 10.2.3), bounded; 0 for none that can be read."""
    if text.isdecimal() and len(text) < 10:
        return min(int(text), _LONGEST_PAUSE)
    try:
        return min(max(int(parsedate_to_datetime(text).timestamp() - now), 0), _LONGEST_PAUSE)
    except (ValueError, TypeError, OverflowError):
        return 0


def _life(value: Any) -> float:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _LONGEST_LIFE:
        return 0.0
    return float(value)


def _scopes(value: Any) -> tuple[str, ...] | None:
    if isinstance(value, list):
        value = " ".join(each for each in value if isinstance(each, str))
    if not isinstance(value, str):
        return None
    found = [each for each in value.replace(",", " ").split()[:200] if each.isascii() and each.isprintable()]
    return tuple(dict.fromkeys(each[:256] for each in found))

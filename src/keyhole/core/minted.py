"""Kinds of injection that make a short-lived token with the secret, and kinds that attach nothing to a message. Pure.

What is sent with a call is the token; the secret itself goes to the token endpoint alone, or nowhere.
"""

from __future__ import annotations

import json
import re
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.kind import Kind, Option, header_name, template
from keyhole.core.url import parse_url

SIGNATURES = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519", "HS256", "HS512",
)  # fmt: skip
ENDPOINTS = ("token_url", "api", "login")  # options that name where the secret, or what it signs, goes instead
_TEXT = 512
_LONGEST = 3600
_TENANT = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,126}[A-Za-z0-9])?")
_CLAIMS = {"iss", "sub", "aud", "exp", "nbf", "iat", "jti"}
_HEADER = (
    Option("name", header_name, "authorization", "header that carries the token"),
    Option("template", template, "Bearer {}", "text of the header, with one {}"),
)


def _text(value: Any) -> str:
    text = "" if value is None else str(value) if isinstance(value, str | int) else "\n"
    if not text.isprintable() or len(text) > _TEXT:
        raise InvalidRequest(f"an option of the injection is not a text of at most {_TEXT} visible characters")
    return text


def _required(value: Any) -> str:
    text = _text(value)
    if not text:
        raise InvalidRequest("an option that the injection needs is missing", "keyhole service add --help")
    return text


def _url(value: Any) -> str:
    scheme, authority, target = parse_url(_required(value))
    if scheme != "https" or b"?" in target:
        raise InvalidRequest("a token endpoint is an https URL without a query")
    return f"https://{authority}{target.decode()}"


def _number(value: Any) -> str:
    text = _required(value)
    if not re.fullmatch(r"[0-9]{1,20}", text):
        raise InvalidRequest(
            "an installation is named by its number", "it stands at the end of the URL of its settings"
        )
    return text


def _seconds(value: Any) -> int:
    if isinstance(value, bool) or not str(value).isdecimal() or not 10 <= int(value) <= _LONGEST:
        raise InvalidRequest(f"a life is a number of seconds from 10 to {_LONGEST}")
    return int(value)


def _tenant(value: Any) -> str:
    text = _required(value)
    if not _TENANT.fullmatch(text):
        raise InvalidRequest("a tenant is a GUID or a domain", "look at it in the portal, under Overview")
    return text


def _one_of(*known: str) -> Any:
    def check(value: Any) -> str:
        if value not in known:
            raise InvalidRequest(f"{str(value)[:40]!r} is not one of {', '.join(known)}")
        return str(value)

    return check


def _texts(value: Any) -> tuple[str, ...]:
    items = value.replace(",", " ").split() if isinstance(value, str) else value or ()
    if not isinstance(items, list | tuple) or len(items) > 64:
        raise InvalidRequest("an option of the injection is not a list of at most 64 texts")
    return tuple(_required(item) for item in items)


def _object(value: Any) -> str:
    """A JSON object as text, sorted; given as one or as such a text."""
    try:
        data = json.loads(value) if isinstance(value, str) else value
        if not isinstance(data, dict):
            raise InvalidRequest("claims are a JSON object", 'for example {"scope": "read"}')
        text = json.dumps(data, sort_keys=True, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        raise InvalidRequest("claims are a JSON object", 'for example {"scope": "read"}') from None
    if len(text) > 4096 or _CLAIMS & data.keys():
        raise InvalidRequest("claims are at most 4096 characters; iss, sub, aud and the times are not among them")
    return text


def _stand_in(value: Any) -> str:
    text = _required(value)
    if len(text) < 16 or " " in text or not text.isascii():
        raise InvalidRequest("a placeholder for a token is 16 or more visible ASCII characters")
    return text


MINTED: dict[str, Kind] = {
    "jwt": Kind(
        "a JWT signed with the secret (RFC 7519), as a bearer token",
        lambda how: f"{how['name']}: {how['template'].replace('{}', '(a JWT of ' + how['issuer'] + ')')}",
        (
            Option("algorithm", _one_of(*SIGNATURES), "RS256", "how it is signed"),
            Option("issuer", _text, "", "claim iss"),
            Option("subject", _text, "", "claim sub"),
            Option("audience", _text, "", "claim aud"),
            Option("key_id", _text, "", "header kid"),
            Option("claims", _object, "{}", "further claims, a JSON object"),
            Option("lifetime", _seconds, 300, "seconds that a token lives"),
            *_HEADER,
        ),
        keeps=True,
    ),
    "github-app": Kind(
        "an installation token of a GitHub App",
        lambda how: f"authorization: {how['as']} (a token of installation {how['installation_id']})",
        (
            Option("app_id", _required, help="the App's id or client id"),
            Option("installation_id", _number, help="number of the installation"),
            Option("repositories", _texts, (), "names of the only repositories that the token opens"),
            Option("permissions", _object, "{}", 'the only permissions it has, as {"contents": "read"}'),
            Option("api", _url, "https://api.github.com/", "root of the API"),
            Option("as", _one_of("bearer", "basic"), "bearer", "basic for git over HTTPS"),
        ),
        keeps=True,
    ),
    "gcp": Kind(
        "an access token of a Google service account",
        lambda how: f"authorization: Bearer (a token for {' '.join(how['scopes']) or how['id_token']})",
        (
            Option("scopes", _texts, ("https://www.googleapis.com/auth/cloud-platform",), "OAuth scopes"),
            Option("subject", _text, "", "user to act as, with domain-wide delegation"),
            Option("id_token", _text, "", "make an ID token for this audience instead"),
            Option("token_url", _url, "https://oauth2.googleapis.com/token", "token endpoint"),
        ),
        keeps=True,
    ),
    "client-credentials": Kind(
        "an OAuth 2.0 access token by client credentials (RFC 6749, section 4.4)",
        lambda how: f"{how['name']}: {how['template'].replace('{}', '(a token of ' + how['token_url'] + ')')}",
        (
            Option("token_url", _url, help="token endpoint"),
            Option("client_id", _text, "", "unless it is a field of the secret"),
            Option("scope", _text, "", "scopes, with spaces between"),
            Option("audience", _text, "", "parameter audience"),
            Option("auth", _one_of("post", "basic"), "post", "where the client's secret stands"),
            *_HEADER,
        ),
        fields=(("client_id", "client_secret"),),
        keeps=True,
    ),
    "azure": Kind(
        "an access token of Microsoft Entra ID for an application",
        lambda how: f"authorization: Bearer (a token of {how['client_id']} in {how['tenant']})",
        (
            Option("tenant", _tenant, help="directory (tenant) id or domain"),
            Option("client_id", _required, help="application (client) id"),
            Option("scope", _text, "", "https://HOST/.default unless said"),
            Option("login", _url, "https://login.microsoftonline.com/", "authority host"),
        ),
        keeps=True,
    ),
    "mtls": Kind("as the client's certificate (TLS)", lambda _: "the client's certificate of the connection"),
    "none": Kind("not at all: the destination is allowed and gets nothing", lambda _: "nothing", secretless=True),
    "stand-in": Kind(
        "nothing is sent: an SDK that asks for a token is answered with a placeholder",
        lambda how: f"answered here with the token {how['text']}",
        (
            Option("text", _stand_in, help="the placeholder"),
            Option("lifetime", _seconds, _LONGEST, "expires_in of the answer"),
        ),
        secretless=True,
        answers=True,
    ),
}

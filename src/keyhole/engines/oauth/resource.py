"""A connection for a protected resource: who gives tokens for it is asked of the resource itself, then of that issuer.

1. The resource is asked without a token. What it answers, or what lies at its well-known places, names the issuers
   (RFC 9728); it has to be the document of this very resource.
2. The issuer's own document (RFC 8414, OpenID Connect Discovery) names the endpoints. It has to call itself as it was
   called, and to take PKCE with S256: without a word of it nothing is begun.
3. A client that nobody has given is registered (RFC 7591), and is used at this issuer alone.

What a document names is never dialled because its reader is trusted, only where ``allow_addresses`` says the address.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from keyhole.core.audience import covers, host_of
from keyhole.core.challenge import Challenge, parse_challenge, parse_scopes
from keyhole.core.errors import InvalidRequest, PolicyDenied, TargetFailed
from keyhole.core.fields import parse_text, parse_texts
from keyhole.core.request import Reply
from keyhole.core.strict_json import JsonBounds, parse_object
from keyhole.engines import Call, Context, Field
from keyhole.engines.oauth import connection as connections
from keyhole.engines.oauth import managing
from keyhole.engines.oauth.connection import SETTINGS, Connection
from keyhole.engines.oauth.discovery import REQUIRES_ISSUER, endpoints, fetched, published, well_known
from keyhole.engines.outside import is_trusted
from keyhole.engines.settings import read as read_settings

FIELDS = (
    Field("url", "of the resource, such as the endpoint of a server of tools", "string"),
    Field("redirect_uri", "where the browser will come back to; a client is registered with it", "string"),
    Field("scopes", "that are wanted besides those that the resource asks for and those of before", "list"),
    Field("issuer", "who is to give the tokens, where the resource names several or none", "string"),
    Field("client_id", "of a client that the issuer knows; one is registered where there is none", "string"),
    Field("client_secret", "of that client", "string"),
    Field("server", "of tools that it is for", "string"),
    Field("allow_addresses", "networks that may be dialled although they are private; they take sudo", "list"),
    Field("ca_pem", "certificates that alone prove who is asked, instead of those of the system", "string"),
)
_BOUNDS = JsonBounds(depth=16, string=64 * 1024, items=5000)
_PROBE = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}).encode()
_KINDS = [("Content-Type", "application/json"), ("Accept", "application/json, text/event-stream")]
_ERROR = re.compile(r"[a-z_]{1,40}")
_CLIENT = re.compile(r"[\x20-\x7e]{1,2048}")
_SECRET = re.compile(r"[\x20-\x7e]{0,4096}")
_AUTH = {"none": "none", "client_secret_basic": "basic", "client_secret_post": "post"}
_MOST_ISSUERS = 20
OFFLINE = "offline_access"


@dataclass(frozen=True, slots=True)
class _Asking:
    """How servers are asked here."""

    context: Context
    ca_pem: str
    allow: tuple[str, ...]

    async def document(self, url: str) -> Mapping[str, Any] | None:
        return await fetched(self.context, url, self.ca_pem, self.allow)


@dataclass(frozen=True, slots=True)
class _Client:
    """A client of an issuer. ``registered`` is empty for one that somebody gave."""

    id: str
    auth: str
    secret: str | None = None
    registered: Mapping[str, Any] | None = None


async def connect(context: Context, call: Call) -> Reply:
    """Makes a connection for a resource, or brings it up to what the resource wants now. A consent has to follow."""
    name, url = managing.read_name(call.params), parse_text(call.data.get("url"), "url", most=2048)
    allow = tuple(parse_texts(call.data.get("allow_addresses"), "allow_addresses", most=100))
    if allow and not is_trusted(context, call):
        raise PolicyDenied("allow_addresses take sudo", "ask an administrator")
    item = await context.storage.get_one(f"c/{name}")
    before = connections.read(name, item) if item.data is not None else None
    if before is not None and not before["resource"]:
        raise InvalidRequest("the connection of this name is for no resource", "choose another name")
    host_of(url)
    asking = _Asking(context, parse_text(call.data.get("ca_pem"), "ca_pem"), allow)
    challenge = await _asked(asking, url)
    described = await _described(asking, url, challenge)
    issuer = _issuer(call, before, described)
    document = await published(context, issuer, well_known(issuer), asking.ca_pem, allow)
    _require_pkce(document)
    same = before is not None and before["issuer"] == issuer
    client = await _client(asking, call, before if same else None, document)
    resource = str(described.get("resource") or url)
    given = read_settings(SETTINGS, {}, before["given"] if before is not None and same else None)
    given |= {key: text for key, text in endpoints(document).items() if key in given}
    given |= {
        "issuer": issuer,
        "resource": resource,
        "grant": "authorization_code",
        "client_id": client.id,
        "client_auth": client.auth,
        "scopes": _scopes(call, before, resource, challenge, described, document),
        "server": parse_text(call.data.get("server"), "server", most=64),
        "allow_addresses": list(allow),
        "ca_pem": asking.ca_pem,
    }
    data = {**given, "given": given, "allow": [], "iss_required": document.get(REQUIRES_ISSUER) is True}
    data["registered"] = dict(client.registered or {})
    sent = call.but(data={} if client.secret is None else {"client_secret": client.secret})
    data = await managing.complete(context, sent, before if same else None, data)
    return await managing.store(context, sent, name, item.revision, before, data)


async def _asked(asking: _Asking, url: str) -> Challenge:
    """What the resource says to a request without a token."""
    heard = await asking.context.net.ask(
        "POST", url, headers=_KINDS, body=_PROBE, ca_pem=asking.ca_pem, allow=list(asking.allow)
    )
    if heard.status != 401:
        return Challenge()
    return parse_challenge(heard.headers.get(b"www-authenticate", b"").decode("latin-1"))


async def _described(asking: _Asking, url: str, challenge: Challenge) -> Mapping[str, Any]:
    """The document of the resource (RFC 9728, section 3); empty where it publishes none."""
    parts = urlsplit(url)
    base = f"{parts.scheme}://{parts.netloc}/.well-known/oauth-protected-resource"
    path = parts.path.rstrip("/")
    places = [challenge.resource_metadata] if challenge.resource_metadata else [f"{base}{path}", base]
    for place in dict.fromkeys(places):
        document = await asking.document(place)
        if document is None:
            continue
        resource = document.get("resource")
        if not isinstance(resource, str) or not covers(resource, url):  # RFC 9728, section 3.3
            raise InvalidRequest(
                "what is published there is of another resource, so a token for it would be none for this one",
                "ask who runs the server",
            )
        return document
    return {}


def _issuer(call: Call, before: Connection | None, described: Mapping[str, Any]) -> str:
    """Who is to give the tokens: the one that was said or used before, where the resource names it too."""
    wanted = parse_text(call.data.get("issuer"), "issuer", most=2048)
    listed = described.get("authorization_servers")
    named = [each for each in listed if isinstance(each, str)][:_MOST_ISSUERS] if isinstance(listed, list) else []
    if not described and wanted:
        return wanted  # RFC 9728 knows nothing of it, so the person has to
    if not named:
        raise InvalidRequest("the resource names nobody who gives tokens for it", "say --issuer URL")
    if wanted and wanted not in named:
        raise InvalidRequest(
            "the resource does not name this issuer, so no token of it is sent there", "leave --issuer out"
        )
    if wanted or before is None:
        return wanted or named[0]
    if before["issuer"] in named:
        return str(before["issuer"])
    if not before["registered"] and not call.data.get("client_id"):  # a client is its issuer's
        raise InvalidRequest(
            "the resource names other issuers than the one that knows this client", "give a client of theirs"
        )
    return named[0]


def _require_pkce(document: Mapping[str, Any]) -> None:
    methods = document.get("code_challenge_methods_supported")
    if not isinstance(methods, list) or "S256" not in methods:
        raise InvalidRequest(
            "the issuer does not say that it takes PKCE with S256, so a code could be stolen",
            "ask who runs it to publish code_challenge_methods_supported",
        )


def _scopes(
    call: Call,
    before: Connection | None,
    resource: str,
    challenge: Challenge,
    described: Mapping[str, Any],
    document: Mapping[str, Any],
) -> list[str]:
    """Those of before and those that are wanted now; else what the resource asks for, or says that there is."""
    more = parse_scopes(parse_texts(call.data.get("scopes"), "scopes", most=50))
    had = before["scopes"] if before is not None and before["resource"] == resource else ()
    first = challenge.scopes or parse_scopes(described.get("scopes_supported"))
    offline = (OFFLINE,) if OFFLINE in parse_scopes(document.get("scopes_supported")) else ()
    return list(dict.fromkeys((*(had or first), *challenge.scopes, *more, *offline)))


async def _client(asking: _Asking, call: Call, before: Connection | None, document: Mapping[str, Any]) -> _Client:
    """The client that was given, else the one of before at the same issuer, else a new one."""
    said, secret = (parse_text(call.data.get(each), each, most=4096) for each in ("client_id", "client_secret"))
    if said:
        return _Client(said, _methods(document, secret=True)[0] if secret else "none", secret)
    if before is not None and not before["registered"]:
        return _Client(before["client_id"], before["client_auth"], secret or None)
    redirect = parse_text(call.data.get("redirect_uri"), "redirect_uri", most=2048)
    if before is not None:
        known = before["registered"]
        if known["redirect_uri"] == redirect and not 0 < known["until"] <= asking.context.now:
            return _Client(before["client_id"], before["client_auth"], None, known)
    return await _registered(asking, redirect, document)


async def _registered(asking: _Asking, redirect: str, document: Mapping[str, Any]) -> _Client:
    """Register one (RFC 7591, section 3)."""
    url = document.get("registration_endpoint")
    if not isinstance(url, str) or not redirect:
        raise InvalidRequest(
            "the issuer registers no clients by itself", "register one there by hand, and say --client-id"
        )
    wanted = {
        "client_name": "Keyhole",
        "redirect_uris": [redirect],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": next(
            each for each, way in _AUTH.items() if way == _methods(document, secret=False)[0]
        ),
        "application_type": "native",
    }
    heard = await asking.context.net.ask(
        "POST", url, headers=_KINDS, body=json.dumps(wanted).encode(), ca_pem=asking.ca_pem, allow=list(asking.allow)
    )
    try:
        said = parse_object(heard.body, _BOUNDS)
    except InvalidRequest:
        said = {}
    if heard.status not in {200, 201}:
        code = said.get("error")
        why = f": {code}" if isinstance(code, str) and _ERROR.fullmatch(code) else ""
        raise TargetFailed(
            f"the issuer registers no client for us{why}", "register one there by hand, and say --client-id"
        )
    client, secret = said.get("client_id"), said.get("client_secret") or ""
    auth = _AUTH.get(str(said.get("token_endpoint_auth_method") or wanted["token_endpoint_auth_method"]))
    until = said.get("client_secret_expires_at") or 0
    right = isinstance(client, str) and _CLIENT.fullmatch(client) and isinstance(secret, str)
    if not right or not _SECRET.fullmatch(secret) or auth is None or not isinstance(until, int) or until < 0:
        raise TargetFailed("what the issuer says of the client that it registered cannot be used", "say --client-id")
    if auth == "none":
        secret = ""
    return _Client(str(client), auth, secret, {"redirect_uri": redirect, "until": until if secret else 0})


def _methods(document: Mapping[str, Any], *, secret: bool) -> list[str]:
    """How a client may prove itself to the token endpoint, as far as we can, the simplest first."""
    listed = document.get("token_endpoint_auth_methods_supported")
    ways = {name: way for name, way in _AUTH.items() if not secret or way != "none"}
    found = [way for name, way in ways.items() if not isinstance(listed, list) or name in listed]
    return found or list(ways.values())


async def limits(context: Context, name: str) -> tuple[tuple[str, ...], ...]:
    """Where alone tokens of a connection may go: the host of its resource (``Engine.hosts``)."""
    resource = await audience(context, name)
    return ((urlsplit(resource).netloc,),) if resource else ()


async def audience(context: Context, name: str) -> str:
    """The resource of a connection; empty for none (``Engine.audience``)."""
    found = await connections.load(context, name)
    return str(found["resource"]) if found is not None else ""

"""``connections/NAME``: made, shown, changed and removed. A client's secret is never shown again.

A secret goes to the servers for which it was given: where an endpoint changes, it has to be sent again, and the tokens
that the old one gave are ended there.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from keyhole.core.audience import host_of
from keyhole.core.errors import InvalidRequest, NotFound, PolicyDenied
from keyhole.core.fields import parse_text
from keyhole.core.request import Reply
from keyhole.engines import Call, Context, Writing
from keyhole.engines.oauth import connection as connections
from keyhole.engines.oauth import tokens as stored
from keyhole.engines.oauth.connection import (
    CLIENT_SECRET,
    PRIVATE_KEY,
    REFRESH_TOKEN,
    SECRETS,
    SETTINGS,
    URLS,
    Connection,
)
from keyhole.engines.oauth.discovery import REQUIRES_ISSUER, discover
from keyhole.engines.oauth.ending import end_now, to_end
from keyhole.engines.oauth.providers import named
from keyhole.engines.oauth.refreshing import state
from keyhole.engines.oauth.tokens import CONNECTED, REFUSED, Tokens, path_of
from keyhole.engines.outside import is_trusted
from keyhole.engines.settings import read as read_settings
from keyhole.net.ask import parse_https

_NAME = re.compile(r"\w(?:[\w.-]{0,126}\w)?", re.ASCII)
_TAKEN = frozenset({"connections", "providers", "callback", "token"})  # segments of paths of this engine
_ASKED = ("token_url", "device_url", "revoke_url")
_IDENTITY = (*URLS, "client_id", "grant", "resource")
_TOKEN = re.compile(r"[\x21-\x7e]{1,16384}")
_PAGE = 100
_LINES = frozenset({"ca_pem", "private_key", "given"})


def read_name(params: Mapping[str, str]) -> str:
    """The name in the path. Raises ``InvalidRequest``."""
    name = params["name"]
    if not _NAME.fullmatch(name) or name in _TAKEN:
        raise InvalidRequest("a name has letters, digits, _, . and -", "choose another name")
    return name


async def exists(context: Context, params: Mapping[str, str]) -> bool:
    """Is there one of this name?"""
    return await connections.load(context, params["name"]) is not None


async def write(context: Context, call: Call) -> Reply:
    """Makes a connection, or changes what is sent of one."""
    name = read_name(call.params)
    item = await context.storage.get_one(f"c/{name}")
    before = connections.read(name, item) if item.data is not None else None
    call.require_new(stored=before is not None)
    return await store(context, call, name, item.revision, before, await _merged(context, call, before))


async def store(
    context: Context, call: Call, name: str, at: int, before: Connection | None, data: dict[str, Any]
) -> Reply:
    """Put a connection in the place of what was there at a revision, whose tokens end where it is another account."""
    held, revision = await stored.load(context, name)
    writes: list[Writing] = []
    ending = ""
    if before is not None and data["id"] != before["id"]:
        ending, writes = to_end(before, held, context.now)
        held = Tokens()
    connection = Connection(name, data, at)
    held = _with_import(call, connection, held, context.now)
    stands = (f"c/{name}", json.dumps(data).encode(), at)
    due = held.due(renewable=bool(held.refresh) or not connection.by_person)
    await context.storage.change([stands, (path_of(name), held.encode(), revision, due), *writes])
    why = await end_now(context, ending) if ending else ""
    return Reply(_shown(connection, held, context.now), warnings=[_not_ended(why)] if why else [])


def _not_ended(why: str) -> str:
    return f"the old token could not be ended at its provider yet, which is tried again: {why}"


def _with_import(call: Call, connection: Connection, held: Tokens, now: float) -> Tokens:
    """The tokens after a write: with a refresh token that came with it, and tried again where a client was refused."""
    refresh = REFRESH_TOKEN.parse(call.data.get("refresh_token"), "refresh_token").strip()
    if refresh:
        if connection["grant"] != "refresh_token" or not _TOKEN.fullmatch(refresh):
            raise InvalidRequest("refresh_token is for the grant refresh_token", 'send {"grant": "refresh_token", …}')
        return Tokens(refresh=refresh, family=secrets.token_hex(8), status=CONNECTED, obtained=now)
    if connection["grant"] == "refresh_token" and not held.refresh:
        raise InvalidRequest("the grant refresh_token needs a refresh token", "send refresh_token")
    if held.status == REFUSED and held.claimed <= now:
        return stored.forgiven(held)
    return held


async def _merged(context: Context, call: Call, before: Connection | None) -> dict[str, Any]:
    """What is to be stored: what was sent over what was there, with endpoints from the catalog or the issuer."""
    given = read_settings(SETTINGS, call.data, before["given"] if before is not None else None)
    data: dict[str, Any] = {**given, "given": given, "allow": [], "iss_required": False, "registered": {}}
    if before is not None and before["issuer"] and before["issuer"] == data["issuer"]:
        data |= {"iss_required": before["iss_required"], "registered": before["registered"]}
    return await complete(context, call, before, data)


async def complete(context: Context, call: Call, before: Connection | None, data: dict[str, Any]) -> dict[str, Any]:
    """The same with the client's secrets, after all of it was judged. Raises ``InvalidRequest``."""
    for setting in (CLIENT_SECRET, PRIVATE_KEY):
        old = before[setting.name] if before is not None else ""
        sent = call.data.get(setting.name)
        data[setting.name] = old if sent is None else setting.parse(sent, setting.name)
    _require_printable(data)
    if data["resource"]:
        host_of(data["resource"])
    if not data["client_id"]:
        raise InvalidRequest("client_id is missing", "it stands beside the client's secret at the provider")
    await _find_endpoints(context, call, data)
    data["grant"] = data["grant"] or "authorization_code"
    data["client_auth"] = _client_auth(data)
    _require_complete(data)
    if before is not None:
        _require_secrets(call, data, before)
    same = before is not None and all(before[name] == data[name] for name in _IDENTITY)
    data["id"] = before["id"] if before is not None and same else secrets.token_hex(8)
    return data


async def _find_endpoints(context: Context, call: Call, data: dict[str, Any]) -> None:
    provider, trusted = named(data["provider"]), is_trusted(context, call)
    urls = provider.urls(data["parameters"])
    found = {name if name == "issuer" else f"{name}_url": url for name, url in urls.items()}
    if data["issuer"]:
        host = _host(data["issuer"], "issuer", trusted=trusted)
        if not data["provider"] and not data["token_url"]:
            allow = data["allow_addresses"] if data["resource"] else [host] if trusted else []
            published = await discover(context, data["issuer"], data["ca_pem"], allow)
            data["iss_required"] = published[REQUIRES_ISSUER]
            found |= {name: published[name] for name in URLS if name in published}
    for name in (*URLS, "issuer"):
        data[name] = data[name] or found.get(name, "")
    data["authorize_params"] = {**provider.authorize_params, **data["authorize_params"]}
    if data["allow_addresses"] and not (trusted and data["resource"]):
        raise PolicyDenied("allow_addresses are for a resource, and take sudo", "ask an administrator")
    plain = data["allow_addresses"] if data["resource"] else None
    hosts = [_host(data[name], name, trusted=trusted, plain=plain) for name in URLS if data[name]]
    # What a resource names itself is not what somebody has judged, so that sudo alone opens nothing for it.
    data["allow"] = plain if plain is not None else sorted(set(hosts)) if trusted else []


def _host(url: str, name: str, *, trusted: bool, plain: Sequence[str] | None = None) -> str:
    """The host of an endpoint; ``http`` is for this machine, by who has ``sudo``. Raises ``InvalidRequest``."""
    if plain is None:
        found = re.match(r"http://(\[[0-9a-fA-F:.]+\]|[^/:@?#]+)", url)
        plain = [found[1].strip("[]").lower()] if trusted and found else ()
    try:
        return parse_https(url, plain=plain).host
    except InvalidRequest as error:
        raise InvalidRequest(f"{name}: {error.reason}", error.hint) from None


def _require_printable(data: Mapping[str, Any]) -> None:
    """Raises ``InvalidRequest`` for a text that could stand in no URL or request."""
    for name, value in data.items():
        texts = [value] if isinstance(value, str) else [*value, *value.values()] if isinstance(value, dict) else value
        if name in _LINES or not isinstance(texts, list):
            continue
        if not all(text.isprintable() for text in texts if isinstance(text, str)):
            raise InvalidRequest(f"{name} has a line break or another character that is not printable", "look at it")


def _client_auth(data: Mapping[str, Any]) -> str:
    said, fits = data["client_auth"], named(data["provider"]).client_auth or "basic"
    if said:
        return str(said)
    if data["client_secret"]:
        return fits
    return "private_key_jwt" if data["private_key"] and data["grant"] != "jwt_bearer" else "none"


def _require_complete(data: Mapping[str, Any]) -> None:
    """Raises ``InvalidRequest`` that names what a grant or a way of authentication needs besides."""
    needs = {
        "authorization_code": ("authorize_url", "token_url"),
        "device_code": ("device_url", "token_url"),
        "jwt_bearer": ("token_url", "private_key"),
    }.get(data["grant"], ("token_url",))
    ways = {"basic": ("client_secret",), "post": ("client_secret",), "private_key_jwt": ("private_key",)}
    for name in (*needs, *ways.get(data["client_auth"], ())):
        if not data[name]:
            raise InvalidRequest(f"{name} is missing for {data['grant']}", "see docs/oauth.md")
    if data["grant"] == "client_credentials" and data["client_auth"] == "none":
        raise InvalidRequest("client_credentials needs client_secret or private_key", "send one of them")
    for uri in data["redirect_uris"]:
        if "#" in uri or "?" in uri or not uri.startswith(("https://", "http://")):
            raise InvalidRequest("a redirect URI is https:// without query and fragment", "as the provider knows it")


def _require_secrets(call: Call, data: Mapping[str, Any], before: Connection) -> None:
    changed = [name for name in _ASKED if data[name] != before[name] and data[name]]
    if not changed:
        return
    for name in SECRETS:
        if before[name] and not parse_text(call.data.get(name), name):
            raise InvalidRequest(f"{changed[0]} was changed without {name}", f"send {name} again with it")


async def read(context: Context, call: Call) -> Reply:
    """A connection and how it stands, without a value."""
    name = call.params["name"]
    found = await connections.load(context, name)
    if found is None:
        raise NotFound("there is no such connection", "keyhole oauth list")
    held, _ = await stored.load(context, name)
    return Reply(_shown(found, held, context.now))


def _shown(connection: Connection, held: Tokens, now: float) -> dict[str, Any]:
    return {"name": connection.name, **connection.shown(), **state(connection, held, now)}


async def list_names(context: Context, _call: Call) -> Reply:
    """Names of connections, and how each stands."""
    names = list(await context.storage.list("c"))
    if not names:
        raise NotFound("there are no connections", "keyhole oauth add NAME --provider …")
    shown = {}
    for start in range(0, len(names), _PAGE):
        part = names[start : start + _PAGE]
        items = await context.storage.get(*(f"c/{name}" for name in part), *map(path_of, part))
        for name, item, held in zip(part, items, items[len(part) :], strict=False):
            if item.data is not None:
                found = connections.read(name, item)
                how = state(found, stored.decode(held.data), context.now)
                shown[name] = {"provider": found["provider"] or _site(found), "grant": found["grant"], **how}
    return Reply({"keys": list(shown), "key_info": shown})


def _site(connection: Connection) -> str:
    return parse_https(connection["token_url"], plain=connection.allow).host


async def delete(context: Context, call: Call) -> Reply | None:
    """Removes a connection, and ends its tokens at the provider."""
    found = await connections.load(context, call.params["name"])
    if found is None:
        return None
    return await _take_out(context, found, forget=True)


async def disconnect(context: Context, call: Call) -> Reply:
    """Ends the tokens of a connection at its provider and forgets them; the connection stays."""
    found = await connections.load(context, call.params["name"])
    if found is None:
        raise NotFound("there is no such connection", "keyhole oauth list")
    return await _take_out(context, found, forget=False)


async def _take_out(context: Context, connection: Connection, *, forget: bool) -> Reply:
    name = connection.name
    paths = [path_of(name), f"d/{name}", *([f"c/{name}"] if forget else [])]
    items = await context.storage.get(*paths)
    held = stored.decode(items[0].data)
    ending, writes = to_end(connection, held, context.now)
    gone = [(path, item.revision) for path, item in zip(paths, items, strict=True) if item.data is not None]
    await context.storage.change(writes, gone, [] if forget else [(f"c/{name}", connection.revision)])
    why = await end_now(context, ending) if ending else ""
    warnings = [_not_ended(why)] if why else []
    if (held.refresh or held.access) and not ending:
        warnings = ["its provider has no endpoint that ends tokens: end it in the settings of the account there"]
    return Reply({"name": name, "ended_at_provider": bool(ending) and not why}, warnings=warnings)

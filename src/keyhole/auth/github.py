"""GitHub: people log in with a token of theirs, of an organization that the mount names.

GitHub, or an Enterprise server of it, is asked whose token it is and which organizations and teams that person is in.
The token goes nowhere else and is not kept. Fields and texts are those of Vault's method.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from typing import Any

from keyhole.auth import settings
from keyhole.auth.guesses import Guesses
from keyhole.auth.outside import asked_host, entity_name
from keyhole.auth.settings import Setting, text
from keyhole.core.cidr import within
from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.numbers import parse_count
from keyhole.core.policy import ROOT
from keyhole.core.request import Operation, Reply
from keyhole.core.strict_json import JsonBounds, parse_json
from keyhole.engines import Call, Context, Engine, Field, InvalidForVault, Route
from keyhole.engines.outside import is_trusted

DEFAULT_URL = "https://api.github.com"
_BOUNDS = JsonBounds(depth=16, string=65536, items=50_000)
_LOGIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,98}[A-Za-z0-9])?")
_TOKEN = re.compile(r"[A-Za-z0-9_.~+/=-]{4,512}")
_LONGEST = 100
_PAGE = 100
_PAGES = 10  # organizations and teams of one person that are looked at
CONFIG = (
    Setting("organization", text, "", "the organization whose members may log in"),
    Setting("organization_id", parse_count, 0, "its number, which stays when it is renamed"),
    Setting("base_url", text, "", f"API of an Enterprise server; {DEFAULT_URL} unless said"),
    *settings.TOKEN,
)
_MAPS = ("teams", "users")


class _Method:
    """The handlers of a mount."""

    def __init__(self, guesses: Guesses) -> None:
        self._guesses = guesses

    async def write_config(self, context: Context, call: Call) -> None:
        item = await context.storage.get_one("config")
        before = json.loads(item.data) if item.data is not None else {}
        after = settings.merge(CONFIG, call.data, before)
        if not after["organization"]:
            raise InvalidRequest("organization is a required parameter", '"organization": "NAME"')
        settings.require_grantable(context.caller, call.path, before, after)
        after["allow"] = []
        if after["base_url"]:
            trusted = is_trusted(context, call)
            host = asked_host(after["base_url"], "base_url", trusted=trusted)
            after["allow"] = [host] if trusted else []
        await context.storage.change([("config", json.dumps(after).encode(), item.revision)])

    async def read_config(self, context: Context, _call: Call) -> Reply:
        item = await context.storage.get_one("config")
        if item.data is None:
            raise NotFound("nothing was configured")
        return Reply(settings.show(CONFIG, json.loads(item.data)))

    async def write_map(self, context: Context, call: Call) -> None:
        path = _path(call)
        item = await context.storage.get_one(path)
        before = {"token_policies": json.loads(item.data) if item.data is not None else []}
        after = {"token_policies": _policies(call.data.get("value") or "")}
        settings.require_grantable(context.caller, call.path, before, after)
        await context.storage.change([(path, json.dumps(after["token_policies"]).encode(), item.revision)])

    async def read_map(self, context: Context, call: Call) -> Reply:
        item = await context.storage.get_one(_path(call))
        mapped = json.loads(item.data) if item.data is not None else []
        return Reply({"key": call.params["name"].lower(), "value": ",".join(mapped)})

    async def delete_map(self, context: Context, call: Call) -> None:
        item = await context.storage.get_one(_path(call))
        if item.data is not None:
            await context.storage.change((), [(_path(call), item.revision)])

    async def list_map(self, context: Context, call: Call) -> Reply:
        keys = await context.storage.list(f"map/{call.params['kind']}") if call.params["kind"] in _MAPS else []
        if not keys:
            raise NotFound("nothing is mapped")
        return Reply({"keys": list(keys)})

    async def login(self, context: Context, call: Call) -> Reply:
        token = call.data.get("token")
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise InvalidRequest("missing token", 'send {"token": "…"}')
        with self._guesses.one(call.remote, context.now):
            item = await context.storage.get_one("config")
            if item.data is None:
                raise _refused()
            config = json.loads(item.data)
            if config["token_bound_cidrs"] and not within(call.remote, config["token_bound_cidrs"]):
                raise _refused()
            user = await _ask(context, config, token, "/user")
            name = user.get("login") if isinstance(user, dict) else None
            if not isinstance(name, str) or not _LOGIN.fullmatch(name):
                raise _refused()
            organization = await _organization(context, config, token)
            found = [f"map/users/{name.lower()}"]
            found += [f"map/teams/{team}" for team in await _teams(context, config, token, organization)]
            mapped = {each for item in await context.storage.get(*found) if item.data for each in json.loads(item.data)}
            mapped.discard(ROOT)
            meta = {"org": organization["login"], "username": name}
            made = settings.login_of(entity_name("github", name), config, meta, alias=name, alias_meta=meta)
            return Reply(login=made._replace(policies=tuple(sorted({*made.policies, *mapped}))))


def _policies(value: Any) -> list[str]:
    """Names of policies. ``root`` may stand among them, as in Vault, and is given to nobody."""
    parts = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    others = [part for part in parts if part != ROOT] if isinstance(parts, list) else parts
    named = settings.policies(others, "value")
    return sorted([*named, ROOT]) if isinstance(parts, list) and len(others) < len(parts) else named


def _path(call: Call) -> str:
    kind, name = call.params["kind"], call.params["name"].lower()
    if kind not in _MAPS:
        raise NotFound("unsupported path", "map/teams or map/users")
    if not 0 < len(name) <= _LONGEST or not name.isprintable():
        raise InvalidRequest("this cannot be the name of a team or user")
    return f"map/{kind}/{name}"


async def _organization(context: Context, config: Mapping[str, Any], token: str) -> dict[str, str]:
    """The organization of the mount, if the person is in it. By its number, where that is known."""
    async for each in _pages(context, config, token, "/user/orgs"):
        number, login = each.get("id"), each.get("login")
        if not isinstance(login, str) or not isinstance(number, int) or isinstance(number, bool):
            continue
        wanted = config["organization_id"]
        if number == wanted or (not wanted and login.lower() == config["organization"].lower()):
            return {"login": login, "id": str(number)}
    raise _refused()


async def _teams(context: Context, config: Mapping[str, Any], token: str, organization: Mapping[str, str]) -> list[str]:
    """Names and slugs of the person's teams in the organization, in lower case."""
    found = set()
    async for each in _pages(context, config, token, "/user/teams"):
        owner = each.get("organization")
        if not isinstance(owner, dict) or str(owner.get("id")) != organization["id"]:
            continue
        names = (each.get("name"), each.get("slug"))
        found |= {name.lower() for name in names if isinstance(name, str) and 0 < len(name) <= _LONGEST}
    return sorted(name for name in found if name.isprintable() and "/" not in name)


async def _pages(
    context: Context, config: Mapping[str, Any], token: str, path: str
) -> AsyncIterator[Mapping[str, Any]]:
    for page in range(1, _PAGES + 1):
        more = f"&page={page}" if page > 1 else ""
        found = await _ask(context, config, token, f"{path}?per_page={_PAGE}{more}")
        if not isinstance(found, list):
            raise _refused()
        for each in found:
            if isinstance(each, dict):
                yield each
        if len(found) < _PAGE:
            return


async def _ask(context: Context, config: Mapping[str, Any], token: str, path: str) -> Any:
    heard = await context.net.ask(
        "GET",
        f"{(config['base_url'] or DEFAULT_URL).rstrip('/')}{path}",
        headers=[
            ("Authorization", f"Bearer {token}"),
            ("Accept", "application/vnd.github+json"),
            ("User-Agent", "keyhole"),
        ],
        allow=config["allow"],
    )
    if heard.status != 200:
        raise _refused()
    try:
        return parse_json(heard.body, _BOUNDS)
    except InvalidRequest:
        raise _refused() from None


def _refused() -> InvalidForVault:
    return InvalidForVault("user is not part of required org", "the token needs read:org, and its person membership")


def make(guesses: Guesses) -> Engine:
    """The method, for one mount."""
    r = _Method(guesses)
    read, write = Operation.READ, Operation.CREATE
    return Engine(
        "github",
        (
            Route(
                "login",
                {write: r.login},
                open=True,
                fields=(Field("token", "a personal access token of GitHub"),),
                help="A token for a token of GitHub.",
            ),
            Route(
                "config",
                {read: r.read_config, write: r.write_config},
                fields=settings.fields(CONFIG),
                help="Which organization.",
            ),
            Route("map/{kind}", {Operation.LIST: r.list_map, read: r.list_map}, help="Teams or users with policies."),
            Route(
                "map/{kind}/{name}",
                {read: r.read_map, write: r.write_map, Operation.DELETE: r.delete_map},
                fields=(Field("value", "names of policies with commas"),),
                help="Policies of a team or user.",
            ),
        ),
    )

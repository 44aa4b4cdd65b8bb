"""``auth/token/roles/``: what tokens made through a role are, whoever makes them.

A role can give what its user has not got: other policies, an end of its own, no parent. So who writes one has those
policies, or ``sudo`` on its path; the rest needs ``sudo`` in any case.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from keyhole.auth.settings import Setting, duration, fields
from keyhole.core.cidr import parse_cidrs
from keyhole.core.errors import InvalidRequest, NotFound, PolicyDenied
from keyhole.core.numbers import parse_count, parse_flag
from keyhole.core.path import parse_name, parse_policy_name
from keyhole.core.policy import DEFAULT
from keyhole.core.request import Operation, Reply
from keyhole.engines import Call, Context, Route
from keyhole.vault.storage import Change, Storage, Write

_MOST = 256
_GLOB = re.compile(r"[a-z0-9*][a-z0-9*._/-]{0,127}")
_SUFFIX = re.compile(r"[A-Za-z0-9._-]{0,63}")
ALIAS = re.compile(r"[!-~]{1,255}")
TYPES = ("service", "batch", "default-service", "default-batch")


def parse_policies(value: Any, name: str) -> list[str]:
    """Names of policies from a list or from text with commas, sorted. Raises ``InvalidRequest``."""
    return sorted({parse_policy_name(text) for text in _texts(value, name)})


def _texts(value: Any, name: str) -> list[str]:
    parts = value.split(",") if isinstance(value, str) else value
    if parts is None:
        return []
    if not isinstance(parts, list) or len(parts) > _MOST or not all(isinstance(part, str) for part in parts):
        raise InvalidRequest(f"{name} is a list of at most {_MOST} names", f'write "{name}": ["NAME"]')
    return [part.strip() for part in parts if part.strip()]


def _globs(value: Any, name: str) -> list[str]:
    globs = sorted({text.lower() for text in _texts(value, name)})
    if not all(map(_GLOB.fullmatch, globs)):
        raise InvalidRequest(f"{name} has something that is no name with * in it", 'write like ["team-*"]')
    return globs


def _aliases(value: Any, name: str) -> list[str]:
    aliases = sorted({text.lower() for text in _texts(value, name)})
    if not all(map(ALIAS.fullmatch, aliases)):
        raise InvalidRequest(f"{name} has something that cannot be the name of an alias", "use visible ASCII")
    return aliases


def _suffix(value: Any, name: str) -> str:
    if not isinstance(value, str) or not _SUFFIX.fullmatch(value) or value in {".", ".."}:
        raise InvalidRequest(f"{name} is at most 63 letters, digits, '.', '_' and '-'")
    return value


def _type(value: Any, name: str) -> str:
    if value in ("", "default"):
        return "default-service"
    if value not in TYPES:
        raise InvalidRequest(f"{name} is one of {', '.join(TYPES)}")
    return str(value)


SETTINGS = (
    Setting("allowed_policies", parse_policies, [], "the only policies that may be asked for; all where none is asked"),
    Setting("disallowed_policies", parse_policies, [], "policies that are refused"),
    Setting("allowed_policies_glob", _globs, [], "as allowed_policies, with * for any text"),
    Setting("disallowed_policies_glob", _globs, [], "as disallowed_policies, with * for any text"),
    Setting("orphan", parse_flag, default=False, help="tokens have no parent"),
    Setting("renewable", parse_flag, default=True, help="tokens can be renewed"),
    Setting("path_suffix", _suffix, "", "is added to the path that a token remembers"),
    Setting("allowed_entity_aliases", _aliases, [], "names, with * for any text, for which tokens may be made"),
    Setting("token_explicit_max_ttl", duration, 0, "a cap that renewals cannot pass", "explicit_max_ttl"),
    Setting("token_period", duration, 0, "each renewal gives this much, without end", "period"),
    Setting("token_bound_cidrs", parse_cidrs, [], "addresses from which tokens count", "bound_cidrs"),
    Setting("token_num_uses", parse_count, 0, "requests that a token is good for; 0 for unlimited"),
    Setting("token_no_default_policy", parse_flag, default=False, help="leave the default policy out"),
    Setting("token_type", _type, "default-service", "service or batch, or one that a request may change: default-…"),
)
_NEEDS_SUDO = ("orphan", "token_period", "allowed_policies_glob", "allowed_entity_aliases")
_BOUNDS = ("token_bound_cidrs", "token_num_uses", "token_explicit_max_ttl", "token_type")


async def load(storage: Storage, name: str) -> dict[str, Any]:
    """The settings of a role. Raises ``InvalidRequest`` where there is none, as a request to make a token names it."""
    item = await storage.get_one(f"r/{parse_name(name)}")
    if item.data is None:
        raise InvalidRequest(f"unknown role {name}", "auth/token/roles lists them")
    found: dict[str, Any] = json.loads(item.data)
    return found


class _Handlers:
    """Handlers of the routes; the storage is that of the org's tokens."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage

    async def exists(self, context: Context, params: Mapping[str, str]) -> bool:
        return (await self._storage(context).get_one(f"r/{parse_name(params['name'])}")).data is not None

    async def write(self, context: Context, call: Call) -> None:
        path = f"r/{parse_name(call.params['name'])}"
        item = await self._storage(context).get_one(path)
        call.require_new(stored=item.data is not None)
        before = json.loads(item.data) if item.data is not None else {}
        after = {setting.name: before.get(setting.name, setting.default) for setting in SETTINGS}
        for setting in SETTINGS:
            for name in filter(None, (setting.older, setting.name)):
                if call.data.get(name) is not None:
                    after[setting.name] = setting.parse(call.data[name], name)
        _require_possible(after)
        _require_grantable(context, call.path, before, after)
        await self._storage(context).commit(Change([Write(path, json.dumps(after).encode(), item.revision)]))

    async def read(self, context: Context, call: Call) -> Reply:
        name = parse_name(call.params["name"])
        item = await self._storage(context).get_one(f"r/{name}")
        if item.data is None:
            raise NotFound(f"there is no role {name!r}", "auth/token/roles lists them")
        data = {"name": name, "explicit_max_ttl": 0, "period": 0, **json.loads(item.data)}
        data["allowed_entity_aliases"] = data["allowed_entity_aliases"] or None
        return Reply(data)

    async def delete(self, context: Context, call: Call) -> None:
        path = f"r/{parse_name(call.params['name'])}"
        item = await self._storage(context).get_one(path)
        if item.data is not None:
            await self._storage(context).commit(Change(deletes=[(path, item.revision)]))

    async def names(self, context: Context, _call: Call) -> Reply:
        keys = await self._storage(context).list("r")
        if not keys:
            raise NotFound("there are no token roles", "make one: auth/token/roles/NAME")
        return Reply({"keys": keys})


def routes(storage: Any) -> tuple[Route, ...]:
    """The table. ``storage`` gives that of the org's tokens for a context."""
    r = _Handlers(storage)
    one = {Operation.READ: r.read, Operation.CREATE: r.write, Operation.DELETE: r.delete}
    return (
        Route("roles", {Operation.LIST: r.names}, help="Names of token roles."),
        Route("roles/{name}", one, exists=r.exists, fields=fields(SETTINGS), help="What tokens of a role are."),
    )


def _require_possible(role: Mapping[str, Any]) -> None:
    if role["token_type"] == TYPES[1]:
        for name in ("token_explicit_max_ttl", "token_period", "token_num_uses"):
            if role[name]:
                raise InvalidRequest(f"'token_type' cannot be 'batch' when role has {name}", "leave one of them out")
    if 0 < role["token_explicit_max_ttl"] < role["token_period"]:
        raise InvalidRequest("token_period cannot be greater than token_explicit_max_ttl")


def _require_grantable(context: Context, path: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """Raises ``PolicyDenied`` when the role would give more than who writes it has, or what it gives with less care."""
    if context.caller.allows("update", path, sudo=True):
        return
    own = {DEFAULT, *context.caller.policies}
    added = set(after["allowed_policies"]) - set(before.get("allowed_policies", ()))
    freed = set(before.get("disallowed_policies", ())) - set(after["disallowed_policies"])
    wider = [name for name in _NEEDS_SUDO if after[name] and (added or after[name] != before.get(name))]
    if set(before.get("disallowed_policies_glob", ())) - set(after["disallowed_policies_glob"]):
        wider.append("disallowed_policies_glob")
    if not after["allowed_policies"] and (after["disallowed_policies"] or after["disallowed_policies_glob"]):
        wider.append("disallowed policies without allowed ones")  # every other policy could be asked for
    if set(after["allowed_policies"]) - own or any(after[name] for name in _NEEDS_SUDO):
        wider += [name for name in _BOUNDS if before.get(name) and after[name] != before[name]]
    missing = [*sorted((added | freed) - own), *wider]
    if missing:
        raise PolicyDenied(
            f"without sudo a role gives no more than you have yourself: {', '.join(missing)}",
            f"ask somebody with sudo on {path}",
        )

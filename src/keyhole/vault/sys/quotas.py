"""``sys/quotas``: limits of an org on requests and leases. Each org has its own, and none reaches another's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.lease import parse_duration
from keyhole.core.numbers import parse_count, parse_flag
from keyhole.core.path import parse_name
from keyhole.core.request import Operation, Reply
from keyhole.engines import Call, Context, Field, Handler, Route
from keyhole.vault.compiled import OrgState
from keyhole.vault.quotas import EXEMPT, LEASES, RATE, Quota, Rules, encode, encode_settings
from keyhole.vault.vault import Vault

_MOST = 256  # quotas of one org
_EXEMPT_MOST = 64
_MAX_RATE = 10**9


class _Handlers:
    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def _rules(self, context: Context) -> tuple[OrgState, Rules]:
        state = await self._vault.compiled.state(context.caller.org_id)
        return state, await self._vault.quotas.rules(state)

    def names(self, kind: str) -> Handler:
        async def handler(context: Context, _call: Call) -> Reply:
            found = await self._vault.quotas.storage(context.caller.org_id).list(kind)
            if not found:
                raise NotFound("there are no quotas", f"write one to sys/quotas/{kind}/NAME")
            return Reply({"keys": found})

        return handler

    def read(self, kind: str) -> Handler:
        async def handler(context: Context, call: Call) -> Reply:
            state, rules = await self._rules(context)
            known = rules.rates if kind == RATE else rules.leases
            quota = next((one for one in known if one.name == call.params["name"]), None)
            if quota is None:
                raise NotFound("there is no such quota", f"see LIST sys/quotas/{kind}")
            data: dict[str, Any] = {"name": quota.name, "type": kind, "path": quota.path, "role": quota.role}
            if kind == RATE:
                rate = int(quota.rate) if quota.rate == int(quota.rate) else quota.rate
                return Reply({**data, "rate": rate, "interval": quota.interval, "block_interval": quota.block_interval})
            counter = await self._vault.quotas.leases_of(state, quota)
            each = {"per_agent": True} if quota.per_agent else {}
            return Reply({**data, "max_leases": quota.max_leases, "counter": counter, **each})

        return handler

    def write(self, kind: str) -> Handler:
        async def handler(context: Context, call: Call) -> None:
            name, storage = parse_name(call.params["name"]), self._vault.quotas.storage(context.caller.org_id)
            state, rules = await self._rules(context)
            known = rules.rates if kind == RATE else rules.leases
            wanted = _read(kind, name, call.data, state)
            others = [one for one in known if one.name != name]
            if any((one.path, one.role) == (wanted.path, wanted.role) for one in others):
                raise InvalidRequest("quota rule with similar properties exists", "change that one instead")
            if len(others) >= _MOST:
                raise InvalidRequest(f"an org has at most {_MOST} quotas of a kind")
            item = await storage.get_one(f"{kind}/{name}")
            await storage.change([(f"{kind}/{name}", encode(wanted), item.revision)])

        return handler

    def delete(self, kind: str) -> Handler:
        async def handler(context: Context, call: Call) -> None:
            path, storage = f"{kind}/{call.params['name']}", self._vault.quotas.storage(context.caller.org_id)
            item = await storage.get_one(path)
            if item.data is not None:
                await storage.change(deletes=[(path, item.revision)])

        return handler

    async def config(self, context: Context, _call: Call) -> Reply:
        _, rules = await self._rules(context)
        settings = rules.settings
        return Reply(
            {
                "enable_rate_limit_audit_logging": settings.log,
                "enable_rate_limit_response_headers": settings.headers,
                "rate_limit_exempt_paths": [f"/v1/{path}" for path in settings.exempt],
            }
        )

    async def configure(self, context: Context, call: Call) -> None:
        _, rules = await self._rules(context)
        log = call.data.get("enable_rate_limit_audit_logging", rules.settings.log)
        headers = call.data.get("enable_rate_limit_response_headers", rules.settings.headers)
        settings = {
            "exempt": _exempt(call.data.get("rate_limit_exempt_paths", list(rules.settings.exempt))),
            "log": parse_flag(log, "enable_rate_limit_audit_logging"),
            "headers": parse_flag(headers, "enable_rate_limit_response_headers"),
        }
        storage = self._vault.quotas.storage(context.caller.org_id)
        item = await storage.get_one("config")
        await storage.change([("config", encode_settings(settings), item.revision)])


def _read(kind: str, name: str, data: Mapping[str, Any], state: OrgState) -> Quota:
    path = _path(data.get("path") or "", state)
    role = data.get("role") or ""
    if not isinstance(role, str):
        raise InvalidRequest("role is a text")
    if role and not path.startswith("auth/"):
        raise InvalidRequest("a role counts for a login method only", "give path too: auth/NAME")
    if kind == LEASES:
        most = parse_count(data.get("max_leases"), "max_leases", least=1)
        return Quota(
            name, path, role, max_leases=most, per_agent=parse_flag(data.get("per_agent") or False, "per_agent")
        )
    rate = data.get("rate")
    try:
        number = float(rate) if isinstance(rate, int | float | str) and not isinstance(rate, bool) else math.nan
    except ValueError:
        number = math.nan
    if not 0 < number <= _MAX_RATE:
        raise InvalidRequest("'rate' must be greater than 0", "send how many requests there may be in an interval")
    interval = parse_duration(data.get("interval") or 1, name="interval")
    block = parse_duration(data.get("block_interval") or 0, name="block_interval")
    if interval < 1:
        raise InvalidRequest("'interval' must be at least one second")
    return Quota(name, path, role, rate=number, interval=interval, block_interval=block)


def _path(text: object, state: OrgState) -> str:
    """A path in its one form: a mount gets its slash. Raises ``InvalidRequest`` when nothing is mounted there."""
    if not isinstance(text, str):
        raise InvalidRequest("path is a text")
    if not text:
        return ""
    folder = text if text.endswith("/") else f"{text}/"
    mount = state.mounts.find(folder)
    if mount is None:
        raise InvalidRequest("there is no mount at this path", "see sys/mounts and sys/auth")
    return mount.path if folder == mount.path else text


def _exempt(given: object) -> list[str]:
    if isinstance(given, str):
        given = [part for part in given.split(",") if part]
    if not isinstance(given, list) or not all(isinstance(path, str) for path in given) or len(given) > _EXEMPT_MOST:
        raise InvalidRequest(f"rate_limit_exempt_paths is a list of at most {_EXEMPT_MOST} paths")
    return [path.removeprefix("/v1/").lstrip("/") for path in given] or list(EXEMPT)


def routes(vault: Vault) -> tuple[Route, ...]:
    """The table."""
    r = _Handlers(vault)
    common = (
        Field("path", "a mount, a path, or one that ends in *; all when it is not said"),
        Field("role", "of logins"),
    )
    fields = {
        RATE: (
            Field("rate", "requests of one address in an interval"),
            Field("interval", "1s when it is not said", "duration"),
            Field("block_interval", "for how long to refuse an address that asked too often", "duration"),
        ),
        LEASES: (
            Field("max_leases", "leases that there may be at a time"),
            Field("per_agent", "true: of each agent or other caller, not of all together", "boolean"),
        ),
    }
    settings = (
        Field("rate_limit_exempt_paths", "paths that are never counted", "list"),
        Field("enable_rate_limit_audit_logging", "record every refusal"),
        Field("enable_rate_limit_response_headers", "say in each answer how much is left"),
    )
    config = {Operation.READ: r.config, Operation.CREATE: r.configure}
    return (
        Route("quotas/config", config, fields=settings, help="What holds for all quotas."),
        *(
            route
            for kind in (RATE, LEASES)
            for route in (
                Route(f"quotas/{kind}", {Operation.LIST: r.names(kind)}, help="Names of quotas."),
                Route(
                    f"quotas/{kind}/{{name}}",
                    {Operation.READ: r.read(kind), Operation.CREATE: r.write(kind), Operation.DELETE: r.delete(kind)},
                    fields=(*common, *fields[kind]),
                    help="A quota.",
                ),
            )
        ),
    )

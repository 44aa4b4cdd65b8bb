"""``sys/audit``, ``sys/audit-hash``, and the headers that devices write. Only the org root has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.identity import ROOT_ORG
from keyhole.core.numbers import parse_flag
from keyhole.core.request import Operation, Reply
from keyhole.engines import Call, Context, Field, Route
from keyhole.vault.vault import Vault

_MAX_TEXT = 1024 * 1024
_HEADERS = "config/auditing/request-headers"


class _Handlers:
    def __init__(self, vault: Vault) -> None:
        self._devices = vault.devices

    async def all_of_them(self, context: Context, _call: Call) -> Reply:
        _root_only(context)
        return Reply(await self._devices.described())

    async def enable(self, context: Context, call: Call) -> None:
        _root_only(context)
        kind, options = call.data.get("type"), call.data.get("options") or {}
        if not isinstance(kind, str) or not kind:
            raise InvalidRequest("missing type", "send file, socket, syslog or http")
        if not isinstance(options, Mapping):
            raise InvalidRequest("options is an object of texts")
        stored = {
            "type": kind,
            "description": _text(call.data, "description"),
            "local": parse_flag(call.data.get("local") or False, "local"),
            "options": dict(options),
        }
        await self._devices.enable(call.params["path"].rstrip("/"), stored)

    async def disable(self, context: Context, call: Call) -> None:
        _root_only(context)
        await self._devices.disable(call.params["path"].rstrip("/"))

    async def hash(self, context: Context, call: Call) -> Reply:
        _root_only(context)
        text = call.data.get("input")
        if not isinstance(text, str) or not text:
            raise InvalidRequest('the "input" parameter is empty', "send the text to look for")
        if len(text) > _MAX_TEXT:
            raise InvalidRequest(f"input is longer than {_MAX_TEXT:,} characters")
        return Reply({"hash": await self._devices.hashed(call.params["path"].rstrip("/"), text)})

    async def headers(self, context: Context, _call: Call) -> Reply:
        _root_only(context)
        found = await self._devices.known_headers()
        return Reply({"headers": {name: {"hmac": hashed} for name, hashed in found.items()}})

    async def header(self, context: Context, call: Call) -> Reply:
        _root_only(context)
        name, found = call.params["name"].lower(), await self._devices.known_headers()
        if name not in found:
            raise InvalidRequest("Could not find header in config", f"see sys/{_HEADERS}")
        return Reply({name: {"hmac": found[name]}})

    async def set_header(self, context: Context, call: Call) -> None:
        _root_only(context)
        hashed = parse_flag(call.data.get("hmac") or False, "hmac")
        await self._devices.set_header(call.params["name"], hashed)

    async def drop_header(self, context: Context, call: Call) -> None:
        _root_only(context)
        await self._devices.set_header(call.params["name"], None)


def _root_only(context: Context) -> None:
    if context.caller.org != ROOT_ORG:
        raise InvalidRequest("operation unavailable in namespaces", "audit devices belong to the org root")


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name) or ""
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} is a text")
    return value


def routes(vault: Vault) -> tuple[Route, ...]:
    """The table."""
    r = _Handlers(vault)
    changes = frozenset({Operation.READ, Operation.UPDATE, Operation.DELETE})
    return (
        Route("audit", {Operation.READ: r.all_of_them}, sudo=changes, help="All audit devices."),
        Route(
            "audit/{path...}",
            {Operation.CREATE: r.enable, Operation.DELETE: r.disable},
            sudo=changes,
            fields=(
                Field("type", "file, socket, syslog or http"),
                Field("options", "object of texts; which ones depends on the type"),
                Field("description", "for people"),
                Field("local", "kept for Vault's clients"),
            ),
            help="An audit device.",
        ),
        Route(
            "audit-hash/{path...}",
            {Operation.CREATE: r.hash},
            fields=(Field("input", "a text"),),
            help="A text as the entries of a device have it.",
        ),
        Route(_HEADERS, {Operation.READ: r.headers}, sudo=changes, help="Headers that devices write."),
        Route(
            f"{_HEADERS}/{{name}}",
            {Operation.READ: r.header, Operation.CREATE: r.set_header, Operation.DELETE: r.drop_header},
            sudo=changes,
            fields=(Field("hmac", "hash its value"),),
            help="A header that devices write.",
        ),
    )

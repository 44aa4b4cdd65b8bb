"""What a server says of itself, and what it can be told: figures, machine, versions, logs. For the org root alone."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.identity import ROOT_ORG
from keyhole.core.request import Operation, Reply
from keyhole.core.times import format_time
from keyhole.engines import Call, Context, Field, Handler, Route
from keyhole.vault.host import host_info
from keyhole.vault.reported import REPORTED_VERSION
from keyhole.vault.vault import Vault

_OURS = "keyhole"
_LEVELS = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "notice": logging.INFO,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "err": logging.ERROR,
    "error": logging.ERROR,
}
_USUAL = logging.WARNING


class _Handlers:
    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    async def metrics(self, context: Context, call: Call) -> Reply:
        form = call.data.get("format") or ""
        if form == "prometheus":
            text = (await self._vault.meters.prometheus()).encode()
            return Reply(raw=text, content_type="text/plain; version=0.0.4")
        if form:
            raise InvalidRequest("unknown format of metrics", "ask for prometheus, or leave it out")
        return Reply(self._vault.meters.summary(context.now), bare=True)

    async def running(self, context: Context, _call: Call) -> Reply:
        return Reply(self._vault.meters.shown(context.now))

    async def host(self, context: Context, _call: Call) -> Reply:
        return Reply({"timestamp": format_time(context.now), **await asyncio.to_thread(host_info)})

    async def versions(self, _context: Context, _call: Call) -> Reply:
        made = (await self._vault.orgs.by_id(self._vault.root_org)).created
        # There was never another one; the next will add itself.
        info = {"previous_version": None, "timestamp_installed": format_time(made), "build_date": ""}
        return Reply({"keys": [REPORTED_VERSION], "key_info": {REPORTED_VERSION: info}})

    async def nodes(self, _context: Context, _call: Call) -> Reply:
        """Every server answers for itself: none is special, and none keeps a list of the others."""
        own = {
            "hostname": (await asyncio.to_thread(host_info))["host"]["hostname"],
            "api_address": self._vault.address(),
            "cluster_address": "",
            "active_node": True,
            "last_echo": None,
            "version": REPORTED_VERSION,
        }
        return Reply({"nodes": [own]})

    async def step_down(self, _context: Context, _call: Call) -> None:
        """No server leads, so there is nothing to step down from."""

    async def cors(self, _context: Context, _call: Call) -> Reply:
        return Reply({"enabled": False})

    async def set_cors(self, _context: Context, _call: Call) -> None:
        raise InvalidRequest(
            "pages of other origins are never let in: a page could use this API behind its reader's back",
            "put a proxy of yours before it that serves page and API under one origin",
        )

    async def no_cors(self, _context: Context, _call: Call) -> None:
        """They are off for good."""

    async def loggers(self, _context: Context, _call: Call) -> Reply:
        return Reply({name: _level_of(name) for name in _names()})

    async def logger(self, _context: Context, call: Call) -> Reply:
        name = _known(call.params["name"])
        return Reply({name: _level_of(name)})

    async def set_logger(self, _context: Context, call: Call) -> None:
        wanted = call.data.get("level")
        level = _LEVELS.get(wanted.lower()) if isinstance(wanted, str) else None
        if level is None:
            raise InvalidRequest("level is one of trace, debug, info, warn and error")
        for name in [_known(call.params["name"])] if "name" in call.params else _names():
            logging.getLogger(name).setLevel(level)

    async def reset_logger(self, _context: Context, call: Call) -> None:
        for name in [_known(call.params["name"])] if "name" in call.params else _names():
            logging.getLogger(name).setLevel(_USUAL if name == _OURS else logging.NOTSET)


def _names() -> list[str]:
    known = logging.Logger.manager.loggerDict
    return sorted({_OURS, *(name for name in known if name.startswith(f"{_OURS}."))})


def _known(name: str) -> str:
    if name not in _names():
        raise NotFound(f"there is no logger {name[:80]!r}", "see sys/loggers")
    return name


def _level_of(name: str) -> str:
    return logging.getLevelName(logging.getLogger(name).getEffectiveLevel()).lower()


def root_only(handler: Callable[[Context, Call], Awaitable[Reply | None]]) -> Handler:
    """The handler, for the org root alone: what it tells or changes is the whole server's."""

    async def guarded(context: Context, call: Call) -> Reply | None:
        if context.caller.org != ROOT_ORG:
            raise InvalidRequest("operation unavailable in namespaces", "ask in the org root")
        return await handler(context, call)

    return guarded


def _route(pattern: str, handlers: Mapping[Operation, Handler], text: str, *, sudo: bool = False, **more: Any) -> Route:
    needs = frozenset({Operation.READ, Operation.UPDATE, Operation.DELETE}) if sudo else frozenset[Operation]()
    return Route(pattern, {op: root_only(handler) for op, handler in handlers.items()}, sudo=needs, help=text, **more)


def routes(vault: Vault) -> tuple[Route, ...]:
    """The table."""
    r = _Handlers(vault)
    level = (Field("level", "trace, debug, info, warn or error"),)
    cors = {Operation.READ: r.cors, Operation.CREATE: r.set_cors, Operation.DELETE: r.no_cors}
    one = {Operation.READ: r.logger, Operation.CREATE: r.set_logger, Operation.DELETE: r.reset_logger}
    many = {Operation.READ: r.loggers, Operation.CREATE: r.set_logger, Operation.DELETE: r.reset_logger}
    return (
        _route(
            "metrics",
            {Operation.READ: r.metrics},
            "Figures of this server.",
            fields=(Field("format", "prometheus"),),
            bare=True,
        ),
        _route("in-flight-req", {Operation.READ: r.running}, "Requests that are running on this server.", sudo=True),
        _route("host-info", {Operation.READ: r.host}, "The machine of this server."),
        _route("version-history", {Operation.LIST: r.versions}, "Versions that served this vault."),
        _route("ha-status", {Operation.READ: r.nodes}, "The server that answers."),
        _route("step-down", {Operation.CREATE: r.step_down}, "Nothing: no server leads.", sudo=True),
        _route("config/cors", cors, "Pages of other origins: never let in.", sudo=True),
        _route("loggers", many, "How much is logged.", sudo=True, fields=level),
        _route("loggers/{name}", one, "How much one logger logs.", sudo=True, fields=level),
    )

"""``sys/plugins/catalog``: what stands on the shelves. It is read only: engines come with Keyhole."""

from __future__ import annotations

from typing import Any

from keyhole import auth, engines
from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.request import Operation, Reply
from keyhole.engines import Call, Context, Route

_SHELVES = {
    "auth": tuple(sorted(auth.MEMBERS)),
    "database": tuple(sorted(engines.DATABASES)),
    "secret": tuple(sorted(set(engines.MEMBERS) - set(engines.SINGLE))),
}


def _describe(kind: str, name: str) -> dict[str, Any]:
    return {"builtin": True, "deprecation_status": "supported", "name": name, "type": kind, "version": ""}


def _shelf(call: Call) -> tuple[str, ...]:
    kind = call.params["type"]
    if kind not in _SHELVES:
        raise InvalidRequest(f"unsupported plugin type: {kind[:40]}", "auth, database or secret")
    return _SHELVES[kind]


async def catalog(_context: Context, _call: Call) -> Reply:
    """All members of all shelves."""
    detailed = [_describe(kind, name) for kind, names in _SHELVES.items() for name in names]
    return Reply({**{kind: list(names) for kind, names in _SHELVES.items()}, "detailed": detailed})


async def of_type(_context: Context, call: Call) -> Reply:
    """The members of one shelf."""
    return Reply({"keys": list(_shelf(call))})


async def one(_context: Context, call: Call) -> Reply:
    """One member."""
    if call.params["name"] not in _shelf(call):
        raise NotFound("there is no such plugin")
    about = _describe(call.params["type"], call.params["name"])
    return Reply({**about, "args": [], "command": "", "sha256": "", "oci_image": "", "runtime": ""})


def routes() -> tuple[Route, ...]:
    """The table."""
    read, listing = Operation.READ, Operation.LIST
    names = {listing: of_type, read: of_type}
    catalog_of = "plugins/catalog/{type}"
    return (
        Route("plugins/catalog", {read: catalog}, help="Engines and login methods that can be mounted."),
        Route(catalog_of, names, sudo=frozenset({listing, read}), help="Those of one type: auth, database or secret."),
        Route(f"{catalog_of}/{{name}}", {read: one}, sudo=frozenset({read}), help="One of them."),
    )

"""What the vault says of itself: its OpenAPI document, and help for a path; as far as the caller may look."""

from __future__ import annotations

from collections.abc import Sequence

from keyhole.core.errors import NotFound, PolicyDenied
from keyhole.core.identity import Caller
from keyhole.core.path import parse_path
from keyhole.core.request import Operation, Reply
from keyhole.engines import Call, Context, Route
from keyhole.vault import openapi
from keyhole.vault.reported import REPORTED_VERSION
from keyhole.vault.sys.node_routes import NODE_ROUTES
from keyhole.vault.vault import Vault

_SYS = "sys/"


def routes(vault: Vault) -> tuple[Route, ...]:
    """The table."""

    async def specification(context: Context, _call: Call) -> Reply:
        return Reply(openapi.document(_shown(vault, context.caller), REPORTED_VERSION), bare=True)

    async def help_of(context: Context, call: Call) -> Reply:
        path = parse_path(call.params.get("path", ""), listing=True)
        shown = _shown(vault, context.caller)
        for mount, kind, table in shown:
            if path.startswith(mount):
                return _help(mount, kind, table, path.removeprefix(mount))
        if not path:
            text = "\n".join(sorted({f"    {mount}" for mount, _, _ in shown}))
            return Reply({"help": f"## PATHS\n\n{text}\n", "see_also": None, "openapi": None}, bare=True)
        raise PolicyDenied("permission denied", "you have no right below this path, or there is nothing")

    read = Operation.READ
    return (
        Route(
            "internal/specs/openapi",
            {read: specification},
            open=True,
            bare=True,
            help="The API as an OpenAPI document.",
        ),
        Route("internal/help", {read: help_of}, open=True, bare=True, help="The mounts that have help."),
        Route("internal/help/{path...}", {read: help_of}, open=True, bare=True, help="Help for a path."),
    )


def _shown(vault: Vault, caller: Caller) -> list[tuple[str, str, Sequence[Route]]]:
    """Of each mount what the caller may know: all with any right there, else what needs no token."""
    found: list[tuple[str, str, Sequence[Route]]] = []
    for mount in vault.mounts_of(caller):
        table: Sequence[Route] = mount.engine.routes
        if mount.path == _SYS:
            table = (*NODE_ROUTES, *table)
        if not caller.acl.sees(mount.path):
            table = [route for route in table if route.open] if mount.path == _SYS else []
        if table:
            found.append((mount.path, mount.engine.type, table))
    return found


def _help(mount: str, kind: str, table: Sequence[Route], below: str) -> Reply:
    """Help for one path of a mount, or for the mount itself."""
    path = below.removesuffix("/")
    fitting = [route for route in table if route.compiled().fullmatch(path)] if path else list(table)
    if not fitting:
        raise NotFound("unsupported path", f"ask for help at {mount}")
    if path:
        fitting = [route for route in fitting if route.pattern == fitting[0].pattern]
        text = f"Request:        {path}\nMatching Route: {fitting[0].pattern}\n\n{fitting[0].help}\n"
        lines = [f"    {field.name} ({field.type})\n        {field.help}" for each in fitting for field in each.fields]
        text += "\n## PARAMETERS\n\n" + "\n".join(dict.fromkeys(lines)) if lines else ""
    else:
        lines = [f"    {route.pattern}\n        {route.help}" for route in table]
        text = f"## DESCRIPTION\n\nThe mount {mount} is of the type {kind}.\n\n## PATHS\n\n" + "\n".join(lines)
    described = openapi.document([(mount, kind, fitting)], REPORTED_VERSION)
    return Reply({"help": text, "see_also": None, "openapi": described}, bare=True)

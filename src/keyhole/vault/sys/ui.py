"""``sys/internal/ui``: what clients ask to find their way: mounts, what the caller may do, names of namespaces."""

from __future__ import annotations

from typing import Any

from keyhole.core.errors import PolicyDenied
from keyhole.core.identity import ROOT_ORG, Caller
from keyhole.core.request import Operation, Reply
from keyhole.engines import Call, Context, Route
from keyhole.vault.mounts import AUTH, Mount
from keyhole.vault.sys.mounts import describe
from keyhole.vault.vault import Vault


def _shown(caller: Caller, mount: Mount) -> dict[str, Any] | None:
    """What the caller may know of a mount: all of it with any right there, and that it is there if it is public."""
    if caller.acl.sees(mount.path):
        return describe(mount)
    if mount.config.get("listing_visibility") == "unauth":
        return {"type": mount.type, "description": mount.description, "options": dict(mount.options) or None}
    return None


def routes(vault: Vault) -> tuple[Route, ...]:
    """The table."""

    async def mounts(context: Context, _call: Call) -> Reply:
        found: dict[str, dict[str, Any]] = {"auth": {}, "secret": {}}
        for mount in sorted(vault.mounts_of(context.caller), key=lambda each: each.path):
            if data := _shown(context.caller, mount):
                kind = "auth" if mount.path.startswith(AUTH) else "secret"
                found[kind][mount.path.removeprefix(AUTH)] = data
        return Reply({**found})

    async def mount(context: Context, call: Call) -> Reply:
        path = f"{call.params['path']}/"
        there = vault.mounts_of(context.caller).find(path)
        if there is None or not context.caller.acl.sees(there.path):
            asked = f'please ensure client\'s policies grant access to path "{path}"'
            raise PolicyDenied(f"preflight capability check returned 403, {asked}", "ask for a grant below this path")
        return Reply({"path": there.path, **describe(there)})

    async def resultant(context: Context, _call: Call) -> Reply:
        return Reply(context.caller.acl.resultant())

    async def namespaces(context: Context, _call: Call) -> Reply:
        names = await vault.orgs.names() if context.caller.org == ROOT_ORG and context.caller.name else []
        keys = [f"{name}/" for name in names if name != ROOT_ORG and context.caller.acl.sees("sys/namespaces/")]
        return Reply({"keys": keys})

    read = Operation.READ
    return (
        Route("internal/ui/mounts", {read: mounts}, open=True, help="Mounts where the caller has any right."),
        Route("internal/ui/mounts/{path...}", {read: mount}, open=True, help="The mount of a path."),
        Route("internal/ui/namespaces", {read: namespaces}, open=True, help="Namespaces that the caller may look at."),
        Route("internal/ui/resultant-acl", {read: resultant}, help="All that the caller's policies say."),
    )

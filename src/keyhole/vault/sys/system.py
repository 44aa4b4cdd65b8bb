"""The rest of ``sys/`` that needs an open vault: mounts, keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keyhole.core.errors import PolicyDenied
from keyhole.core.identity import ROOT_ORG
from keyhole.core.request import Operation, Reply
from keyhole.engines import Call, Context, Route
from keyhole.vault.mounts import Mount
from keyhole.vault.vault import Vault


def routes(vault: Vault, seal: Callable[[], None]) -> tuple[Route, ...]:
    """The table."""

    async def all_mounts(_context: Context, _call: Call) -> Reply:
        return Reply({mount.path: _describe(mount) for mount in vault.mounts})

    async def ui_mounts(context: Context, _call: Call) -> Reply:
        visible = {mount.path: _describe(mount) for mount in vault.mounts if context.caller.acl.sees(mount.path)}
        auth = {path.removeprefix("auth/"): data for path, data in visible.items() if path.startswith("auth/")}
        secret = {path: data for path, data in visible.items() if not path.startswith("auth/")}
        return Reply({"auth": auth, "secret": secret})

    async def ui_mount(context: Context, call: Call) -> Reply:
        path = f"{call.params['path']}/"
        for mount in vault.mounts:
            if path.startswith(mount.path) and context.caller.acl.sees(mount.path):
                return Reply({"path": mount.path, **_describe(mount)})
        raise PolicyDenied("preflight capability check returned 403", "you have no right below this path")

    async def key_status(context: Context, _call: Call) -> Reply:
        ring = vault.keys.ring(context.caller.org_id)
        return Reply({"term": ring.current, "terms": list(ring.terms)})

    async def rotate(context: Context, _call: Call) -> Reply:
        return Reply({"term": await vault.orgs.rotate(context.caller.org_id)})

    async def close(context: Context, _call: Call) -> None:
        if context.caller.org != ROOT_ORG:
            raise PolicyDenied("operation unavailable in namespaces", "seal from the org root")
        seal()

    return (
        Route("seal", {Operation.CREATE: close}, sudo=frozenset({Operation.UPDATE}), help="Forget the keys."),
        Route("mounts", {Operation.READ: all_mounts}, help="All mounts."),
        Route("internal/ui/mounts", {Operation.READ: ui_mounts}, help="Mounts where the caller has any right."),
        Route("internal/ui/mounts/{path...}", {Operation.READ: ui_mount}, help="The mount of a path."),
        Route("key-status", {Operation.READ: key_status}, help="Term of the org's key."),
        Route(
            "rotate",
            {Operation.CREATE: rotate},
            sudo=frozenset({Operation.UPDATE}),
            help="A new term of the org's key.",
        ),
    )


def _describe(mount: Mount) -> dict[str, Any]:
    return {
        "type": mount.engine.type,
        "description": mount.description,
        "accessor": f"{mount.engine.type}_{mount.id}",
        "uuid": mount.id,
        "external_entropy_access": False,
        "options": dict(mount.engine.options) or None,
        "config": {"default_lease_ttl": 0, "max_lease_ttl": 0, "force_no_cache": False},
        "local": False,
        "seal_wrap": False,
    }

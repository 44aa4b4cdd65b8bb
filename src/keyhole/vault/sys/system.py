"""The rest of ``sys/`` that needs an open vault: keys, sealing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from keyhole.core.errors import InvalidRequest
from keyhole.core.identity import ROOT_ORG
from keyhole.core.request import Operation, Reply
from keyhole.core.times import format_time
from keyhole.engines import Call, Context, Route
from keyhole.vault.fsck import examine
from keyhole.vault.rewrap import rewrap
from keyhole.vault.vault import Vault

TERMS = "terms"
"""Mount where it stands since when a term is used."""


def routes(vault: Vault, seal: Callable[[], Awaitable[None]]) -> tuple[Route, ...]:
    """The table."""

    async def key_status(context: Context, _call: Call) -> Reply:
        org_id = context.caller.org_id
        term = vault.keys.ring(org_id).current
        item = await vault.storage(org_id, TERMS).get_one(str(term))
        since = float(item.data) if item.data is not None else (await vault.orgs.by_id(org_id)).created
        used = await vault.keys.used(org_id)
        return Reply({"term": term, "install_time": format_time(since), "encryptions": used})

    async def rotate(context: Context, _call: Call) -> None:
        term = await vault.orgs.rotate(context.caller.org_id)
        await vault.storage(context.caller.org_id, TERMS).change([(str(term), repr(context.now).encode(), 0)])

    async def seal_again(context: Context, _call: Call) -> Reply:
        org_id = context.caller.org_id
        return Reply({"rewrapped": await rewrap(vault, org_id), "term": vault.keys.ring(org_id).current})

    async def fsck(context: Context, _call: Call) -> Reply:
        found = await examine(vault, context.caller.org_id)
        return Reply({"entries": found.entries, "broken": found.broken, "more": found.more})

    async def replication(_context: Context, _call: Call) -> Reply:
        return Reply({"mode": "disabled"})

    async def close(context: Context, _call: Call) -> None:
        if context.caller.org != ROOT_ORG:
            raise InvalidRequest("operation unavailable in namespaces", "seal from the org root")
        await seal()

    return (
        Route("seal", {Operation.CREATE: close}, sudo=frozenset({Operation.UPDATE}), help="Forget the keys."),
        Route("replication/status", {Operation.READ: replication}, open=True, help="There is no replication."),
        Route("key-status", {Operation.READ: key_status}, help="Term of the org's key."),
        Route(
            "rotate",
            {Operation.CREATE: rotate},
            sudo=frozenset({Operation.UPDATE}),
            help="A new term of the org's key.",
        ),
        Route(
            "rewrap",
            {Operation.CREATE: seal_again},
            sudo=frozenset({Operation.UPDATE}),
            help="Seal everything of the org under the current term of its key, and drop the older terms.",
        ),
        Route(
            "fsck",
            {Operation.READ: fsck},
            sudo=frozenset({Operation.READ}),
            help="Open everything that the org has stored, and say what does not open.",
        ),
    )

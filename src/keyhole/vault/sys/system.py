"""The rest of ``sys/`` that needs an open vault: keys, sealing."""

from __future__ import annotations

from collections.abc import Callable

from keyhole.core.errors import InvalidRequest
from keyhole.core.identity import ROOT_ORG
from keyhole.core.request import Operation, Reply
from keyhole.engines import Call, Context, Route
from keyhole.vault.vault import Vault


def routes(vault: Vault, seal: Callable[[], None]) -> tuple[Route, ...]:
    """The table."""

    async def key_status(context: Context, _call: Call) -> Reply:
        ring = vault.keys.ring(context.caller.org_id)
        return Reply({"term": ring.current, "terms": list(ring.terms)})

    async def rotate(context: Context, _call: Call) -> None:
        await vault.orgs.rotate(context.caller.org_id)

    async def close(context: Context, _call: Call) -> None:
        if context.caller.org != ROOT_ORG:
            raise InvalidRequest("operation unavailable in namespaces", "seal from the org root")
        seal()

    return (
        Route("seal", {Operation.CREATE: close}, sudo=frozenset({Operation.UPDATE}), help="Forget the keys."),
        Route("key-status", {Operation.READ: key_status}, help="Term of the org's key."),
        Route(
            "rotate",
            {Operation.CREATE: rotate},
            sudo=frozenset({Operation.UPDATE}),
            help="A new term of the org's key.",
        ),
    )

"""``sys/audit-log``: queries, verification, checkpoints. An org sees its own records only."""

from __future__ import annotations

from keyhole.core.errors import InvalidRequest
from keyhole.core.request import Operation, Reply
from keyhole.engines import Call, Context, Field, Route
from keyhole.vault.history import Filter, History
from keyhole.vault.vault import Vault


def routes(vault: Vault, history: History) -> tuple[Route, ...]:
    """The table."""

    async def query(context: Context, call: Call) -> Reply:
        await vault.journal.drain()
        org_id = context.caller.org_id
        return Reply({"records": await history.query(vault.keys.ring(org_id), org_id, Filter.from_data(call.data))})

    async def check(_context: Context, call: Call) -> Reply:
        await vault.journal.drain()
        anchor = call.data.get("checkpoint")
        if anchor is not None and not isinstance(anchor, dict):
            raise InvalidRequest("checkpoint is the object that sys/audit-log/checkpoint gave")
        return Reply(await history.verify(anchor))

    async def checkpoint(context: Context, _call: Call) -> Reply:
        await vault.journal.drain()
        return Reply(await history.checkpoint(context.now))

    return (
        Route(
            "audit-log",
            {Operation.READ: query, Operation.LIST: query},
            sudo=frozenset({Operation.READ, Operation.LIST}),
            fields=tuple(
                Field(name, "exact text")
                for name in ("secret", "agent", "service", "run", "step", "result", "after", "before", "limit")
            ),
            help="The latest records that match.",
        ),
        Route(
            "audit-log/verify",
            {Operation.READ: check, Operation.CREATE: check},
            sudo=frozenset({Operation.READ, Operation.UPDATE}),
            fields=(Field("checkpoint", "an older checkpoint to verify against"),),
            help="Check every chain and signature.",
        ),
        Route(
            "audit-log/checkpoint",
            {Operation.READ: checkpoint},
            sudo=frozenset({Operation.READ}),
            help="Signed heads of all chains, to be kept elsewhere.",
        ),
    )

"""``sys/audit-log``: queries, following, verification, checkpoints. An org sees its own records only."""

from __future__ import annotations

import asyncio

from keyhole.core.errors import InvalidRequest, PolicyDenied, RateLimited
from keyhole.core.identity import Caller
from keyhole.core.lease import parse_duration
from keyhole.core.numbers import parse_flag
from keyhole.core.request import Operation, Reply
from keyhole.engines import Call, Context, Field, Route
from keyhole.vault.history import CONTEXT, Cursor, Filter, History
from keyhole.vault.identity import standing
from keyhole.vault.tokens import MOUNT as TOKENS
from keyhole.vault.vault import Vault

LONGEST = 30  # seconds for which a request waits
_LOOK = 0.25  # seconds between two looks; other processes write too, and only the store knows of them
_WAITING = 256  # requests that wait at once
_PATH = "sys/audit-log"
_FIELDS = ("secret", "agent", "service", "accessor", *CONTEXT, "result", "after", "before", "limit")


class _Handlers:
    def __init__(self, vault: Vault, history: History) -> None:
        self._vault = vault
        self._history = history
        self._waiting = 0

    async def query(self, context: Context, call: Call) -> Reply:
        wanted = Filter.from_data(call.data)
        await self._vault.journal.drain()
        if call.data.get("cursor"):
            return await self._follow(context, call, wanted, Cursor.parse(str(call.data["cursor"])))
        org_id = context.caller.org_id
        records, cursor = await self._history.query(org_id, wanted)
        return Reply({"records": records, "cursor": str(cursor)})

    async def _follow(self, context: Context, call: Call, wanted: Filter, cursor: Cursor) -> Reply:
        """What is behind the cursor; where that is nothing, what comes while it may be waited for."""
        seconds = min(parse_duration(call.data.get("wait") or 0, name="wait"), LONGEST)
        vault, org_id = self._vault, context.caller.org_id
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        if seconds and self._waiting >= _WAITING:
            raise RateLimited(f"{_WAITING} requests wait for records already", "ask without wait")
        self._waiting += 1
        waited = False
        try:
            while True:
                records, cursor, more = await self._history.follow(org_id, wanted, cursor)
                if records or (loop.time() >= end and not more):
                    break
                await asyncio.sleep(0 if more else min(_LOOK, end - loop.time()))
                waited = True
                if vault.journal.ending:
                    return Reply({"records": [], "cursor": str(cursor)})
        finally:
            self._waiting -= 1
        if waited:
            await _require_still(vault, context.caller, call)
        return Reply({"records": records, "cursor": str(cursor)})

    async def check(self, _context: Context, call: Call) -> Reply:
        await self._vault.journal.drain()
        anchor = call.data.get("checkpoint")
        if anchor is not None and not isinstance(anchor, dict):
            raise InvalidRequest("checkpoint is the object that sys/audit-log/checkpoint gave")
        since = parse_flag(call.data.get("since") or False, "since")
        if since and anchor is None:
            raise InvalidRequest("since needs a checkpoint", "send the object that sys/audit-log/checkpoint gave")
        return Reply(await self._history.verify(anchor, since=since))

    async def checkpoint(self, context: Context, _call: Call) -> Reply:
        await self._vault.journal.drain()
        return Reply(await self._history.checkpoint(context.now))


async def _require_still(vault: Vault, caller: Caller, call: Call) -> None:
    """What was allowed before the wait is allowed after it. A token that this request used up counts as live."""
    state = await vault.compiled.state(caller.org_id)
    await vault.tokens.still(vault.storage(caller.org_id, TOKENS), caller, vault.clock.now())
    acl = await standing.acl_now(vault, state, caller)
    if not acl.decide(call.operation, _PATH, parameters=call.data, sudo=True):
        raise PolicyDenied("permission denied", "the policy was changed meanwhile; ask for a grant")


def routes(vault: Vault, history: History) -> tuple[Route, ...]:
    """The table."""
    r = _Handlers(vault, history)
    return (
        Route(
            "audit-log",
            {Operation.READ: r.query, Operation.LIST: r.query},
            sudo=frozenset({Operation.READ, Operation.LIST}),
            fields=(
                *(Field(name, "exact text") for name in _FIELDS),
                Field(
                    "cursor", "of an earlier answer, or beginning: the records behind it, none twice and none left out"
                ),
                Field("whole", "with cursor: also the records of who reads the journal", "boolean"),
                Field("wait", f"with cursor: how long to wait for a record, at most {LONGEST}s"),
            ),
            help="The latest records that match, or those that follow.",
        ),
        Route(
            "audit-log/verify",
            {Operation.READ: r.check, Operation.CREATE: r.check},
            sudo=frozenset({Operation.READ, Operation.UPDATE}),
            fields=(
                Field("since", "check only what came after it", "boolean"),
                Field("checkpoint", "an older checkpoint to verify against"),
            ),
            help="Check every chain and signature.",
        ),
        Route(
            "audit-log/checkpoint",
            {Operation.READ: r.checkpoint},
            sudo=frozenset({Operation.READ}),
            help="Signed heads of all chains, to be kept elsewhere.",
        ),
    )

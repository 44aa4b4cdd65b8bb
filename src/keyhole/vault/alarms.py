"""Alarms: what no honest caller does. Each is a record of its own and a line in the log, and may end the session."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from keyhole.core.identity import Caller
from keyhole.core.record import Phase, Record
from keyhole.vault.compiled import OrgState
from keyhole.vault.sys.tokens import end_tokens
from keyhole.vault.vault import Vault

OPERATION = "alarm"
_log = logging.getLogger("keyhole.alarm")


async def raise_alarm(vault: Vault, state: OrgState, caller: Caller, request_id: str, service: str, what: str) -> None:
    """Record an alarm durably, log it, and end the caller's token where the org says so.

    Args:
        vault: open.
        state: of the caller's org.
        caller: who did it.
        request_id: of the request that did.
        service: that it was about, or empty.
        what: in words, without a value.
    """
    fields: dict[str, Any] = {**caller.run.as_data()}
    record = Record(
        phase=Phase.EVENT,
        id=request_id,
        caller=caller.name,
        accessor=caller.accessor,
        operation=OPERATION,
        result=what,
        service=service,
        **fields,
    )
    await vault.journal.intend(record, state.org.id)
    _log.warning("alarm: %s of %s: %s (request %s)", caller.name, state.org.name, what, request_id)
    if state.org.tripwire == "revoke" and caller.token_id:
        await asyncio.shield(end_tokens(vault, state.org.id, caller.token_id))

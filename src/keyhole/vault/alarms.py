"""Alarms: what no honest caller does. Each is a record of its own and a line in the log, and may end the session."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any

from keyhole.core.errors import KeyholeError
from keyhole.core.identity import Caller
from keyhole.core.notice import Notice
from keyhole.core.record import Phase, Record
from keyhole.net.tasks import Tasks
from keyhole.vault.compiled import OrgState
from keyhole.vault.vault import Vault

OPERATION = "alarm"
_SAME = 300  # seconds in which the same alarm of the same caller is told once; each is recorded
_log = logging.getLogger("keyhole.alarm")
_under_way = Tasks()


async def to_the_end(job: Coroutine[Any, Any, None]) -> None:
    """Wait for a job that goes on when whoever waits for it is cancelled: hanging up is no way around an alarm."""
    await asyncio.shield(_under_way.begin(job))


async def raise_alarm(vault: Vault, state: OrgState, caller: Caller, request_id: str, service: str, what: str) -> None:
    """Record an alarm durably, log it, and end the caller's token where the org says so; also when nobody waits.

    Args:
        vault: open.
        state: of the caller's org.
        caller: who did it.
        request_id: of the request that did.
        service: that it was about, or empty.
        what: in words, without a value.
    """
    await to_the_end(_raise(vault, state, caller, request_id, service, what))


async def _raise(vault: Vault, state: OrgState, caller: Caller, request_id: str, service: str, what: str) -> None:
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
    minutes = int(vault.clock.now() // _SAME)
    about = f"{caller.name}: {what}"
    with contextlib.suppress(KeyholeError):  # it is recorded; whoever cannot be told must not stop what follows
        await vault.notices.tell(state.org.id, Notice("alarm", caller.name, about, key=f"{minutes} {about}"))
    if state.org.tripwire == "revoke" and caller.type == "service" and caller.token_id:
        from keyhole.vault.sys.tokens import end_tokens  # noqa: PLC0415  # an alarm is rare

        await end_tokens(vault, state.org.id, caller.token_id)

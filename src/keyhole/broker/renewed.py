"""Values that are replaced while a call is under way: the answer may have the new one, or ask for one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from keyhole.broker.late import require_still
from keyhole.broker.loan import Loan
from keyhole.core.identity import Caller
from keyhole.core.service import Service
from keyhole.vault.compiled import OrgState
from keyhole.vault.vault import Vault

Answer = TypeVar("Answer")


async def with_renewed(
    vault: Vault, state: OrgState, service: Service, loan: Loan, sending: Awaitable[Answer]
) -> Answer:
    """The answer to a call; before any of it is passed on, the loan knows what is being rotated since it was lent.

    Args:
        vault: open.
        state: of the org when it was lent.
        service: through which.
        loan: that is asked to mask the answer.
        sending: the call.
    """
    answer = await sending
    latest = vault.compiled.last(state.org.id)
    if latest is not None and latest is not state:
        paths = [path for path, _ in service.secret_refs()]
        loan.renewed(await vault.rotations.masked(latest, paths, loan.values))
    return answer


def relending(
    vault: Vault, state: OrgState, caller: Caller, service: Service, loan: Loan
) -> Callable[[], Awaitable[bool]] | None:
    """What looks for other values when an upstream refuses those of a loan; ``None`` where there are none."""
    if not service.sourced or not vault.sources.can_relend(state, service):
        return None
    return partial(_relend, vault, state, caller, service, loan)


async def _relend(vault: Vault, state: OrgState, caller: Caller, service: Service, loan: Loan) -> bool:
    """Take other values after an upstream refused those of a loan, if the caller still may; whether there are any."""
    await require_still(vault, caller, service)
    others = await vault.sources.relend(state, caller, service, loan.values)
    if others:
        loan.replace(others)
    return bool(others)

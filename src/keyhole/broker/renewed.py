"""A value that was replaced while a call was under way: the answer may have the new one, which is masked too."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from keyhole.broker.loan import Loan
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

"""Secrets that are bait: whoever touches one is noticed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyhole.core.identity import Caller
from keyhole.core.request import Request
from keyhole.vault.compiled import OrgState

if TYPE_CHECKING:
    from keyhole.vault.vault import Vault

HONEY = "honey"
NONE = frozenset[str]()


async def baits(vault: Vault, state: OrgState) -> frozenset[str]:
    """The names of an org's honey secrets."""
    if state.honey is None:
        state.honey = frozenset(await vault.storage(state.org.id, HONEY, configures=True).list(recursive=True))
    return state.honey


async def taste(vault: Vault, state: OrgState, caller: Caller, request: Request, secrets: tuple[str, ...]) -> None:
    """Raise an alarm when one of these is a honey secret; it is given out all the same, so that nobody notices."""
    for name in (await baits(vault, state)).intersection(secrets):
        await vault.alarm(state, caller, request.id, "", f"the honey secret {name} was touched")

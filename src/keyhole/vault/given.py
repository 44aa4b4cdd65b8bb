"""What an engine gets of its vault besides storage: each asks a part of it that is made when it is first asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keyhole.core.identity import Caller
    from keyhole.core.notice import Notice
    from keyhole.core.service import Service
    from keyhole.core.value import Secret
    from keyhole.vault.compiled import OrgState
    from keyhole.vault.vault import Vault


class OrgNotices:
    """What an engine has as ``Context.notices``."""

    __slots__ = ("_org_id", "_vault")

    def __init__(self, vault: Vault, org_id: str) -> None:
        self._vault = vault
        self._org_id = org_id

    async def days(self) -> Sequence[int]:
        """As ``engines.NoticesView.days``."""
        return await self._vault.notices.days(self._org_id)

    async def tell(self, notice: Notice) -> bool:
        """As ``engines.NoticesView.tell``."""
        return await self._vault.notices.tell(self._org_id, notice)


async def lend(vault: Vault, state: OrgState, caller: Caller, path: str, field: str) -> Secret:
    """As ``engines.LendView``."""
    return await vault.sources.lend(state, caller, path, field)


async def require_lendable(vault: Vault, state: OrgState, caller: Caller, service: Service) -> None:
    """As ``engines.BindView``."""
    await vault.sources.require_lendable(state, caller, service)

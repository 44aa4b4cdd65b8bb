"""What an engine gets of its vault besides storage: each asks a part of it that is made when it is first asked."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from keyhole.engines import Context, absent

if TYPE_CHECKING:
    from keyhole.core.identity import Caller
    from keyhole.core.notice import Notice
    from keyhole.core.service import Service
    from keyhole.core.value import Secret
    from keyhole.vault.compiled import OrgState
    from keyhole.vault.mounts import Mount
    from keyhole.vault.vault import Vault


class Given(Context):
    """What an engine is given for one call. Most calls ask for their storage alone, so the rest is made when asked for.

    Args:
        vault: of which it is given.
        state: of the caller's org.
        caller: who asks.
        mount: of the engine.
    """

    def __init__(self, vault: Vault, state: OrgState, caller: Caller, mount: Mount) -> None:
        self.storage = vault.orgs.storage(state.org.id, mount.id, configures=mount.engine.configures)
        self.now = vault.clock.now()
        self.caller = caller
        self.mount = mount.path
        self.default_ttl = mount.default_ttl
        self.max_ttl = mount.max_ttl
        self.leases = absent.LEASES
        self._vault = vault
        self._state = state

    def __getattr__(self, name: str) -> Any:
        """An attribute of ``Context`` that nobody has asked for yet."""
        vault, state = self._vault, self._state
        made: object
        if name == "net":
            made = absent.NET if vault.net is None else vault.net
        elif name == "passwords":
            made = partial(vault.passwords, state.org.id)
        elif name == "lend":
            made = partial(lend, vault, state, self.caller)
        elif name == "require_lendable":
            made = partial(require_lendable, vault, state, self.caller)
        elif name == "notices":
            made = OrgNotices(vault, state.org.id)
        else:
            raise AttributeError(name)
        self.__dict__[name] = made
        return made


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

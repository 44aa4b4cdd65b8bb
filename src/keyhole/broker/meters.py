"""How often agents use services."""

from __future__ import annotations

from keyhole.core.checks.limits import Limits
from keyhole.core.identity import Caller
from keyhole.core.service import Service
from keyhole.vault.compiled import OrgState
from keyhole.vault.limiting import Limiting, Meter
from keyhole.vault.vault import Vault

__all__ = ["Meter", "Meters"]


class Meters(Limiting):
    """All meters of services of this process."""

    def of(
        self, vault: Vault, state: OrgState, caller: Caller, service: Service, limits: Limits | None
    ) -> Meter | None:
        """The meter of an agent at a service; ``None`` without limits."""
        return self.at(vault, state, caller, service.name, f"the service {service.name!r}", limits)

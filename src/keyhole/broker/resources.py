"""What the calls of a node have in common, and what outlives each of them: connections, and what is kept in memory."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from keyhole.broker.checks import Gate
from keyhole.broker.directory import Directory
from keyhole.broker.kept import Kept
from keyhole.broker.live import Live, StreamLimits
from keyhole.broker.loan import Scrubbers
from keyhole.broker.noting import Notings
from keyhole.broker.tripwires import Tripwires
from keyhole.broker.upstream import Pool
from keyhole.net.guard import Guard
from keyhole.scrub import Scrubber
from keyhole.vault.compiled import OrgState
from keyhole.vault.vault import Vault

_GUARDS = 1024


class Resources:
    """What every call reaches.

    Args:
        open_vault: gives the open one.
        pool: the only outgoing connections.
        streams: bounds on what goes on after an answer's head.
        client_context: makes a TLS context that verifies upstreams, for a client's certificate to be put into.

    Attributes:
        live: calls under way.
        scrubbers: compiled for recent loans.
        kept: what injections keep from one call to the next.
        gate: judges by the checks of services.
        tripwires: stop what an agent must not send.
        notings: of calls, for a replay of policies.
    """

    def __init__(
        self,
        open_vault: Callable[[], Vault],
        pool: Pool,
        streams: StreamLimits,
        client_context: Callable[[], ssl.SSLContext],
    ) -> None:
        self.pool = pool
        self.client_context = client_context
        self.live = Live(streams)
        self.scrubbers = Scrubbers()
        self.kept = Kept()
        self.gate = Gate()
        self.tripwires = Tripwires()
        self.notings = Notings(open_vault, self.learn)
        self._guards: dict[tuple[str, ...], Guard] = {}

    async def directory(self, vault: Vault, state: OrgState) -> Directory:
        """The compiled services of an org."""
        known: Directory | None = state.bindings.derived.get(Directory)
        if known is None:
            await vault.services(state)
            known = state.bindings.compiled(Directory)
        return known

    def guard(self, allow: tuple[str, ...]) -> Guard:
        """What judges addresses, with these exceptions."""
        guard = self._guards.get(allow)
        if guard is None:
            if len(self._guards) > _GUARDS:
                self._guards.clear()
            guard = self._guards[allow] = Guard(allow)
        return guard

    async def learn(self, vault: Vault, state: OrgState) -> Scrubber:
        """What finds the values of an org's secrets, as of now."""
        return await self.tripwires.learn(vault, state)

    def forget(self) -> None:
        """The vault was sealed: nothing that came out of it stays here."""
        self.notings.forget()
        self.scrubbers = Scrubbers()
        self.kept = Kept()
        self.gate = Gate()
        self.tripwires = Tripwires()

    def distrust(self) -> None:
        """What upstreams are trusted by has changed: contexts that hold a client's certificate are made again."""
        self.kept = Kept()

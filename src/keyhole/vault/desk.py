"""The leases of one request: begun by its engine before it acts, given out by the door with the answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any

from keyhole.core.errors import (
    Conflict,
    InvalidRequest,
    KeyholeError,
    LeaseLimit,
    NotFound,
    Unauthenticated,
    UpstreamTimeout,
)
from keyhole.core.identity import Caller
from keyhole.core.lease import Lease, LeaseState
from keyhole.core.request import Reply
from keyhole.stores import Check
from keyhole.vault.compiled import OrgState
from keyhole.vault.leases import new_lease
from keyhole.vault.mounts import Mount

if TYPE_CHECKING:
    from keyhole.vault.vault import Vault

_MARGIN = 0.8  # part of the time after which others take it back


class Desk:
    """What an engine has as ``Context.leases`` while it answers one request.

    Args:
        vault: whose leases they are.
        state: of the caller's org.
        caller: for whom they are.
        mount: whose engine makes what is leased.
        path: canonical, of the request.
    """

    __slots__ = ("_begun", "_caller", "_limit", "_mount", "_path", "_since", "_state", "_vault")

    def __init__(self, vault: Vault, state: OrgState, caller: Caller, mount: Mount, path: str) -> None:
        self._vault = vault
        self._state = state
        self._caller = caller
        self._mount = mount
        self._path = path
        self._since = vault.clock.now()
        self._begun: list[Lease] = []
        self._limit: asyncio.Timeout | None = None

    async def begin(
        self,
        *,
        ttl: int = 0,
        max_ttl: int = 0,
        renewable: bool = True,
        internal: Mapping[str, Any] | None = None,
        target: str = "",
    ) -> Lease:
        """As ``engines.LeaseView.begin``."""
        vault = self._vault
        place = await vault.quotas.place(self._state, self._path.removesuffix("/"), self._caller.name)
        context = vault.context(self._state, self._caller, self._mount)
        wanted = new_lease(
            self._caller,
            self._path.removesuffix("/"),
            self._mount.id,
            ttl=ttl,
            default_ttl=context.default_ttl,
            max_ttl=min(max_ttl or context.max_ttl, context.max_ttl),
            renewable=renewable,
            internal=internal or {},
            target=target,
            now=context.now,
            until=context.now + vault.expiry.limits.making,
        )
        try:
            lease = await vault.leases.begin(self._caller, wanted, context.now, place, self._stands)
        except LeaseLimit as error:
            raise LeaseLimit(f'request path "{wanted.path}": {error.reason}', error.hint) from None
        self._begun.append(lease)
        if self._limit is not None and self._limit.when() is None:
            self._limit.reschedule(asyncio.get_running_loop().time() + vault.expiry.limits.making * _MARGIN)
        return lease

    async def _stands(self) -> Check:
        """That the configuration has not changed since the org and the mount were seen to be there.

        Whoever removes one of them first changes the configuration and then looks for leases, so no lease is missed.

        Raises:
            Unauthenticated: the org is being removed.
            NotFound: the mount is.
            InvalidRequest: all below the path was revoked since it was asked for.
        """
        org_id = self._state.org.id
        state = await self._vault.compiled.state(org_id)
        if state.org.leaving:
            raise Unauthenticated("permission denied", "the org is being deleted")
        if not any(mount.id == self._mount.id for mount in state.mounts):
            raise NotFound(f"there is no mount at {self._mount.path} any more")
        if state.epoch != self._state.epoch and await self._vault.leases.bars.hit(org_id, self._path, self._since):
            raise _revoked()
        return Check(self._vault.orgs.epoch_key(org_id), state.epoch)

    async def work(self, doing: Awaitable[Reply | None]) -> Reply | None:
        """Let the engine answer; from its first lease on it has a bounded time, after which all is taken back.

        Raises:
            UpstreamTimeout: it took longer.
        """
        self._limit = limit = asyncio.timeout(None)
        try:
            async with limit:
                return await doing
        except TimeoutError:
            if not limit.expired():
                raise
            raise UpstreamTimeout("making it took too long, so it is taken back", "try again") from None

    async def settle(self, reply: Reply) -> None:
        """Give out the lease of a reply, and take back what was begun besides.

        Raises:
            Unauthenticated: the token was revoked meanwhile; it is taken back.
            InvalidRequest: all below its path was revoked meanwhile, or making it took too long; it is taken back.
        """
        given = reply.lease
        if not self._begun or given is None or given.state is not LeaseState.PENDING:
            await self.give_up()
            return
        try:
            reply.lease = await self._vault.leases.activate(self._state.org.id, given)
        except Conflict:
            await self.give_up()
            if self._caller.holder and not await self._vault.leases.token_lives(self._caller, self._vault.clock.now()):
                raise Unauthenticated("permission denied", "the token was revoked while this was made for it") from None
            raise _revoked() from None
        except BaseException:
            await self.give_up()
            raise
        if given.warning:
            reply.warnings.append(given.warning)
        self._begun = [lease for lease in self._begun if lease.mark != given.mark]
        await self.give_up()

    async def give_up(self) -> None:
        """Take back what was begun and not given out, also when whoever asked has gone meanwhile."""
        begun, self._begun = self._begun, []
        if begun:
            await asyncio.shield(self._vault.expiry.begin(self._take_back(begun)))

    async def _take_back(self, begun: list[Lease]) -> None:
        vault, state = self._vault, self._state
        for lease in begun:
            with contextlib.suppress(KeyholeError):  # it stays in the queue, and is taken back when it is due
                if not await vault.expiry.end(state, [lease.id], made=True):
                    # This process stood still for so long that another one has taken back what was not there yet.
                    place = await vault.quotas.place(state, lease.path, lease.caller)
                    await vault.leases.requeue(state.org.id, lease, vault.clock.now(), place)
                    await vault.expiry.end(state, [lease.id], made=True)


def _revoked() -> InvalidRequest:
    return InvalidRequest("it was revoked while it was made", "ask again")

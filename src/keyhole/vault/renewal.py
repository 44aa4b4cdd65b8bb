"""Leases that live longer: noted where they lie, and then at their source."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from keyhole.core.errors import Conflict, InvalidRequest
from keyhole.core.identity import Caller
from keyhole.core.lease import Lease
from keyhole.vault.compiled import OrgState
from keyhole.vault.expiry import mount_of

if TYPE_CHECKING:
    from keyhole.vault.vault import Vault


async def renew(vault: Vault, state: OrgState, lease_id: str, increment: int) -> Lease:
    """Extend a lease. Whoever notes it first wins, so one that ends at this moment is renewed everywhere or nowhere.

    Args:
        vault: where.
        state: of its org.
        lease_id: whole.
        increment: seconds from now; 0 for as much as it was given first.

    Raises:
        InvalidRequest: there is none, or it cannot be renewed.
        KeyholeError: the source refused; it ends when it would have.
    """
    while True:
        now = vault.clock.now()
        lease = await vault.leases.get(state.org.id, lease_id)
        if lease is None or lease.expires <= now:
            raise InvalidRequest("lease not found", "it is unknown, or it has ended: ask for a new one")
        term = lease.term(increment, now)
        try:
            renewed = await vault.leases.renew(state.org.id, lease, term.ttl, now)
            break
        except Conflict:
            continue
    mount = mount_of(vault, state, lease.mount)
    if mount is not None and mount.engine.renew is not None:
        acl = await vault.expiry.nobody_acl(state)
        nobody = Caller(state.org.name, state.org.id, lease.caller, "", "full", (), acl)
        context = vault.context(state, nobody, mount)
        error = await vault.expiry.bounded(mount.engine.renew(context, renewed, term.ttl))
        if error is not None:
            with contextlib.suppress(Conflict):
                await vault.leases.restore(state.org.id, renewed, lease)
            raise error
    return renewed._replace(warning=term.warning)

"""What an org that was deleted leaves behind is ended: what it leased is taken back, then its keys and the rest go.

Nobody gets in by then. What a crash cuts off is done by the next sweep.
"""

from __future__ import annotations

from keyhole.core.errors import KeyholeError, NotFound
from keyhole.core.lease import Lease, LeaseState
from keyhole.vault.compiled import OrgState
from keyhole.vault.vault import Vault


async def remove_org(vault: Vault, org_id: str, *, again: bool = False) -> bool:
    """Remove all that is left of an org that is leaving; whether that is done.

    It is not while something that it leased may still be taken back at its source. What cannot be, after all retries
    of its lease, is given up.

    Args:
        vault: where.
        org_id: of the org.
        again: this is not the first time, so what failed is left to the retries of leases.
    """
    try:
        await vault.orgs.by_id(org_id)
    except NotFound:
        pass  # its keys are gone already
    else:
        await vault.orgs.touch(org_id)  # so that every node knows, whatever was cut off
        if not await _take_back(vault, await vault.compiled.state(org_id), again=again):
            return False
    await vault.orgs.destroy(org_id)
    return True


async def _take_back(vault: Vault, state: OrgState, *, again: bool) -> bool:
    while leases := [
        lease for lease in await _leases(vault, state.org.id) if lease.state is not LeaseState.IRREVOCABLE
    ]:
        if again:
            given = [lease.id for lease in leases if lease.state is LeaseState.ACTIVE]
            await vault.expiry.end(state, given)
            return False
        try:
            await vault.expiry.end(state, [lease.id for lease in leases], wait=True)
        except KeyholeError:
            return False
    return True


async def _leases(vault: Vault, org_id: str) -> list[Lease]:
    """Those that may still be taken back."""
    found = await vault.leases.every(org_id)
    return [lease for lease in found if lease.state is not LeaseState.IRREVOCABLE]

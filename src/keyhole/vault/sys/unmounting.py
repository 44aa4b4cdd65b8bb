"""What a disabled mount leaves behind is ended: leases, tokens of its logins, its data, and last its record.

Nothing answers at the mount by then. What a crash cuts off is done by the next sweep.
"""

from __future__ import annotations

from keyhole.core.lease import LeaseState
from keyhole.vault.mount_table import Entry
from keyhole.vault.mounts import AUTH
from keyhole.vault.sys.tokens import end_tokens_where
from keyhole.vault.vault import Vault


async def remove_disabled(vault: Vault, org_id: str, *, again: bool = False) -> None:
    """Remove all that is left of the mounts of an org that were disabled.

    Args:
        vault: where.
        org_id: of the org.
        again: this is not the first time, so what cannot be taken back at its source is left to the retries of leases.

    Raises:
        KeyholeError: something that was leased could not be taken back; its mount stays until it is.
    """
    for entry in (await vault.tables.read(org_id)).going:
        if await _take_back(vault, org_id, entry, wait=not again):
            await _remove(vault, org_id, entry)


async def _take_back(vault: Vault, org_id: str, entry: Entry, *, wait: bool) -> bool:
    """Whether nothing is leased from the mount any more. Without ``wait`` what is under way already is left alone."""
    state = await vault.compiled.state(org_id)
    mount = state.mounts.by_id(entry.id)
    if mount is None or mount.engine.revoke is None:
        return True
    mine = [lease for lease in await vault.leases.every(org_id) if lease.mount == entry.id]
    ending = mine if wait else [lease for lease in mine if lease.state is LeaseState.ACTIVE]
    await vault.expiry.end(state, [lease.id for lease in ending], wait=wait)
    return wait or not mine


async def _remove(vault: Vault, org_id: str, entry: Entry) -> None:
    if entry.path.startswith(AUTH):
        await end_tokens_where(vault, org_id, lambda token: token.mount == entry.id)
    await vault.orgs.purge(org_id, entry.id)
    await vault.tables.change(org_id, lambda table, _mounts: table.forget(entry.id))

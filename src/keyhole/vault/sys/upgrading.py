"""Mounts whose data are brought into the form of another version of their engine, as ``tune`` asks for.

The table says so first, so that on every node nothing answers there but that it will shortly. What a crash cuts off is
done by the next sweep.
"""

from __future__ import annotations

from keyhole.core.identity import Caller
from keyhole.vault.mount_table import Entry, Table
from keyhole.vault.vault import Vault

WARNING = (
    "Upgrading mount from version 1 to version 2. This mount will be unavailable for a brief period and will resume "
    "service shortly."
)


def wanted(entry: Entry, options: dict[str, str]) -> bool:
    """Whether options of a tune ask for an upgrade: there is one, from KV version 1 to 2."""
    return entry.type == "kv" and entry.options.get("version") == "1" and options.get("version") == "2"


async def upgrade_mounts(vault: Vault, org_id: str) -> None:
    """Bring over the data of all mounts of an org that wait for it, and let them answer again."""
    table = await vault.tables.read(org_id)
    for entry in table.entries:
        if entry.id in table.upgrading:
            await _upgrade(vault, org_id, entry)


async def _upgrade(vault: Vault, org_id: str, entry: Entry) -> None:
    state = await vault.compiled.state(org_id)
    mount = state.mounts.by_id(entry.id)
    engine = vault.tables.make_engine(entry.path, entry.type, entry.options)
    if mount is None:
        return  # it was disabled meanwhile
    if engine.upgrade is not None:
        nobody = Caller(state.org.name, state.org.id, "", "", "full", (), await vault.expiry.nobody_acl(state))
        await engine.upgrade(vault.context(state, nobody, mount))

    def done(table: Table, _mounts: object) -> None:
        table.upgraded(entry.id)

    await vault.tables.change(org_id, done)

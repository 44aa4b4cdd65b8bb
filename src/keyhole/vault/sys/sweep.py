"""What ends or happens by itself when it is due: tokens, leases, counts, and work of engines; the store finds it.

A step that fails leaves its entry due, so the next sweep, of this node or another, does it again.
"""

from __future__ import annotations

import contextlib
from functools import partial

from keyhole.core.errors import Conflict, IntegrityError, Unauthenticated
from keyhole.stores import Batch, Delete
from keyhole.vault.captured import MOUNT as CAPTURED
from keyhole.vault.compiled import OrgState
from keyhole.vault.keys import HANDOVER, SYSTEM
from keyhole.vault.leases import MOUNT as LEASES
from keyhole.vault.mount_table import MOUNT as MOUNTS
from keyhole.vault.notices import MOUNT as NOTICES
from keyhole.vault.orgs import MOUNT as ORGS
from keyhole.vault.rotations import MOUNT as ROTATIONS
from keyhole.vault.storage import Change, Storage
from keyhole.vault.sys.chores import Chore, Chores
from keyhole.vault.sys.leaving import remove_org
from keyhole.vault.sys.tokens import end_tokens
from keyhole.vault.sys.unmounting import remove_disabled
from keyhole.vault.sys.upgrading import upgrade_mounts
from keyhole.vault.tokens import MOUNT as TOKENS
from keyhole.vault.vault import Vault

_BATCH = 500
_PASSING = ("approvals", CAPTURED, "limits", "questions")  # mounts whose entries only have to go when they are due


class Sweeper:
    """Sweeps one open vault."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._chores = Chores(vault)
        self._stuck = 0  # due entries that the last sweep could not end; they must not hide the others

    async def sweep(self) -> int:
        """Do what is due; returns how many tokens ended. Leases are on their way at their sources when it returns."""
        vault = self._vault
        ended, stuck = 0, 0
        leases: dict[str, list[str]] = {}
        chores: list[Chore] = []
        due = await vault.store.due(vault.clock.now(), _BATCH + self._stuck)
        for key in due:
            if key.startswith(HANDOVER):
                await self._drop(key)
                continue
            org_id, _, rest = key.partition("/")
            mount = rest.partition("/")[0]
            if org_id == SYSTEM and mount == ORGS and (leaving := vault.orgs.leaving(key)):
                stuck += not await remove_org(vault, leaving, again=True)
                continue
            if org_id == SYSTEM:
                stuck += 1
                continue
            try:
                state = await self._state(org_id)
                if state is None:
                    continue
                if mount == LEASES:
                    leases.setdefault(org_id, []).append(key)
                elif mount == MOUNTS:
                    await remove_disabled(vault, org_id, again=True)
                    upgrade = partial(upgrade_mounts, vault, org_id)
                    chores.append(Chore(f"{org_id}/{MOUNTS}", (org_id, MOUNTS), upgrade))
                elif mount == TOKENS:
                    path = vault.storage(org_id, TOKENS).path(key)
                    ended += await end_tokens(vault, org_id, path.rpartition("/")[2])
                elif mount == NOTICES:
                    stuck += not await vault.notices.take(org_id, vault.storage(org_id, NOTICES).path(key))
                elif mount == ROTATIONS:
                    stuck += 1
                    vault.rotations.take(org_id, vault.storage(org_id, ROTATIONS).path(key))
                elif mount in _PASSING:
                    await _remove(vault.storage(org_id, mount), key)
                else:
                    stuck += 1
                    if (made := next((each for each in state.mounts if each.id == mount), None)) is not None:
                        chores.append(self._chores.of_engine(state, made, key))
            except (Conflict, IntegrityError):  # one that cannot be ended does not keep the others
                stuck += 1
        begun = 0
        for org_id, keys in leases.items():
            taken, bad = await self._take(org_id, keys)
            begun += taken
            stuck += bad
        if begun and len(due) >= _BATCH + self._stuck:
            vault.expiry.go_on()
        self._chores.start(chores)
        self._stuck = min(stuck, _BATCH * 100)
        return ended

    async def _drop(self, key: str) -> None:
        """Remove an entry of the system's own that only has to go when it is due."""
        [entry] = await self._vault.store.get([key])
        with contextlib.suppress(Conflict):
            await self._vault.store.commit(Batch(deletes=[Delete(key, entry.revision)]))

    async def _state(self, org_id: str) -> OrgState | None:
        """The state of an org; of one whose deletion was cut short, the rest is removed."""
        try:
            return await self._vault.compiled.state(org_id)
        except Unauthenticated:
            await self._vault.orgs.purge(org_id)
            return None

    async def _take(self, org_id: str, keys: list[str]) -> tuple[int, int]:
        """Hand the due leases of an org over: of how many the end has begun, and how many cannot be read."""
        expiry, begun, bad = self._vault.expiry, 0, 0
        state = await self._vault.compiled.state(org_id)
        try:
            return await expiry.take(state, keys), 0
        except IntegrityError:
            for key in keys:
                try:
                    begun += await expiry.take(state, [key])
                except IntegrityError:
                    bad += 1
        return begun, bad


async def _remove(storage: Storage, key: str) -> None:
    path = storage.path(key)
    item = await storage.get_one(path)
    if item.data is not None:
        await storage.commit(Change(deletes=[(path, item.revision)]))

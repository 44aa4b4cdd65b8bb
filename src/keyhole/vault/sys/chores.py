"""Work of engines that is due: it goes on beside the sweep, so that what takes long keeps no lease waiting.

A piece that fails or is cut off stays due, so the next sweep, of this node or another, starts it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from keyhole.core.errors import Conflict, KeyholeError, fault_place
from keyhole.core.identity import Caller
from keyhole.core.record import Phase, Record
from keyhole.vault.compiled import OrgState
from keyhole.vault.keys import new_request_id
from keyhole.vault.mounts import Mount
from keyhole.vault.vault import Vault

Chore = Callable[[], Awaitable[None]]
_log = logging.getLogger("keyhole")


class Chores:
    """The pieces of work of one vault that are under way, one after another."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self._running: asyncio.Task[None] | None = None

    def start(self, chores: list[Chore]) -> None:
        """Do these, unless earlier ones are still under way: then the next sweep finds them again."""
        if chores and (self._running is None or self._running.done()):
            self._running = asyncio.get_running_loop().create_task(self._do(chores))
            self._vault.expiry.keep(self._running)

    async def _do(self, chores: list[Chore]) -> None:
        for chore in chores:
            try:
                await chore()
            except KeyholeError as error:
                _log.warning("work that is due has failed: %s", error)
            except Exception as error:  # noqa: BLE001 - a fault of one engine must not stop the work of the others
                _log.error("internal error: %s", fault_place(error))

    def of_engine(self, state: OrgState, mount: Mount, key: str) -> Chore:
        """What an entry of a mount's storage is due for, with its record."""

        async def chore() -> None:
            vault = self._vault
            if mount.engine.due is None:
                return
            nobody = Caller(state.org.name, state.org.id, "", "", "full", (), await vault.expiry.nobody_acl(state))
            context = vault.context(state, nobody, mount)
            below, result = "", "ok"
            try:
                below = await mount.engine.due(context, vault.storage(state.org.id, mount.id).path(key))
            except Conflict:  # another node does it, or somebody changed it meanwhile
                return
            except KeyholeError as error:
                result = error.code
                raise
            finally:
                if below or result != "ok":
                    path = f"{mount.path}{below}"
                    record = Record(phase=Phase.EVENT, id=new_request_id(), operation="due", path=path, result=result)
                    vault.journal.outcome(record.encode(), state.org.id)

        return chore

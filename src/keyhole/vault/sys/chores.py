"""Work of engines that is due: it goes on beside the sweep, so that what takes long keeps no lease waiting.

Each mount has a line of its own with a bounded number of pieces at the same time, and each piece a time limit, so a
database that does not answer delays no other's. A piece that fails or is cut off stays due, so the next sweep, of this
node or another, starts it again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from keyhole.core.errors import Conflict, KeyholeError, UpstreamTimeout, fault_place
from keyhole.core.identity import Caller
from keyhole.core.record import Phase, Record
from keyhole.vault.compiled import OrgState
from keyhole.vault.keys import new_request_id
from keyhole.vault.mounts import Mount
from keyhole.vault.vault import Vault

_log = logging.getLogger("keyhole")


@dataclass(frozen=True, slots=True)
class Chore:
    """One piece of work.

    Attributes:
        key: of the entry that is due; it is not begun twice at the same time.
        line: in which it waits: org and mount.
        do: does it.
    """

    key: str
    line: tuple[str, str]
    do: Callable[[], Awaitable[None]]


class Chores:
    """The pieces of work of one vault that are under way.

    Args:
        vault: whose they are.
        jobs: pieces at the same time, of one line; what finds no place is found again by the next sweep.
        seconds: that a piece of an engine may take.
    """

    def __init__(self, vault: Vault, *, jobs: int = 16, seconds: float = 60.0) -> None:
        self._vault = vault
        self._jobs = jobs
        self._seconds = seconds
        self._running: dict[str, asyncio.Task[None]] = {}
        self._lines: Counter[tuple[str, str]] = Counter()

    def start(self, chores: list[Chore]) -> None:
        """Begin these, as far as there is room and they are not under way."""
        for chore in chores:
            if chore.key in self._running or self._lines[chore.line] >= self._jobs:
                continue
            self._lines[chore.line] += 1
            job = self._running[chore.key] = self._vault.expiry.begin(self._do(chore))
            job.add_done_callback(partial(self._done, chore))

    def _done(self, chore: Chore, _job: asyncio.Task[None]) -> None:
        del self._running[chore.key]
        self._lines[chore.line] -= 1
        if not self._lines[chore.line]:
            del self._lines[chore.line]

    async def _do(self, chore: Chore) -> None:
        try:
            await chore.do()
        except KeyholeError as error:
            _log.warning("work that is due has failed: %s", error)
        except Exception as error:  # noqa: BLE001 - a fault of one engine must not stop the work of the others
            _log.error("internal error: %s", fault_place(error))

    def of_engine(self, state: OrgState, mount: Mount, key: str) -> Chore:
        """What an entry of a mount's storage is due for, with its record."""

        async def do() -> None:
            vault = self._vault
            if mount.engine.due is None:
                return
            nobody = Caller(state.org.name, state.org.id, "", "", "full", (), await vault.expiry.nobody_acl(state))
            context = vault.context(state, nobody, mount)
            below, result, request_id = "", "ok", new_request_id()
            try:
                async with asyncio.timeout(self._seconds):
                    below = await mount.engine.due(context, vault.storage(state.org.id, mount.id).path(key))
            except Conflict:  # another node does it, or somebody changed it meanwhile
                return
            except TimeoutError:
                result = UpstreamTimeout.code
                raise UpstreamTimeout(f"{mount.path}: it took more than {self._seconds:g} seconds") from None
            except KeyholeError as error:
                result = error.code
                if error.alarming:
                    await vault.alarm(state, nobody, request_id, "", error.reason)
                raise
            finally:
                if below or result != "ok":
                    path = f"{mount.path}{below}"
                    record = Record(phase=Phase.EVENT, id=request_id, operation="due", path=path, result=result)
                    vault.journal.outcome(record.encode(), state.org.id)
                    vault.meters.due[mount.engine.type, result] += 1

        return Chore(key, (state.org.id, mount.id), do)

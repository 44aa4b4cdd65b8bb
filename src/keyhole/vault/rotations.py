"""The rotations of all orgs: where they lie, whose turn it is, and which values are to be masked meanwhile."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from keyhole.core.errors import Conflict, InvalidRequest, KeyholeError, NotFound, fault_place
from keyhole.core.path import CERTIFICATE
from keyhole.core.value import Secret
from keyhole.vault.compiled import OrgState
from keyhole.vault.rotating import Steps, Work
from keyhole.vault.rotation import Both, Rotation, Step
from keyhole.vault.storage import Storage

if TYPE_CHECKING:
    from keyhole.vault.vault import Vault

MOUNT = "rotations"
_NONE: Mapping[str, tuple[Secret, ...]] = MappingProxyType({})
_log = logging.getLogger("keyhole.rotations")


class Rotations:
    """The rotations of all orgs of an open vault.

    Args:
        vault: whose they are.

    Attributes:
        steps: does them.
    """

    def __init__(self, vault: Vault) -> None:
        self.steps = Steps(vault)
        self._vault = vault
        self._turns = asyncio.Semaphore(self.steps.limits.jobs)

    def storage(self, org_id: str) -> Storage:
        """Where they lie: ``r/NAME`` and, while one is under way, ``v/NAME``.

        They are part of an org's configuration, so that every node masks both values from the next request on.
        """
        return self._vault.storage(org_id, MOUNT, configures=True)

    async def former(self, org_id: str) -> dict[tuple[str, str], tuple[Secret, ...]]:
        """Both values of what is being rotated, by path and field."""
        storage, found = self.storage(org_id), dict[tuple[str, str], tuple[Secret, ...]]()
        names = await storage.list("v")
        for item in await storage.get(*(f"v/{name}" for name in names)):
            if item.data is not None:
                for key, values in Both.decode(item.data).replaced().items():
                    found[key] = (*found.get(key, ()), *values)
        return found

    async def masked(
        self, state: OrgState, secrets: Sequence[str], lent: Iterable[str]
    ) -> Mapping[str, tuple[Secret, ...]]:
        """Both values of what is lent and being rotated, by field: they are to be masked in answers.

        Args:
            state: of the org.
            secrets: paths of what is lent.
            lent: their fields.
        """
        former = await self.under_way(state)
        if not former:
            return _NONE
        return {
            name: found
            for name in lent
            for path in secrets
            if (found := former.get((path, name.removeprefix(CERTIFICATE))))
        }

    async def under_way(self, state: OrgState) -> Mapping[tuple[str, str], tuple[Secret, ...]]:
        """What is being rotated, by path and field, each with both values."""
        if state.former is None:
            state.former = await self.former(state.org.id)
        return state.former

    async def load(self, org_id: str, name: str) -> tuple[Rotation, int]:
        """A rotation, and the revision of its entry. Raises ``NotFound``."""
        item = await self.storage(org_id).get_one(f"r/{name}")
        if item.data is None:
            raise NotFound(f"there is no rotation {name!r}", "keyhole rotation list")
        return Rotation(**json.loads(item.data)), item.revision

    def take(self, org_id: str, path: str) -> None:
        """Go on with a rotation that is due; returns at once."""
        name = path.removeprefix("r/")
        self._vault.expiry.begin_once(f"rotation/{org_id}/{name}", lambda: self._quietly(org_id, name))

    async def _quietly(self, org_id: str, name: str) -> None:
        try:
            async with self._turns:
                await self.run(org_id, name)
        except Conflict:  # another node has it
            return
        except KeyholeError as error:
            _log.warning("the rotation %s could not go on: %s", name, error.reason)
        except Exception as error:  # noqa: BLE001 - a fault in one must not stop the others
            _log.error("internal error: %s", fault_place(error))

    async def run(
        self, org_id: str, name: str, *, asked: bool = False, hurry: bool = False, wait: float = 0
    ) -> Rotation:
        """Go on with a rotation as far as it can go now.

        Args:
            org_id: of the org.
            name: of the rotation.
            asked: begin also when it is not due.
            hurry: without any grace.
            wait: seconds to wait for a source that does not know its new value yet.

        Raises:
            NotFound: there is none of this name.
            InvalidRequest: somebody else is at it.
            Conflict: somebody else was faster.
        """
        work = await self._work(org_id, name)
        rotation, now = work.rotation, self._vault.clock.now()
        if rotation.claimed > now:
            if asked:
                raise InvalidRequest("somebody is at this rotation at this moment", "try again in a minute")
            return rotation
        if rotation.step == Step.IDLE and not asked and (rotation.due is None or rotation.due > now):
            return rotation
        if rotation.step not in {Step.IDLE, Step.GRACE} and not asked and rotation.next > now:
            return rotation
        rotation.hurry = rotation.hurry or hurry
        deadline = now + wait
        while await self.steps.go(work, asked=asked):
            asked = False
        while work.rotation.step == Step.MADE and self._vault.clock.now() < deadline:
            await asyncio.sleep(self.steps.limits.poll)
            while await self.steps.go(work, asked=False):
                pass
        return work.rotation

    async def _work(self, org_id: str, name: str) -> Work:
        storage = self.storage(org_id)
        item, both = await storage.get(f"r/{name}", f"v/{name}")
        if item.data is None:
            raise NotFound(f"there is no rotation {name!r}", "keyhole rotation list")
        state = await self._vault.compiled.state(org_id)
        values = Both.decode(both.data) if both.data is not None else None
        return Work(name, state, storage, Rotation(**json.loads(item.data)), item.revision, values, both.revision)

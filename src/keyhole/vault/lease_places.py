"""How many leases a lease-count quota has, counted where they are stored.

``c/<rules>/<quota>`` of the org's mount ``leases`` holds the number, and one for each caller where a quota is for
each. A lease that begins or ends changes it in its own commit, so two that are begun at once, on whatever servers,
never take the same place. ``rules`` is a digest of which quota counts for which path: when that changes, all is
counted anew. Whoever is about to refuse counts the leases themselves from time to time, so a count that is wrong,
because a server did not know the newest rules yet, gets right.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from keyhole.core.errors import Conflict, LeaseLimit
from keyhole.vault.storage import Change, Item, Storage, Write

FOLDER = "c"
_UNKNOWN = -1  # somebody is counting
_TRUSTED = 60.0  # seconds for which a count that was checked is not checked again
_RETRIES = 20


class _Known:
    """What a process keeps of one count."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.checked = 0.0


class Places:
    """The counts of all orgs, as far as this process has met them."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._known: dict[tuple[str, str], _Known] = {}

    def at(
        self, storage: Storage, org_id: str, rules: str, name: str, most: int, count: Callable[[], Awaitable[int]]
    ) -> Place:
        """The count of one quota.

        Args:
            storage: of the leases of the org.
            org_id: of the org.
            rules: digest of the quotas.
            name: of the quota.
            most: leases that there may be.
            count: counts the leases themselves.
        """
        key = (org_id, f"{FOLDER}/{rules}/{name}")
        if key not in self._known:  # what counted for other rules is not asked for again
            of_others = [
                each for each in self._known if each[0] == org_id and not each[1].startswith(f"{FOLDER}/{rules}/")
            ]
            for each in of_others:
                del self._known[each]
            self._known[key] = _Known()
        return Place(storage, key[1], most, count, self._known[key], self._now)


class Place:
    """One lease's place in the count of its quota. ``lock`` keeps those of this process from each other's way."""

    def __init__(
        self,
        storage: Storage,
        path: str,
        most: int,
        count: Callable[[], Awaitable[int]],
        known: _Known,
        now: Callable[[], float],
    ) -> None:
        self.lock = known.lock
        self._storage = storage
        self._path = path
        self._most = most
        self._count = count
        self._known = known
        self._now = now

    async def take(self, *, whatever: bool = False) -> Write:
        """What the commit of a new lease changes besides.

        Args:
            whatever: the lease is there already, so the limit does not count.

        Raises:
            LeaseLimit: there are as many as may be.
        """
        item = await self._storage.get_one(self._path)
        number = _number(item)
        if number == _UNKNOWN:
            item, number = await self._count_first(item)
        if number >= self._most and not whatever and self._now() - self._known.checked >= _TRUSTED:
            item, number = await self._store(item)
        if number >= self._most and not whatever:
            raise LeaseLimit("lease count quota exceeded", "revoke leases that are no longer needed")
        return Write(self._path, str(number + 1).encode(), item.revision)

    async def give_back(self) -> Write | None:
        """What the commit that forgets a lease changes besides; nothing where nobody has counted yet."""
        item = await self._storage.get_one(self._path)
        if item.data is None:
            return None
        # While somebody is counting the same is written again, so that he notices and counts once more.
        number = _number(item)
        after = number if number == _UNKNOWN else max(0, number - 1)
        return Write(self._path, str(after).encode(), item.revision)

    async def _count_first(self, item: Item) -> tuple[Item, int]:
        """From the mark on, whoever begins or ends a lease changes it, so a count that still finds it is exact."""
        folder = "/".join(self._path.split("/")[:2]) + "/"
        for path in await self._storage.list(FOLDER, recursive=True):
            if not f"{FOLDER}/{path}".startswith(folder):
                old = await self._storage.get_one(f"{FOLDER}/{path}")
                with contextlib.suppress(Conflict):
                    await self._storage.commit(Change(deletes=[(f"{FOLDER}/{path}", old.revision)]))
        for _ in range(_RETRIES):
            mark = Write(self._path, str(_UNKNOWN).encode(), item.revision)
            with contextlib.suppress(Conflict):
                await self._storage.commit(Change([mark]))
                return await self._store(Item(mark.data, item.revision + 1))
            item = await self._storage.get_one(self._path)
            if _number(item) != _UNKNOWN:
                return item, _number(item)
        raise Conflict("leases are being made by many at once", "try again")

    async def _store(self, item: Item) -> tuple[Item, int]:
        """Count, and store that. Raises ``Conflict`` when a lease began or ended meanwhile."""
        number = await self._count()
        await self._storage.commit(Change([Write(self._path, str(number).encode(), item.revision)]))
        self._known.checked = self._now()
        return Item(str(number).encode(), item.revision + 1), number


def _number(item: Item) -> int:
    return _UNKNOWN if item.data is None else int(item.data)

"""The services of an org, read once for all calls.

An org may have ten thousand. So they have an epoch of their own: other changes of the configuration leave them alone,
and of their own changes only what changed is opened and read anew. The loop answers others while many are read.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from keyhole.core.errors import Conflict
from keyhole.vault.storage import Storage

if TYPE_CHECKING:
    from keyhole.core.service import Service

_TRIES = 5


class Bindings:
    """The services of an org at one revision of their epoch.

    Args:
        revision: of the epoch.
        entries: services that were read at earlier revisions, by store key, each with the revision of its entry.

    Attributes:
        services: by name; ``None`` until they were read.
        derived: what a higher floor compiled of them, such as the broker's directory.
    """

    __slots__ = ("_entries", "_reading", "_revision", "derived", "services")

    def __init__(self, revision: int, entries: Mapping[str, tuple[int, Service]] | None = None) -> None:
        self._revision = revision
        self._entries = entries or {}
        self._reading = asyncio.Lock()
        self.services: Mapping[str, Service] | None = None
        self.derived: object | None = None

    def at(self, revision: int) -> Bindings:
        """These at another revision, of which only what differs is read; the same ones at the same."""
        return self if revision == self._revision else Bindings(revision, self._entries)

    async def read(self, storage: Storage) -> Mapping[str, Service]:
        """Read them, once for all who ask at the same time. Raises ``Conflict`` when they change faster than that."""
        async with self._reading:
            if self.services is None:
                for _ in range(_TRIES):
                    *_, before = await storage.epochs()
                    self._entries = await self._scan(storage)
                    *_, after = await storage.epochs()
                    if before == after:  # else some are of before a change and others of after it
                        break
                else:
                    raise Conflict("the services of the org are being changed by many at once", "try again")
                found = sorted((service for _, service in self._entries.values()), key=lambda service: service.name)
                self.services = {service.name: service for service in found}
            return self.services

    async def _scan(self, storage: Storage) -> Mapping[str, tuple[int, Service]]:
        seen = {key: revision for key, (revision, _) in self._entries.items()}
        found = {}
        async for part in storage.scan(seen):
            for key, revision, path, data in part:
                found[key] = self._entries[key] if data is None else (revision, decode(path, data))
            await asyncio.sleep(0)
        return found


def decode(name: str, data: bytes) -> Service:
    """A service as its engine stored it."""
    from keyhole.core.service import Service  # noqa: PLC0415  # what lists secrets reads no service

    return Service.from_data(name, json.loads(data))

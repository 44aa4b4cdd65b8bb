"""The services of an org, read once for all calls.

An org may have ten thousand. So they have an epoch of their own, which notes what was changed lately: other changes of
the configuration leave them alone, and of their own changes only what changed is read anew, and only that is changed in
what was compiled of them. The loop answers others while many are read.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from keyhole.core.errors import Conflict
from keyhole.core.layered import Layered
from keyhole.vault.storage import Scanned, Storage

if TYPE_CHECKING:
    from keyhole.core.service import Service

_TRIES = 5


class Derived(Protocol):
    """What a higher floor compiled of all services, such as the broker's directory. It never changes itself."""

    def changed(self, gone: Sequence[Service], come: Sequence[Service]) -> Self:
        """The same of other services: one that was changed is among both."""


D = TypeVar("D", bound=Derived)


class _Read:
    """The services at one revision of their epoch.

    Attributes:
        revision: of the epoch.
        entries: by store key, each with the revision of its entry.
        services: by name, in the order of the names.
        derived: what was compiled of them, by what made it.
    """

    def __init__(
        self,
        revision: int = 0,
        entries: Layered[str, tuple[int, Service]] | None = None,
        services: Layered[str, Service] | None = None,
        derived: dict[object, Any] | None = None,
    ) -> None:
        self.revision = revision
        self.entries = Layered() if entries is None else entries
        self.services = Layered(ordered=True) if services is None else services
        self.derived = {} if derived is None else derived

    def has(self, part: Scanned) -> bool:
        """Whether an entry is as it was."""
        known = self.entries.get(part.key)
        return part.data is None if known is None else known[0] == part.revision

    def with_changes(self, revision: int, changed: Mapping[str, tuple[int, Service] | None]) -> _Read:
        """These at another revision, at which these entries are others, or gone."""
        gone = [known[1] for key in changed if (known := self.entries.get(key)) is not None]
        there = {key: entry for key, entry in changed.items() if entry is not None}
        come = [service for _, service in there.values()]
        if not changed:
            return _Read(revision, self.entries, self.services, self.derived)
        return _Read(
            revision,
            self.entries.changed(changed, there),
            self.services.changed((service.name for service in gone), {service.name: service for service in come}),
            {kind: each.changed(gone, come) for kind, each in self.derived.items()},
        )


class Bindings:
    """The services of an org at one revision of their epoch.

    Args:
        revision: of the epoch.
        before: as they were read at an earlier one.

    Attributes:
        services: by name; ``None`` until they were read.
        derived: what was compiled of them, by what made it, as ``compiled`` does; empty until they were read.
    """

    __slots__ = ("_before", "_read", "_reading", "_revision", "derived", "services")

    def __init__(self, revision: int, before: _Read | None = None) -> None:
        self._revision = revision
        self._before = before
        self._read: _Read | None = None
        self._reading = asyncio.Lock()
        self.services: Mapping[str, Service] | None = None
        self.derived: Mapping[object, Any] = {}

    def at(self, revision: int) -> Bindings:
        """These at another revision, of which only what differs is read; the same ones at the same."""
        return self if revision == self._revision else Bindings(revision, self._read or self._before)

    def compiled(self, make: Callable[[Iterable[Service]], D]) -> D:
        """What is made of the services, once they were read; at a later revision it is made from what changed."""
        found: D | None = self.derived.get(make)
        if found is None:
            if self._read is None:
                raise RuntimeError("the services were not read")
            found = self._read.derived[make] = make(self._read.services.values())
        return found

    async def read(self, storage: Storage) -> Mapping[str, Service]:
        """Read them, once for all who ask at the same time. Raises ``Conflict`` when they change faster than that."""
        async with self._reading:
            if self._read is None:
                read = await self._followed(storage)
                for _ in range(_TRIES):
                    read = read or await self._scanned(storage)
                if read is None:
                    raise Conflict("the services of the org are being changed by many at once", "try again")
                self._read, self._before = read, None
                self.services, self.derived = read.services, read.derived
            return self._read.services

    async def _followed(self, storage: Storage) -> _Read | None:
        """What was read before, with what was changed since; ``None`` where that is not known."""
        before = self._before
        changed = await storage.changed(before.revision) if before is not None else None
        if before is None or changed is None:
            return None
        revision, parts = changed
        return before.with_changes(revision, {part.key: _entry(part) for part in parts if not before.has(part)})

    async def _scanned(self, storage: Storage) -> _Read | None:
        """All of them, of which only those are opened that have changed; ``None`` where they changed meanwhile."""
        before = self._before or _Read()
        seen = {key: revision for key, (revision, _) in before.entries.items()}
        *_, revision = await storage.epochs()
        changed: dict[str, tuple[int, Service] | None] = {}
        there = set[str]()
        async for parts in storage.scan(seen):
            there.update(part.key for part in parts)
            changed |= {part.key: _entry(part) for part in parts if part.data is not None}
            await asyncio.sleep(0)
        *_, after = await storage.epochs()
        if revision != after:  # some are of before a change and others of after it
            return None
        return before.with_changes(revision, changed | dict.fromkeys(seen.keys() - there))


def _entry(part: Scanned) -> tuple[int, Service] | None:
    return None if part.data is None else (part.revision, decode(part.path, part.data))


def decode(name: str, data: bytes) -> Service:
    """A service as its engine stored it."""
    from keyhole.core.service import Service  # noqa: PLC0415  # what lists secrets reads no service

    return Service.from_data(name, json.loads(data))

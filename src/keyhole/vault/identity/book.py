"""The book of an org's identities: read, changed as a whole, and written in one commit.

What is found by a name, an alias or a merged id is found through an entry of its own, which a commit keeps in step. A
commit holds only if nothing it was made from has changed, so two that make the same name, alias or group cannot both.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from keyhole.core.errors import Conflict
from keyhole.vault.identity import records
from keyhole.vault.identity.records import Entity, Group
from keyhole.vault.storage import Change, Item, Storage, Write

_PAGE = 200
Record = Entity | Group


class Book:
    """What one request reads and changes; made anew for every attempt.

    Args:
        storage: of the org's identities.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._read: dict[str, tuple[Record | None, int]] = {}
        self._after: dict[str, Record | None] = {}
        self._needed: dict[str, int] = {}

    async def entity(self, entity_id: str) -> Entity | None:
        """The entity of this id."""
        found = await self._one(f"e/{entity_id}") if _is_id(entity_id) else None
        return found if isinstance(found, Entity) else None

    async def group(self, group_id: str) -> Group | None:
        """The group of this id."""
        found = await self._one(f"g/{group_id}") if _is_id(group_id) else None
        return found if isinstance(found, Group) else None

    async def now_of(self, entity_id: str) -> Entity | None:
        """The entity of this id, or the one that it was merged into."""
        return await self.entity(entity_id) or await self.entity(await self._id_at(f"m/{entity_id}"))

    async def entity_named(self, name: str) -> Entity | None:
        """The entity of this name."""
        return await self.entity(await self._id_at(records.name_path("entity", name)))

    async def group_named(self, name: str) -> Group | None:
        """The group of this name."""
        return await self.group(await self._id_at(records.name_path("group", name)))

    async def entity_of(self, accessor: str, name: str) -> Entity | None:
        """The entity that has an alias of this name at a mount."""
        return await self.entity(await self._id_at(records.factors_path("entity", accessor, name)))

    async def group_of(self, accessor: str, name: str) -> Group | None:
        """The group that has an alias of this name at a mount."""
        return await self.group(await self._id_at(records.factors_path("group", accessor, name)))

    async def entity_of_alias(self, alias_id: str) -> Entity | None:
        """The entity that has the alias of this id."""
        return await self.entity(await self._id_at(records.alias_path("entity", alias_id)))

    async def group_of_alias(self, alias_id: str) -> Group | None:
        """The group that has the alias of this id."""
        return await self.group(await self._id_at(records.alias_path("group", alias_id)))

    async def entities(self) -> list[Entity]:
        """All entities, by id."""
        return [found for found in await self._all("e") if isinstance(found, Entity)]

    async def groups(self) -> list[Group]:
        """All groups, by id."""
        return [found for found in await self._all("g") if isinstance(found, Group)]

    async def external_members(self, group: Group) -> Sequence[str]:
        """Ids of the entities that their logins put into an external group."""
        if group.alias is None:
            return []
        return await self._storage.list(records.claim_path(group.alias.accessor, group.alias.name))

    async def ids(self, kind: str) -> Sequence[str]:
        """Ids of all entities (``e``) or groups (``g``)."""
        return await self._storage.list(kind)

    def put(self, record: Record) -> None:
        """Write it with the commit."""
        self._after[record.path] = record

    def drop(self, record: Record) -> None:
        """Remove it with the commit."""
        self._after[record.path] = None

    def require(self, record: Record) -> None:
        """The commit only holds if this, which was read from here, is still the same."""
        self._needed[record.path] = self._read[record.path][1]

    @property
    def changed(self) -> bool:
        """Whether there is anything to write."""
        return bool(self._after)

    async def commit(self) -> None:
        """Write all of it, or nothing. Raises ``Conflict`` when something it was made from has changed."""
        change = Change()
        old: dict[str, str] = {}
        new: dict[str, str] = {}
        for path, after in self._after.items():
            before, revision = self._read.get(path, (None, 0))
            old |= before.index() if before else {}
            new |= after.index() if after else {}
            if after is not None:
                change.writes.append(Write(path, after.encode(), revision))
            elif before is not None:
                change.deletes.append((path, revision))
        await self._index(change, old, new)
        change.checks.extend((path, revision) for path, revision in self._needed.items() if path not in self._after)
        if change.writes or change.deletes:
            await self._storage.commit(change)

    async def _index(self, change: Change, old: dict[str, str], new: dict[str, str]) -> None:
        """Bring the entries by which records are found into step."""
        moved = [path for path in {**old, **new} if old.get(path) != new.get(path)]
        items = await self._storage.get(*moved) if moved else []
        for path, item in zip(moved, items, strict=True):
            there = item.data.decode() if item.data is not None else ""
            if there and there != old.get(path):
                raise Conflict("it was made by somebody else meanwhile", "try again")
            if path in new:
                change.writes.append(Write(path, new[path].encode(), item.revision))
            elif there:
                change.deletes.append((path, item.revision))

    async def _id_at(self, path: str) -> str:
        item = await self._storage.get_one(path)
        return item.data.decode() if item.data is not None else ""

    async def _one(self, path: str) -> Record | None:
        if path in self._after:
            return self._after[path]
        if path not in self._read:
            self._note([path], [await self._storage.get_one(path)])
        return self._read[path][0]

    async def _all(self, kind: str) -> list[Record | None]:
        paths = [f"{kind}/{each}" for each in await self._storage.list(kind)]
        for start in range(0, len(paths), _PAGE):
            page = [path for path in paths[start : start + _PAGE] if path not in self._read]
            self._note(page, await self._storage.get(*page) if page else [])
        return [await self._one(path) for path in paths]

    def _note(self, paths: Iterable[str], items: Iterable[Item]) -> None:
        for path, item in zip(paths, items, strict=True):
            decode = records.decode_entity if path.startswith("e/") else records.decode_group
            self._read[path] = (decode(item.data) if item.data is not None else None, item.revision)


def _is_id(text: str) -> bool:
    """Could it be an id? What else a peer sent must not name another entry."""
    return bool(text) and len(text) <= 64 and text.isascii() and text.replace("-", "").isalnum()

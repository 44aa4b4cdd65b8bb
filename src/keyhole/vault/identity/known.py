"""What is compiled of an org's identities: who is in which group, and what that gives at request time.

Groups are read when they are first needed, entities one by one. All of it is of one revision of the org's identities;
when that moves it is thrown away, so a change holds for the next request on every node.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from keyhole.core.identity import AliasView, GroupView, IdentityView, union
from keyhole.vault.storage import Storage

if TYPE_CHECKING:
    from keyhole.vault.identity.records import Entity, Group

_KEPT = 20_000


class Person(NamedTuple):
    """What an entity is at request time.

    Attributes:
        view: for templates.
        policies: of the entity and of all its groups, sorted.
        disabled: it is refused.
    """

    view: IdentityView
    policies: tuple[str, ...]
    disabled: bool


class Groups:
    """The groups of an org and who is in them.

    Args:
        groups: all of them.
    """

    def __init__(self, groups: Iterable[Group]) -> None:
        self.by_id: dict[str, Group] = {group.id: group for group in groups}
        self.parents: dict[str, list[str]] = {}
        self._of: dict[str, list[str]] = {}
        self._claimed: dict[tuple[str, str], str] = {}
        for group in self.by_id.values():
            if group.alias is not None:
                self._claimed[group.alias.accessor, group.alias.name] = group.id
            for child in group.groups:
                self.parents.setdefault(child, []).append(group.id)
            for member in group.members:
                self._of.setdefault(member, []).append(group.id)

    def direct(self, entity: Entity) -> tuple[str, ...]:
        """Ids of the groups that an entity is in itself."""
        external = (self._claimed[claim] for claim in entity.claims() if claim in self._claimed)
        return union(self._of.get(entity.id, ()), external)

    def above(self, group_ids: Iterable[str]) -> set[str]:
        """These groups and all that they are in."""
        found: set[str] = set()
        waiting = list(group_ids)
        while waiting:
            current = waiting.pop()
            if current not in found:
                found.add(current)
                waiting += self.parents.get(current, ())
        return found

    def is_below(self, group_id: str, other: str) -> bool:
        """Would a membership of ``group_id`` in ``other`` close a circle?"""
        return group_id in self.above([other])


class Known:
    """The identities of an org at one revision.

    Attributes:
        revision: of the entry that moves with every change of them.
    """

    def __init__(self, revision: int) -> None:
        self.revision = revision
        self._groups: Groups | None = None
        self._people: dict[str, Person | None] = {}

    async def person(self, storage: Storage, entity_id: str) -> Person | None:
        """The entity of this id, or the one that it was merged into; ``None`` when there is none (any more)."""
        if entity_id not in self._people:
            from keyhole.vault.identity.book import Book  # noqa: PLC0415  # the owner of a local vault is no entity

            if self._groups is None:
                self._groups = Groups(await Book(storage).groups())
            entity = await Book(storage).now_of(entity_id)
            if len(self._people) >= _KEPT:
                self._people.clear()
            self._people[entity_id] = None if entity is None else compile_person(entity, self._groups)
        return self._people[entity_id]


def compile_person(entity: Entity, groups: Groups) -> Person:
    """What an entity is at request time."""
    found = [groups.by_id[each] for each in sorted(groups.above(groups.direct(entity))) if each in groups.by_id]
    policies = union(entity.policies, *(group.policies for group in found))
    return Person(_view(entity, found), policies, entity.disabled)


def _view(entity: Entity, groups: Iterable[Group]) -> IdentityView:
    aliases = {
        alias.accessor: AliasView(
            id=alias.id, name=alias.name, metadata=alias.metadata, custom_metadata=alias.custom_metadata
        )
        for alias in entity.aliases
    }
    views = tuple(GroupView(id=group.id, name=group.name, metadata=group.metadata) for group in groups)
    return IdentityView(
        id=entity.id,
        name=entity.name,
        metadata=entity.metadata,
        aliases=aliases,
        groups=views,
        version=_digest(entity, groups),
    )


def _digest(entity: Entity, groups: Iterable[Group]) -> str:
    """Another text whenever something has changed that a template can name."""
    aliases: list[tuple[str, str, str, Mapping[str, str], Mapping[str, str]]] = [
        (a.id, a.name, a.accessor, a.metadata, a.custom_metadata) for a in entity.aliases
    ]
    parts = (entity.name, entity.metadata, aliases, [(g.id, g.name, g.metadata) for g in groups])
    return sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

"""``identity/entity/merge``: several entities turn out to be one. Their tokens are those of the one that stays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from keyhole.core.errors import InvalidRequest
from keyhole.core.identity import union
from keyhole.core.request import Operation
from keyhole.engines import Call, Context, Field, Route
from keyhole.vault.identity import fields
from keyhole.vault.identity.book import Book
from keyhole.vault.identity.desk import Desk, given_by_entity
from keyhole.vault.identity.records import Alias, Entity

if TYPE_CHECKING:
    from keyhole.vault.vault import Vault

_AT_ONCE = 1000


class _Handlers(Desk):
    """Handler of the merge route."""

    async def merge(self, context: Context, call: Call) -> None:
        from_ids = fields.ids(call.data, "from_entity_ids", _AT_ONCE) or ()
        to_id, book = fields.text(call.data, "to_entity_id"), self.book(context)
        keep = fields.ids(call.data, "conflicting_alias_ids_to_keep", _AT_ONCE) or ()
        if not from_ids:
            raise InvalidRequest("missing entity ids to merge from", 'send {"from_entity_ids": ["…"]}')
        if not to_id:
            raise InvalidRequest("missing entity id to merge to", 'send {"to_entity_id": "…"}')
        if len(from_ids) > 1 and keep:
            raise InvalidRequest(
                "aliases conflicts cannot be resolved with multiple from entity ids - merge one entity at a time"
            )
        if to_id in from_ids:
            raise InvalidRequest("to_entity_id should not be present in from_entity_ids")
        target = await book.entity(to_id)
        if target is None:
            raise InvalidRequest("entity id to merge to is invalid", "list identity/entity/id")
        sources = [await book.entity(each) for each in from_ids]
        merged = [source for source in sources if source is not None]
        if len(merged) < len(sources):
            raise InvalidRequest("entity id to merge from is invalid", "list identity/entity/id")
        groups = await self.groups(book)
        gained = {each for one in (target, *merged) for each in given_by_entity(one, groups)}
        fields.require_grantable(context, call, gained)
        await self.move(book, target, merged, resolved(target, merged, keep), context.now)

    @staticmethod
    async def move(
        book: Book, target: Entity, merged: Sequence[Entity], aliases: tuple[Alias, ...], now: float
    ) -> None:
        """Write the one entity in the place of all."""
        gone = {entity.id for entity in merged}
        claims = [(entity, alias) for entity in (target, *merged) for alias in entity.aliases]
        kept = {alias.id for alias in aliases}
        book.put(
            replace(
                target,
                aliases=aliases,
                policies=union(target.policies, *(entity.policies for entity in merged)),
                merged=union(target.merged, gone, *(entity.merged for entity in merged)),
                disabled=target.disabled or any(entity.disabled for entity in merged),
                external={
                    alias.accessor: names
                    for entity, alias in claims
                    if alias.id in kept and (names := entity.external.get(alias.accessor))
                },
                updated=now,
            )
        )
        for entity in merged:
            book.drop(entity)
        for group in await book.groups():
            if gone & set(group.members):
                book.put(replace(group, members=union({*group.members} - gone, [target.id])))
        await book.commit()


def resolved(target: Entity, merged: Sequence[Entity], keep: Sequence[str]) -> tuple[Alias, ...]:
    """The aliases of all, one for each mount.

    Raises:
        InvalidRequest: there are two for a mount, and ``keep`` does not say which one stays.
    """
    aliases = {alias.accessor: alias for alias in target.aliases}
    conflicts = []
    taken: set[str] = set()
    for entity in merged:
        for alias in entity.aliases:
            moved = replace(alias, merged_from=union(alias.merged_from, [entity.id]))
            there = aliases.get(alias.accessor)
            if there is None or (alias.id in keep and there.id not in keep):
                aliases[alias.accessor] = moved
            elif alias.accessor in taken:
                raise InvalidRequest(
                    f"mount accessor {alias.accessor} found in multiple fromEntities, "
                    "merge should be done with one fromEntity at a time"
                )
            elif (alias.id in keep) == (there.id in keep):
                conflicts.append(f"{alias.id}, {there.id}")
            taken.add(alias.accessor)
    if conflicts:
        raise InvalidRequest(
            "conflicting mount accessors in following alias IDs and neither were present in "
            f"conflicting_alias_ids_to_keep: {'; '.join(conflicts)}",
            "say in conflicting_alias_ids_to_keep which one of each pair stays",
        )
    return tuple(aliases.values())


def routes(vault: Vault) -> tuple[Route, ...]:
    """The table."""
    r = _Handlers(vault)
    return (
        Route(
            "entity/merge",
            {Operation.CREATE: r.merge},
            fields=(
                Field("from_entity_ids", "entities that end", "list"),
                Field("to_entity_id", "the one that stays", "string"),
                Field("conflicting_alias_ids_to_keep", "of two aliases at one mount, the one that stays", "list"),
                Field("force", "ignored: there is nothing here that it would decide", "boolean"),
            ),
            help="Merge entities into one.",
        ),
    )

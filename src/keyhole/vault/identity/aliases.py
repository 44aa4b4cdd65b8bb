"""``identity/entity-alias``: the names of entities at login mounts. An entity has at most one at a mount."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.request import Operation, Reply
from keyhole.engines import Call, Context, Field, Route
from keyhole.vault.identity import fields, shown
from keyhole.vault.identity.book import Book
from keyhole.vault.identity.desk import Desk, given_by_entity
from keyhole.vault.identity.entering import new_alias, new_entity, with_claims
from keyhole.vault.identity.records import Alias, Entity

if TYPE_CHECKING:
    from keyhole.vault.vault import Vault


class _Handlers(Desk):
    """Handlers of the entity alias routes."""

    async def write(self, context: Context, call: Call) -> Reply | None:
        data, book = {**call.data, **call.params}, self.book(context)
        alias_id, accessor = fields.text(data, "id"), fields.text(data, "mount_accessor")
        name = fields.text(data, "name", fields.LONGEST_ALIAS)
        target = fields.text(data, "canonical_id") or fields.text(data, "entity_id")
        custom = fields.metadata(data, "custom_metadata")
        if alias_id:
            owner = await book.entity_of_alias(alias_id)
            if owner is None:
                raise InvalidRequest("invalid alias ID provided", "leave the id out to make a new one")
            return await self.update(
                context, call, book, (owner, _own(owner, alias_id)), (name, accessor, target, custom)
            )
        if not (accessor and name):
            raise InvalidRequest("'id' or 'mount_accessor' and 'name' must be provided")
        place, owner = await self.place(context, accessor), await book.entity_of(accessor, name)
        if owner is not None:
            alias = next(each for each in owner.aliases if each.accessor == accessor)
            return await self.update(context, call, book, (owner, alias), (name, accessor, target, custom))
        entity = await self.target(book, target) if target else new_entity(context.now)
        await self.require_free(context, call, book, entity, accessor)
        alias = new_alias(place, name, context.now, {}, custom or {})
        book.put(replace(entity, aliases=(*entity.aliases, alias), updated=context.now))
        await book.commit()
        return Reply({"id": alias.id, "canonical_id": entity.id})

    async def update(
        self,
        context: Context,
        call: Call,
        book: Book,
        found: tuple[Entity, Alias],
        said: tuple[str, str, str, dict[str, str] | None],
    ) -> Reply | None:
        """Change an alias, and move it to another entity where that is said."""
        owner, alias = found
        name, accessor, target, custom = said
        place = await self.place(context, accessor or alias.accessor) if accessor or name else None
        after = replace(
            alias, name=name or alias.name, custom_metadata=alias.custom_metadata if custom is None else custom
        )
        if place is not None:
            after = replace(after, accessor=place.accessor, mount_path=place.path, mount_type=place.type)
        entity = await self.target(book, target) if target else owner
        if after == alias and entity.id == owner.id:
            return None
        other = await book.entity_of(after.accessor, after.name)
        if other is not None and all(each.id != alias.id for each in other.aliases):
            raise InvalidRequest("alias with combination of mount accessor and name already exists")
        left = tuple(each for each in owner.aliases if each.id != alias.id)
        base = replace(owner, aliases=left)
        if entity.id != owner.id:
            book.put(replace(base, updated=context.now, external=with_claims(owner, alias.accessor)))
            base = entity
        await self.require_free(context, call, book, base, after.accessor)
        book.put(replace(base, aliases=(*base.aliases, replace(after, updated=context.now)), updated=context.now))
        await book.commit()
        return Reply({"id": alias.id, "canonical_id": entity.id})

    @staticmethod
    async def target(book: Book, entity_id: str) -> Entity:
        entity = await book.entity(entity_id)
        if entity is None:
            raise InvalidRequest("invalid canonical ID", "the id of an entity: list identity/entity/id")
        return entity

    async def require_free(self, context: Context, call: Call, book: Book, entity: Entity, accessor: str) -> None:
        """Raises when the entity has an alias there, or when it would give whoever logs in what the caller has not."""
        if entity.at(accessor) is not None:
            raise InvalidRequest("Alias already exists for requested entity and mount accessor")
        fields.require_grantable(context, call, given_by_entity(entity, await self.groups(book)))

    async def read(self, context: Context, call: Call) -> Reply:
        owner = await self.book(context).entity_of_alias(call.params["id"])
        if owner is None:
            raise NotFound("there is no such alias")
        alias, where = _own(owner, call.params["id"]), await self.places(context)
        return Reply({**shown.entity_alias(alias, owner.id, where), "namespace_id": self.namespace(context)})

    async def delete(self, context: Context, call: Call) -> None:
        book = self.book(context)
        owner = await book.entity_of_alias(call.params["id"])
        if owner is not None:
            gone = _own(owner, call.params["id"])
            left = tuple(each for each in owner.aliases if each is not gone)
            book.put(replace(owner, aliases=left, external=with_claims(owner, gone.accessor), updated=context.now))
            await book.commit()

    async def names(self, context: Context, _call: Call) -> Reply:
        where = await self.places(context)
        info = {
            alias.id: shown.alias_line(alias, entity.id, where)
            for entity in await self.book(context).entities()
            for alias in entity.aliases
        }
        if not info:
            raise NotFound("there are no aliases")
        return Reply({"keys": sorted(info), "key_info": info})


def _own(entity: Entity, alias_id: str) -> Alias:
    return next(alias for alias in entity.aliases if alias.id == alias_id)


def routes(vault: Vault) -> tuple[Route, ...]:
    """The table."""
    r = _Handlers(vault)
    body = (
        Field("name", "at the login mount", "string"),
        Field("canonical_id", "of the entity; a new one unless said", "string"),
        Field("mount_accessor", "of the login mount", "string"),
        Field("custom_metadata", "map of texts", "map"),
    )
    write = {Operation.CREATE: r.write}
    return (
        Route(
            "entity-alias",
            write,
            fields=(*body, Field("id", "of one that there is", "string")),
            help="An alias of an entity.",
        ),
        Route("entity-alias/id", {Operation.LIST: r.names}, help="Ids of the aliases."),
        Route(
            "entity-alias/id/{id}",
            {Operation.READ: r.read, Operation.DELETE: r.delete, **write},
            fields=body,
            help="An alias by its id.",
        ),
    )

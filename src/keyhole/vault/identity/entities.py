"""``identity/entity``: somebody or something that logs in, by id and by name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.numbers import parse_flag
from keyhole.core.request import Operation, Reply
from keyhole.engines import Call, Context, Field, Route
from keyhole.vault.identity import fields, shown
from keyhole.vault.identity.book import Book
from keyhole.vault.identity.desk import Desk
from keyhole.vault.identity.entering import drop, new_entity
from keyhole.vault.identity.records import Entity

if TYPE_CHECKING:
    from keyhole.vault.vault import Vault

_AT_ONCE = 1000  # entities of one deletion


class _Handlers(Desk):
    """Handlers of the entity routes."""

    async def write(self, context: Context, call: Call) -> Reply | None:
        data = {**call.data, **call.params}
        name, entity_id, book = fields.text(data, "name"), fields.own_id(call), self.book(context)
        before = await book.entity(entity_id) if entity_id else None
        if entity_id and before is None:
            raise InvalidRequest("entity not found from id", "leave the id out to make a new one")
        named = await book.entity_named(name) if name else None
        if before is not None and named is not None and before.id != named.id:
            raise InvalidRequest("entity name is already in use", "choose another")
        before = before or named
        after = self.changed(before or new_entity(context.now, name=name), call, context, name)
        fields.require_grantable(context, call, {*after.policies} - {*(before.policies if before else ())})
        book.put(after)
        await book.commit()
        return None if before else Reply({"id": after.id, "name": after.name, "aliases": None})

    @staticmethod
    def changed(entity: Entity, call: Call, context: Context, name: str) -> Entity:
        """The entity with what the request says."""
        policies, metadata = fields.policies(call.data), fields.metadata(call.data)
        disabled = call.data.get("disabled")
        return replace(
            entity,
            name=name or entity.name,
            policies=entity.policies if policies is None else policies,
            metadata=entity.metadata if metadata is None else metadata,
            disabled=entity.disabled if disabled is None else parse_flag(disabled, "disabled"),
            updated=context.now,
        )

    async def found(self, book: Book, call: Call) -> Entity | None:
        if "id" in call.params:
            return await book.entity(call.params["id"])
        return await book.entity_named(call.params["name"])

    async def read(self, context: Context, call: Call) -> Reply:
        book = self.book(context)
        entity = await self.found(book, call)
        if entity is None:
            raise NotFound("there is no such entity")
        where = await self.places(context)
        return Reply(shown.entity(entity, await self.groups(book), where, self.namespace(context)))

    async def delete(self, context: Context, call: Call) -> None:
        book = self.book(context)
        entity = await self.found(book, call)
        if entity is not None:
            await drop(book, {entity.id: entity})

    async def delete_many(self, context: Context, call: Call) -> None:
        wanted = fields.ids(call.data, "entity_ids", _AT_ONCE)
        if not wanted:
            raise InvalidRequest("missing entity ids to delete", 'send {"entity_ids": ["…"]}')
        book = self.book(context)
        found = [await book.entity(entity_id) for entity_id in wanted]
        await drop(book, {entity.id: entity for entity in found if entity is not None})

    async def by_id(self, context: Context, _call: Call) -> Reply:
        return await self.listing(context, "id")

    async def by_name(self, context: Context, _call: Call) -> Reply:
        return await self.listing(context, "name")

    async def listing(self, context: Context, key: str) -> Reply:
        entities, where = await self.book(context).entities(), await self.places(context)
        if not entities:
            raise NotFound("there are no entities")
        info = {entity.id: shown.entity_line(entity, where) for entity in entities}
        return Reply({"keys": sorted(getattr(entity, key) for entity in entities), "key_info": info})


def routes(vault: Vault) -> tuple[Route, ...]:
    """The table."""
    r = _Handlers(vault)
    body = (
        Field("metadata", "map of texts", "map"),
        Field("policies", "names; they add to those of each token", "list"),
        Field("disabled", "its tokens and logins are refused", "boolean"),
    )
    name, by_id = Field("name", "unique in the org", "string"), Field("id", "of one that there is", "string")
    one = {Operation.READ: r.read, Operation.CREATE: r.write, Operation.DELETE: r.delete}
    return (
        Route("entity", {Operation.CREATE: r.write}, fields=(name, by_id, *body), help="Make or change an entity."),
        Route("entity/id", {Operation.LIST: r.by_id}, help="Ids of the entities."),
        Route("entity/id/{id}", one, fields=(name, *body), help="An entity by its id."),
        Route("entity/name", {Operation.LIST: r.by_name}, help="Names of the entities."),
        Route("entity/name/{name}", one, fields=body, help="An entity by its name."),
        Route(
            "entity/batch-delete",
            {Operation.CREATE: r.delete_many},
            fields=(Field("entity_ids", f"list of at most {_AT_ONCE}", "list"),),
            help="Delete many entities.",
        ),
    )

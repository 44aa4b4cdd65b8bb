"""``identity/group-alias``: what the logins of a mount call an external group."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.request import Operation, Reply
from keyhole.engines import Call, Context, Field, Route
from keyhole.vault.identity import fields, shown
from keyhole.vault.identity.book import Book
from keyhole.vault.identity.desk import Desk, given_by_group
from keyhole.vault.identity.entering import new_alias, new_group
from keyhole.vault.identity.records import EXTERNAL, Alias, Group

if TYPE_CHECKING:
    from keyhole.vault.vault import Vault


class _Handlers(Desk):
    """Handlers of the group alias routes."""

    async def write(self, context: Context, call: Call) -> Reply:
        data, book = {**call.data, **call.params}, self.book(context)
        alias_id, canonical = fields.text(data, "id"), fields.text(data, "canonical_id")
        owner = await book.group_of_alias(alias_id) if alias_id else None
        if alias_id and (owner is None or owner.alias is None):
            raise InvalidRequest("invalid group alias ID", "leave the id out to make a new one")
        before = owner.alias if owner else None
        alias = await self.changed(context, data, before)
        group = await self.target(context, book, canonical, owner)
        there = await book.group_of(alias.accessor, alias.name)
        if there is not None and there.alias is not None and there.alias.id != alias.id:
            raise InvalidRequest("combination of mount and group alias name is already in use")
        fields.require_grantable(context, call, given_by_group(group.id, await self.groups(book)))
        if owner is not None and owner.id != group.id:
            book.put(replace(owner, alias=None, changes=owner.changes + 1, updated=context.now))
        book.put(replace(group, alias=alias, changes=group.changes + 1, updated=context.now))
        await book.commit()
        return Reply({"id": alias.id, "canonical_id": group.id})

    async def changed(self, context: Context, data: dict[str, object], before: Alias | None) -> Alias:
        """The alias with what the request says."""
        name = fields.text(data, "name", fields.LONGEST_ALIAS) or (before.name if before else "")
        accessor = fields.text(data, "mount_accessor") or (before.accessor if before else "")
        if not name:
            raise InvalidRequest("missing alias name", "what the logins of the mount call the group")
        if not accessor:
            raise InvalidRequest("missing mount_accessor", "read it at sys/auth: the accessor of a login method")
        place = await self.place(context, accessor)
        if before is None:
            return new_alias(place, name, context.now, {}, {})
        moved = replace(before, name=name, accessor=accessor, mount_path=place.path, mount_type=place.type)
        return before if moved == before else replace(moved, updated=context.now)

    @staticmethod
    async def target(context: Context, book: Book, canonical: str, owner: Group | None) -> Group:
        """The external group that has it afterwards; a new one unless it is said."""
        if not canonical:
            return owner or replace(new_group(context.now, ""), type=EXTERNAL)
        group = await book.group(canonical)
        if group is None:
            raise InvalidRequest("invalid group ID given in 'canonical_id'", "list identity/group/id")
        if group.type != EXTERNAL:
            raise InvalidRequest("alias can't be set on an internal group", "make an external one")
        return group

    async def owner(self, context: Context, call: Call) -> tuple[Book, Group | None]:
        book = self.book(context)
        return book, await book.group_of_alias(call.params["id"])

    async def read(self, context: Context, call: Call) -> Reply:
        _, group = await self.owner(context, call)
        if group is None or group.alias is None:
            raise NotFound("there is no such alias")
        return Reply(shown.group_alias(group.alias, group.id, await self.places(context)))

    async def delete(self, context: Context, call: Call) -> None:
        book, group = await self.owner(context, call)
        if group is not None:
            book.put(replace(group, alias=None, changes=group.changes + 1, updated=context.now))
            await book.commit()

    async def names(self, context: Context, _call: Call) -> Reply:
        where = await self.places(context)
        info = {
            group.alias.id: shown.alias_line(group.alias, group.id, where)
            for group in await self.book(context).groups()
            if group.alias is not None
        }
        if not info:
            raise NotFound("there are no aliases")
        return Reply({"keys": sorted(info), "key_info": info})


def routes(vault: Vault) -> tuple[Route, ...]:
    """The table."""
    r = _Handlers(vault)
    body = (
        Field("name", "what the logins of the mount call the group", "string"),
        Field("mount_accessor", "of the login mount", "string"),
        Field("canonical_id", "of an external group; a new one unless said", "string"),
    )
    write = {Operation.CREATE: r.write}
    return (
        Route(
            "group-alias",
            write,
            fields=(*body, Field("id", "of one that there is", "string")),
            help="An alias of a group.",
        ),
        Route("group-alias/id", {Operation.LIST: r.names}, help="Ids of the aliases of groups."),
        Route(
            "group-alias/id/{id}",
            {Operation.READ: r.read, Operation.DELETE: r.delete, **write},
            fields=body,
            help="An alias of a group by its id.",
        ),
    )

"""``identity/group``: sets of entities and groups whose policies their members have.

People say who is in an internal group. Logins say who is in an external one, by its alias at their mount.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.request import Operation, Reply
from keyhole.engines import Call, Context, Field, Route
from keyhole.vault.identity import fields, shown
from keyhole.vault.identity.book import Book
from keyhole.vault.identity.desk import Desk, given_by_group
from keyhole.vault.identity.entering import new_group
from keyhole.vault.identity.known import Groups
from keyhole.vault.identity.records import EXTERNAL, INTERNAL, Group

if TYPE_CHECKING:
    from keyhole.vault.vault import Vault


class _Handlers(Desk):
    """Handlers of the group routes."""

    async def write(self, context: Context, call: Call) -> Reply | None:
        data = {**call.data, **call.params}
        name, group_id, book = fields.text(data, "name"), fields.own_id(call), self.book(context)
        before = await book.group(group_id) if group_id else None
        if group_id and before is None:
            raise InvalidRequest("invalid group id", "leave the id out to make a new one")
        named = await book.group_named(name) if name else None
        if before is not None and named is not None and before.id != named.id:
            raise InvalidRequest("group name is already in use", "choose another")
        before = before or named
        after = await self.changed(book, before or new_group(context.now, name), call, context)
        after = replace(after, name=name or after.name)
        await self.require_grantable(context, call, book, before, after)
        book.put(after)
        await book.commit()
        return None if before else Reply({"id": after.id, "name": after.name})

    async def changed(self, book: Book, group: Group, call: Call, context: Context) -> Group:
        """The group with what the request says."""
        policies, metadata = fields.policies(call.data), fields.metadata(call.data)
        kind = fields.text(call.data, "type") or group.type
        if kind not in (INTERNAL, EXTERNAL):
            raise InvalidRequest("invalid group type: it is internal or external")
        if kind != group.type and group.changes:
            raise InvalidRequest("group type cannot be changed", "delete the group and make another")
        members, below = fields.ids(call.data, "member_entity_ids"), fields.ids(call.data, "member_group_ids")
        if kind == EXTERNAL and members:
            raise InvalidRequest("member entities can't be set manually for external groups", "logins say who is in it")
        if kind == EXTERNAL and below:
            raise InvalidRequest("member groups can't be set for external groups", "make an internal group")
        await self.require_members(book, group, members or (), below or ())
        return replace(
            group,
            type=kind,
            policies=group.policies if policies is None else policies,
            metadata=group.metadata if metadata is None else metadata,
            members=group.members if members is None else members,
            groups=group.groups if below is None else below,
            changes=group.changes + 1,
            updated=context.now,
        )

    async def require_members(self, book: Book, group: Group, members: tuple[str, ...], below: tuple[str, ...]) -> None:
        """Raises ``InvalidRequest`` for one that does not exist, and for a circle."""
        for entity_id in members:
            entity = await book.entity(entity_id)
            if entity is None and entity_id not in group.members:
                raise InvalidRequest("invalid entity ID in member_entity_ids", "list identity/entity/id")
            if entity is not None and entity_id not in group.members:
                book.require(entity)
        groups = await self.groups(book)
        for group_id in below:
            child = await book.group(group_id)
            if child is None:
                raise InvalidRequest("invalid group ID in member_group_ids", "list identity/group/id")
            if groups.is_below(group_id, group.id):
                raise InvalidRequest("cyclic relationship detected for member group ID", "a group cannot be in itself")
            book.require(child)  # it could be about to take this one in

    async def require_grantable(
        self, context: Context, call: Call, book: Book, before: Group | None, after: Group
    ) -> None:
        """Who is in it gains its new policies; who comes into it gains all of them."""
        gained = {*after.policies} - {*(before.policies if before else ())}
        if {*after.members, *after.groups} - ({*before.members, *before.groups} if before else set()):
            others = [group for group in await book.groups() if group.id != after.id]
            gained |= {*given_by_group(after.id, Groups([*others, after]))}
        fields.require_grantable(context, call, gained)

    async def found(self, book: Book, call: Call) -> Group | None:
        if "id" in call.params:
            return await book.group(call.params["id"])
        return await book.group_named(call.params["name"])

    async def read(self, context: Context, call: Call) -> Reply:
        book = self.book(context)
        group = await self.found(book, call)
        if group is None:
            raise NotFound("there is no such group")
        return Reply(await self.describe(context, book, group))

    async def delete(self, context: Context, call: Call) -> None:
        book = self.book(context)
        group = await self.found(book, call)
        if group is None:
            return
        book.drop(group)
        for parent in await book.groups():
            if group.id in parent.groups:
                left = tuple(each for each in parent.groups if each != group.id)
                book.put(replace(parent, groups=left, changes=parent.changes + 1))
        await book.commit()

    async def by_id(self, context: Context, _call: Call) -> Reply:
        return await self.listing(context, "id")

    async def by_name(self, context: Context, _call: Call) -> Reply:
        return await self.listing(context, "name")

    async def listing(self, context: Context, key: str) -> Reply:
        book = self.book(context)
        groups, where = await self.groups(book), await self.places(context)
        if not groups.by_id:
            raise NotFound("there are no groups")
        info = {
            group.id: shown.group_line(group, groups, len(await self.members(book, group)), where)
            for group in groups.by_id.values()
        }
        return Reply({"keys": sorted(getattr(group, key) for group in groups.by_id.values()), "key_info": info})


def routes(vault: Vault) -> tuple[Route, ...]:
    """The table."""
    r = _Handlers(vault)
    body = (
        Field("type", "internal or external; never changes", "string"),
        Field("metadata", "map of texts", "map"),
        Field("policies", "names; members have them at request time", "list"),
        Field("member_entity_ids", "of an internal group", "list"),
        Field("member_group_ids", "of an internal group", "list"),
    )
    name, by_id = Field("name", "unique among groups", "string"), Field("id", "of one that there is", "string")
    one = {Operation.READ: r.read, Operation.CREATE: r.write, Operation.DELETE: r.delete}
    return (
        Route("group", {Operation.CREATE: r.write}, fields=(name, by_id, *body), help="Make or change a group."),
        Route("group/id", {Operation.LIST: r.by_id}, help="Ids of the groups."),
        Route("group/id/{id}", one, fields=(name, *body), help="A group by its id."),
        Route("group/name", {Operation.LIST: r.by_name}, help="Names of the groups."),
        Route("group/name/{name}", one, fields=body, help="A group by its name."),
    )

"""``identity/lookup``: an entity or a group by exactly one thing that is known of it. Nothing found is no error."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.request import Operation, Reply
from keyhole.engines import Call, Context, Field, Route
from keyhole.vault.identity import fields, shown
from keyhole.vault.identity.book import Book
from keyhole.vault.identity.desk import Desk
from keyhole.vault.identity.records import Entity, Group

if TYPE_CHECKING:
    from keyhole.vault.vault import Vault

_FACTORS = ("alias_name", "alias_mount_accessor")


class _Handlers(Desk):
    """Handlers of the lookups."""

    async def entity(self, context: Context, call: Call) -> Reply | None:
        book = self.book(context)
        found = await _find_entity(book, *_criterion(call.data))
        if found is None:
            return None
        where = await self.places(context)
        return Reply(shown.entity(found, await self.groups(book), where, self.namespace(context)))

    async def group(self, context: Context, call: Call) -> Reply | None:
        book = self.book(context)
        found = await _find_group(book, *_criterion(call.data))
        return None if found is None else Reply(await self.describe(context, book, found))


def _criterion(data: Mapping[str, Any]) -> tuple[str, str, str]:
    """What is asked by, and one or two texts. Raises ``InvalidRequest`` unless it is exactly one thing."""
    said = {name: fields.text(data, name) for name in ("id", "name", "alias_id")}
    said["alias_name"] = fields.text(data, "alias_name", fields.LONGEST_ALIAS)
    said["alias_mount_accessor"] = fields.text(data, "alias_mount_accessor")
    given = [name for name, text in said.items() if text]
    if not given:
        raise InvalidRequest("query parameter not supplied", "send id, name, alias_id, or alias_name with its mount")
    if set(given) & set(_FACTORS):
        if len(given) > len(_FACTORS) or set(given) - set(_FACTORS):
            raise InvalidRequest("query parameter conflict; please supply distinct set of query parameters")
        if len(given) < len(_FACTORS):
            raise InvalidRequest("both 'alias_name' and 'alias_mount_accessor' needs to be set")
        return "factors", said["alias_mount_accessor"], said["alias_name"]
    if len(given) > 1:
        raise InvalidRequest("query parameter conflict; please supply distinct set of query parameters")
    return given[0], said[given[0]], ""


def _find_entity(book: Book, by: str, first: str, second: str) -> Awaitable[Entity | None]:
    if by == "factors":
        return book.entity_of(first, second)
    return {"id": book.entity, "name": book.entity_named, "alias_id": book.entity_of_alias}[by](first)


def _find_group(book: Book, by: str, first: str, second: str) -> Awaitable[Group | None]:
    if by == "factors":
        return book.group_of(first, second)
    return {"id": book.group, "name": book.group_named, "alias_id": book.group_of_alias}[by](first)


def routes(vault: Vault) -> tuple[Route, ...]:
    """The table."""
    r = _Handlers(vault)
    by = tuple(Field(name, "what is known", "string") for name in ("id", "name", "alias_id", *_FACTORS))
    return (
        Route("lookup/entity", {Operation.CREATE: r.entity}, fields=by, help="An entity by one thing known of it."),
        Route("lookup/group", {Operation.CREATE: r.group}, fields=by, help="A group by one thing known of it."),
    )

"""What the routes of identities share: the book of the caller's org, and what its entries are shown with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.identity import ROOT_ORG, union
from keyhole.engines import Context
from keyhole.vault.identity import shown
from keyhole.vault.identity.book import Book
from keyhole.vault.identity.known import Groups, compile_person
from keyhole.vault.identity.places import places
from keyhole.vault.identity.records import Entity, Group
from keyhole.vault.identity.shown import Places

if TYPE_CHECKING:
    from keyhole.vault.compiled import OrgState
    from keyhole.vault.identity.places import Place
    from keyhole.vault.vault import Vault


class Desk:
    """Base of the handlers.

    Args:
        vault: whose identities.
    """

    def __init__(self, vault: Vault) -> None:
        self.vault = vault

    def book(self, context: Context) -> Book:
        """The book of the caller's org, read anew."""
        return Book(self.vault.orgs.identities(context.caller.org_id))

    async def state(self, context: Context) -> OrgState:
        """The state of the caller's org."""
        return await self.vault.compiled.state(context.caller.org_id)

    async def places(self, context: Context) -> Places:
        """The mounts that aliases can name, by accessor."""
        return places(await self.state(context))

    async def place(self, context: Context, accessor: str) -> Place:
        """The login mount of this accessor. Raises ``InvalidRequest``."""
        found = (await self.places(context)).get(accessor)
        if found is None:
            raise InvalidRequest("invalid mount accessor", "read it at sys/auth: the accessor of a login method")
        return found

    @staticmethod
    def namespace(context: Context) -> str:
        """What Vault calls the org."""
        return ROOT_ORG if context.caller.org == ROOT_ORG else context.caller.org_id

    @staticmethod
    async def groups(book: Book) -> Groups:
        """All groups."""
        return Groups(await book.groups())

    @staticmethod
    async def members(book: Book, group: Group) -> list[str]:
        """Ids of the entities that are in a group themselves."""
        return sorted({*group.members, *await book.external_members(group)})

    async def describe(self, context: Context, book: Book, group: Group) -> dict[str, Any]:
        """A group as answers have it."""
        groups, members, where = await self.groups(book), await self.members(book, group), await self.places(context)
        return shown.group(group, groups, members, where, self.namespace(context))


def given_by_entity(entity: Entity, groups: Groups) -> tuple[str, ...]:
    """The policies that whoever becomes this entity gains."""
    return compile_person(entity, groups).policies


def given_by_group(group_id: str, groups: Groups) -> tuple[str, ...]:
    """The policies that whoever comes into this group gains."""
    above = (groups.by_id[each] for each in groups.above([group_id]) if each in groups.by_id)
    return union(*(group.policies for group in above))

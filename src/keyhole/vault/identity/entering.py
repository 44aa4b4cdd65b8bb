"""What a login does to identities: it finds its entity by its alias, or makes both, and says which groups it is in."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from keyhole.core.errors import Conflict, InvalidRequest, PolicyDenied
from keyhole.core.identity import Login
from keyhole.vault.identity.book import Book
from keyhole.vault.identity.fields import LONGEST_ALIAS
from keyhole.vault.identity.places import Place, place_of
from keyhole.vault.identity.records import Alias, Entity, Group
from keyhole.vault.keys import new_request_id
from keyhole.vault.mounts import Mount

if TYPE_CHECKING:
    from keyhole.vault.compiled import OrgState
    from keyhole.vault.vault import Vault

_RETRIES = 20


def new_entity(now: float, *, name: str = "") -> Entity:
    """A new entity; without a name it gets one that nobody has."""
    return Entity(id=new_request_id(), name=name or f"entity_{os.urandom(4).hex()}", created=now, updated=now)


def new_alias(
    place: Place,
    name: str,
    now: float,
    metadata: Mapping[str, str],
    custom: Mapping[str, str],
) -> Alias:
    """A new alias at a mount."""
    return Alias(
        id=new_request_id(),
        name=name,
        accessor=place.accessor,
        mount_path=place.path,
        mount_type=place.type,
        metadata=metadata,
        custom_metadata=custom,
        created=now,
        updated=now,
    )


def new_group(now: float, name: str) -> Group:
    """A new group; without a name it gets one that nobody has."""
    return Group(id=new_request_id(), name=name or f"group_{os.urandom(4).hex()}", created=now, updated=now)


def with_claims(entity: Entity, accessor: str, names: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    """The external groups of an entity, with these names for a mount in the place of those that it had."""
    others = {each: given for each, given in entity.external.items() if each != accessor}
    return {**others, accessor: names} if names else others


async def enter(
    vault: Vault, state: OrgState, mount: Mount, login: Login, before: Callable[[], Awaitable[None]] | None = None
) -> str:
    """The id of the entity of who has just logged in; made on first sight. Two at once make one.

    Args:
        vault: where.
        state: of the org.
        mount: where the login was proved.
        login: as it was proved; without an alias there is no entity.
        before: awaited before anything is changed.

    Raises:
        PolicyDenied: the entity is disabled.
        InvalidRequest: the alias is too long.
    """
    if len(login.alias) > LONGEST_ALIAS:
        raise InvalidRequest(f"what names you at the login method has more than {LONGEST_ALIAS} characters")
    for attempt in range(_RETRIES if login.alias else 0):
        book = Book(vault.orgs.identities(state.org.id))
        entity = await _entered(book, place_of(mount), login, vault.clock.now())
        if entity.disabled:
            raise _disabled()
        if book.changed and before is not None:
            await before()
        try:
            await book.commit()
        except Conflict:
            if attempt == _RETRIES - 1:
                raise
        else:
            return entity.id
    return ""


async def require_enabled(vault: Vault, state: OrgState, mount: Mount, login: Login) -> None:
    """Raises ``PolicyDenied`` when who is proved by a login at a mount, and does not log in, is a disabled entity."""
    entity = await Book(vault.orgs.identities(state.org.id)).entity_of(mount.accessor, login.alias)
    if entity is not None and entity.disabled:
        raise _disabled()


async def leave(vault: Vault, state: OrgState, path: str, name: str) -> None:
    """Whoever had this alias at a mount is no more: it goes, and an entity that has no other goes with it."""
    accessor = state.mounts.at(path).accessor
    for attempt in range(_RETRIES):
        book = Book(vault.orgs.identities(state.org.id))
        entity = await book.entity_of(accessor, name)
        if entity is None:
            return
        left = tuple(alias for alias in entity.aliases if alias.accessor != accessor)
        try:
            if left:
                book.put(replace(entity, aliases=left, external=with_claims(entity, accessor)))
                await book.commit()
            else:
                await drop(book, {entity.id: entity})
        except Conflict:
            if attempt == _RETRIES - 1:
                raise
        else:
            return


async def drop(book: Book, entities: Mapping[str, Entity]) -> None:
    """Remove entities, and take them out of their groups. Their tokens are refused from then on."""
    for entity in entities.values():
        book.drop(entity)
    for group in await book.groups():
        if not entities.keys().isdisjoint(group.members):
            book.put(replace(group, members=tuple(each for each in group.members if each not in entities)))
    await book.commit()


async def _entered(book: Book, place: Place, login: Login, now: float) -> Entity:
    """The entity as this login leaves it, put into the book when that changes it."""
    before = await book.entity_of(place.accessor, login.alias)
    if before is None:
        after = replace(new_entity(now), aliases=(new_alias(place, login.alias, now, login.alias_meta, {}),))
    else:
        after = _with_metadata(before, place, login, now)
    groups = await _external(book, place, login.groups)
    if tuple(after.external.get(place.accessor, ())) != groups:
        after = replace(after, external=with_claims(after, place.accessor, groups))
    if after is not before:
        book.put(after)
    return after


def _with_metadata(entity: Entity, place: Place, login: Login, now: float) -> Entity:
    alias = entity.at(place.accessor)
    if alias is None or dict(alias.metadata) == dict(login.alias_meta):
        return entity
    fresh = replace(alias, metadata=dict(login.alias_meta), updated=now)
    return replace(entity, aliases=tuple(fresh if each is alias else each for each in entity.aliases))


async def _external(book: Book, place: Place, names: Iterable[str]) -> tuple[str, ...]:
    """Those of the names that an external group of the mount has."""
    return tuple([name for name in sorted({*names}) if await book.group_of(place.accessor, name) is not None])


def _disabled() -> PolicyDenied:
    return PolicyDenied("permission denied", "the entity is disabled: ask who may enable it")

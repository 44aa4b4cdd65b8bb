"""What an entity gives its tokens, and when it takes all away; asked once a caller is compiled, not on each request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyhole.core.errors import Unauthenticated
from keyhole.core.identity import NOBODY, Caller, union
from keyhole.core.policy import Acl
from keyhole.vault.compiled import OrgState
from keyhole.vault.identity.known import Person
from keyhole.vault.token import Grant, Token

if TYPE_CHECKING:
    from keyhole.vault.vault import Vault

_NONE = Person(NOBODY, (), disabled=False)


async def person(vault: Vault, state: OrgState, entity_id: str) -> Person:
    """What the entity of a token is now; nothing for a token that has none.

    Raises:
        Unauthenticated: the entity is disabled, or was deleted.
    """
    if not entity_id:
        return _NONE
    found = await state.known.person(vault.orgs.identities(state.org.id), entity_id)
    if found is None:
        raise Unauthenticated("permission denied", "the entity of this token was deleted: log in again")
    if found.disabled:
        raise Unauthenticated("permission denied", "the entity of this token is disabled: ask who may enable it")
    return found


async def added(vault: Vault, state: OrgState, token: Token | Grant) -> tuple[str, ...]:
    """The policies that an entity adds to a token of its own. Raises ``Unauthenticated`` as ``person``."""
    found = await person(vault, state, token.entity_id)
    return () if token.alone else found.policies


async def shown(vault: Vault, state: OrgState, token: Token) -> tuple[str, ...]:
    """As ``added``, for an answer about a token; nothing for one whose entity is disabled or was deleted."""
    try:
        return await added(vault, state, token)
    except Unauthenticated:
        return ()


async def acl_of(vault: Vault, state: OrgState, token: Token | Grant) -> Acl:
    """What a token may do now, with what its entity adds. Raises ``Unauthenticated`` as ``person``."""
    found = await person(vault, state, token.entity_id)
    services = None if token.services is None else frozenset(token.services)
    policies = token.policies if token.alone else union(token.policies, found.policies)
    return await vault.compiled.acl(state, policies, found.view, services)


async def acl_now(vault: Vault, state: OrgState, caller: Caller) -> Acl:
    """What somebody who was authenticated earlier may do now. Raises ``Unauthenticated`` as ``person``."""
    found = await person(vault, state, caller.entity.id)
    policies = caller.policies if caller.alone else union(caller.policies, found.policies)
    return await vault.compiled.acl(state, policies, found.view, caller.services)


def is_current(caller: Caller, state: OrgState) -> bool:
    """Was the caller compiled from the identities as they are?"""
    return not caller.entity.id or caller.identities == state.known.revision

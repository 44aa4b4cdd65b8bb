"""``identity/``: the mount that every org has, as Vault's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyhole.engines import Route
from keyhole.vault.identity import aliases, entities, group_aliases, groups, lookup, merging, unsupported
from keyhole.vault.identity.oidc import keys, roles, tokens

if TYPE_CHECKING:
    from keyhole.vault.vault import Vault


def routes(vault: Vault) -> tuple[Route, ...]:
    """The table."""
    return (
        *entities.routes(vault),
        *merging.routes(vault),
        *aliases.routes(vault),
        *groups.routes(vault),
        *group_aliases.routes(vault),
        *lookup.routes(vault),
        *keys.routes(vault),
        *roles.routes(vault),
        *tokens.routes(vault),
        *unsupported.routes(),
    )

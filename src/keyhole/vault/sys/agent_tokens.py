"""The tokens of one agent, each by its accessor: what they are, and the end of one of them."""

from __future__ import annotations

import asyncio
from typing import Any

from keyhole.core.errors import NotFound
from keyhole.core.times import format_time
from keyhole.vault.sys.tokens import end_tokens
from keyhole.vault.token import Token
from keyhole.vault.tokens import MOUNT
from keyhole.vault.vault import Vault

_PAGE = 256
_SHOWN = 1000
"""How many tokens one answer describes, the newest; it says how many there are besides."""


async def live_tokens(vault: Vault, org_id: str, name: str, now: float) -> list[Token]:
    """The tokens of an agent that are good for something, the newest first."""
    storage = vault.storage(org_id, MOUNT)
    ids = await vault.tokens.of_entity(storage, f"agent/{name}")
    found: list[Token] = []
    for start in range(0, len(ids), _PAGE):
        found += [t for t in await vault.tokens.get_many(storage, ids[start : start + _PAGE]) if t.live(now)]
        await asyncio.sleep(0)  # opening thousands of them at a stretch would keep all others waiting
    return sorted(found, key=lambda token: (-token.created, token.accessor))


async def tokens_of(vault: Vault, org_id: str, name: str, now: float) -> dict[str, Any]:
    """What ``agents/NAME/tokens`` answers. No token is in it, nor anything that it could be made of."""
    found = await live_tokens(vault, org_id, name, now)
    return {"tokens": [_described(token) for token in found[:_SHOWN]], "total": len(found)}


async def end_one(vault: Vault, org_id: str, name: str, accessor: str) -> int:
    """End one token of an agent, with its children; how many have ended.

    Raises:
        NotFound: the agent has none with this accessor.
    """
    token = await vault.tokens.by_accessor(vault.storage(org_id, MOUNT), accessor)
    if token is None or token.name != f"agent/{name}":
        raise NotFound(f"the agent {name!r} has no token with this accessor", f"keyhole agent tokens {name}")
    return await end_tokens(vault, org_id, token.id)


def _described(token: Token) -> dict[str, Any]:
    limits: dict[str, Any] = {
        "num_uses": token.uses,
        "services": None if token.services is None else list(token.services),
        "policies": list(token.policies) if token.alone else None,
        "bound_cidrs": list(token.cidrs),
        **token.run.as_data(),
    }
    return {
        "accessor": token.accessor,
        "created": format_time(token.created),
        "expires_at": format_time(token.expires) if token.expires else "",
        "scope": token.scope,
        **{name: value for name, value in limits.items() if value or (name == "services" and value is not None)},
    }

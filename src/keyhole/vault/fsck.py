"""Whether everything that an org has stored still opens. Nothing is changed, and nothing of it is shown."""

from __future__ import annotations

from dataclasses import dataclass, field

from keyhole.core.errors import IntegrityError
from keyhole.crypto.keyring import Where
from keyhole.vault.vault import Vault

_PAGE = 200
_NAMED = 100
_RETRIES = 5


@dataclass(slots=True)
class Examined:
    """What was found.

    Attributes:
        entries: how many were opened.
        broken: keys of the store of those that do not open, the first hundred; they tell no name.
        more: how many there are besides.
    """

    entries: int = 0
    broken: list[str] = field(default_factory=list)
    more: int = 0


async def examine(vault: Vault, org_id: str) -> Examined:
    """Open every entry of an org once. Raises ``StoreUnavailable``."""
    found, after = Examined(), ""
    await vault.keys.load_ring(org_id)
    while page := await vault.store.list(f"{org_id}/", after=after, limit=_PAGE):
        after = page[-1]
        for key in page:
            if await _opens(vault, org_id, key):
                found.entries += 1
            elif len(found.broken) < _NAMED:
                found.broken.append(key)
            else:
                found.more += 1
    return found


async def _opens(vault: Vault, org_id: str, key: str) -> bool:
    for _ in range(_RETRIES):
        ring = vault.keys.ring(org_id)
        [entry] = await vault.store.get([key])
        if not entry.value:  # deleted since, or it counts by its revision only
            return True
        try:
            ring.open(entry.value, Where(org_id, key.split("/")[1], key, entry.revision))
        except IntegrityError:
            if not await vault.keys.newer(org_id, ring):
                return False
        else:
            return True
    return False

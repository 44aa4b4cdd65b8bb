"""Which paths were revoked as a whole lately, so that what was asked for before is not made after.

A bar changes the configuration of its org, on which every new lease stands. So a request that came before it notices,
and only then looks whether it was meant.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from keyhole.core.errors import Conflict
from keyhole.vault.storage import Change, Storage, Write

MOUNT = "bars"
_ENTRY = "all"
_KEPT = 120.0  # seconds; longer than a request waits before it begins to make something
_SKEW = 1.0  # seconds that clocks of nodes may differ
_RETRIES = 50


class Bars:
    """The bars of all orgs.

    Args:
        storage: of an org; what changes it changes the org's configuration.
    """

    def __init__(self, storage: Callable[[str], Storage]) -> None:
        self._storage = storage

    async def put(self, org_id: str, prefix: str, now: float) -> None:
        """From now on what is asked for below a path is asked for after its revocation. Durable when this returns."""
        storage = self._storage(org_id)
        for _ in range(_RETRIES):
            item = await storage.get_one(_ENTRY)
            before: list[tuple[str, float]] = json.loads(item.data) if item.data is not None else []
            kept = [(path, time) for path, time in before if path != prefix and time > now - _KEPT]
            try:
                data = json.dumps([*kept, (prefix, now)]).encode()
                await storage.commit(Change([Write(_ENTRY, data, item.revision)]))
            except Conflict:
                continue
            return
        raise Conflict("paths are being revoked by many at once", "try again")

    async def hit(self, org_id: str, path: str, since: float) -> bool:
        """Whether a path was revoked as a whole after a request for it came."""
        item = await self._storage(org_id).get_one(_ENTRY)
        bars: list[tuple[str, float]] = json.loads(item.data) if item.data is not None else []
        return any(f"{path}/".startswith(f"{prefix}/") and time > since - _SKEW for prefix, time in bars)

"""What injections keep from one call to the next, such as a token that was made with a secret, with its end.

Found by service and the very values it was made from, so that a changed secret or service starts anew and nobody else
ever sees it. In memory only, bounded, and forgotten when the vault is sealed.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from keyhole.core.errors import KeyholeError
from keyhole.core.service import Service


@dataclass(slots=True)
class Room:
    """The room of one service and its values.

    Attributes:
        kept: what injections put there.
        errand: held by the one call that runs an errand; others wait for what it brings.
        ended: how many errands came to an end, well or not; one whose caller went away did not.
        failure: how the last of them failed, if it did.
    """

    kept: dict[str, Any] = field(default_factory=dict, repr=False)
    errand: asyncio.Lock = field(default_factory=asyncio.Lock)
    ended: int = 0
    failure: KeyholeError | None = None


class Kept:
    """All rooms.

    Args:
        limit: how many; the one that was not used for longest goes first.
    """

    def __init__(self, limit: int = 1024) -> None:
        self._limit = limit
        self._rooms: OrderedDict[tuple[str, str, bytes], Room] = OrderedDict()

    def room(self, org_id: str, service: Service, values: Mapping[str, bytes]) -> Room:
        """The room for a loan."""
        digest = hashlib.sha256(repr((service.inject, service.hosts)).encode())
        for name, value in values.items():
            digest.update(b"%b\0%d\0%b" % (name.encode(), len(value), value))
        key = (org_id, service.name, digest.digest())
        room = self._rooms.get(key)
        if room is None:
            room = self._rooms[key] = Room()
            if len(self._rooms) > self._limit:
                self._rooms.popitem(last=False)
        else:
            self._rooms.move_to_end(key)
        return room

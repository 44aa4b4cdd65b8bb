"""One caller of a vault for several threads: what a server that acts for an agent asks with."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from keyhole.client import travel
from keyhole.client.core import Result
from keyhole.client.holder import holder_of

if TYPE_CHECKING:
    from keyhole.client.api import Transport
    from keyhole.client.road import Road

_KEPT = 16  # connections that are kept while nobody asks


class Party:
    """Asks and calls as one caller, from any thread.

    Args:
        transport: to the vault.
        token: of the caller; empty for the transport's own.

    Attributes:
        holder: the same for all that ask with this token in this process.
    """

    def __init__(self, transport: Transport, token: str = "") -> None:
        self._transport = transport
        self._token = token
        self.holder = holder_of(token)
        self._free: list[Transport] = []
        self._lock = threading.Lock()
        self._road: Road | None = None

    def __repr__(self) -> str:
        return "Party()"

    def ask(self, operation: str, path: str, data: Mapping[str, Any] | None = None) -> Result:
        """Ask, and wait. Raises what the vault refuses."""
        with self._lock:
            transport = self._free.pop() if self._free else self._transport.another(self._token)
        try:
            return transport.ask(operation, path, data or {})
        finally:
            with self._lock:
                kept = len(self._free) < _KEPT
                if kept:
                    self._free.append(transport)
            if not kept:
                transport.close()

    def call(self, trip: travel.Trip) -> travel.Answered:
        """Make a call through the broker. Raises what the broker refuses."""
        service = travel.resolve(self.ask, trip)
        return travel.send(self.road(), trip, service)

    def road(self) -> Road:
        """The way to the broker; found once."""
        with self._lock:
            if self._road is None:
                self._road = self._transport.road(self._token)
            return self._road

    def close(self) -> None:
        """Let the connections go; the transport stays."""
        with self._lock:
            free, self._free = self._free, []
        for transport in free:
            transport.close()

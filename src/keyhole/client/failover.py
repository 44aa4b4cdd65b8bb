"""Several servers of one vault: the next is asked where one does not answer, and a write is never sent twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

from keyhole.client.core import Result
from keyhole.client.http import READS, NotConnected
from keyhole.client.road import Road
from keyhole.core.errors import AuditUnavailable, KeyholeError, Sealed, StoreUnavailable, Unreachable

_REPEATABLE = frozenset(  # changes that are the same when they are made twice
    {"sys/leases/lookup", "sys/leases/renew", "sys/leases/revoke", "auth/token/renew-self", "auth/token/lookup-self"}
)
_NOT_DONE = (Sealed, StoreUnavailable, AuditUnavailable)  # a server that says so has done nothing


class Server(Protocol):
    """One of them."""

    def ask(self, operation: str, path: str, data: Mapping[str, Any]) -> Result:
        """Ask, and wait for the result."""

    def road(self, token: str = "") -> Road:
        """The way to its proxy."""

    def another(self, token: str = "") -> Self:
        """The same server on a connection of its own; as the holder of ``token``."""

    def close(self) -> None:
        """Let the connection go."""


class Failover:
    """Asks one of several servers, and stays with the one that answered last.

    Args:
        servers: in the order in which they are tried at first.
    """

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = list(servers)

    def ask(self, operation: str, path: str, data: Mapping[str, Any]) -> Result:
        """Ask one after the other until one answers.

        A request that changes something goes to the next only when the last was not reached, or says itself that
        nothing was done, or when it makes no difference whether it is done twice.

        Raises:
            Unreachable: none answers.
            KeyholeError: what the one that answered refuses with.
        """
        last: KeyholeError | None = None
        may_repeat = operation in READS or path.strip("/") in _REPEATABLE
        for server in list(self._servers):
            try:
                result = server.ask(operation, path, data)
            except Unreachable as error:
                if not may_repeat and not isinstance(error, NotConnected):
                    raise
                last = error
            except _NOT_DONE as error:
                last = error
            else:
                self._prefer(server)
                return result
        raise self._none(last)

    def road(self, token: str = "") -> Road:
        """The way to the proxy of a server that answers."""
        last: KeyholeError | None = None
        for server in list(self._servers):
            try:
                road = server.road(token)
            except (Unreachable, *_NOT_DONE) as error:
                last = error
            else:
                self._prefer(server)
                return road
        raise self._none(last)

    def another(self, token: str = "") -> Failover:
        """The same servers on connections of their own; as the holder of ``token``."""
        return Failover([server.another(token) for server in self._servers])

    def close(self) -> None:
        """Let all connections go."""
        for server in self._servers:
            server.close()

    def _prefer(self, server: Server) -> None:
        if self._servers[0] is not server:
            self._servers.remove(server)
            self._servers.insert(0, server)

    def _none(self, last: KeyholeError | None) -> KeyholeError:
        if last is not None and not isinstance(last, Unreachable):
            return last
        why = f"; the last says: {last.reason}" if last is not None else ""
        return Unreachable(f"none of {len(self._servers)} servers answers{why}", last.hint if last is not None else "")

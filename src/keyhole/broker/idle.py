"""Idle connections to upstreams, of which no org has so many that others find no room for theirs."""

from __future__ import annotations

from collections import OrderedDict

from keyhole.broker.connections import Origin, Single, org_of


class Idle:
    """Connections of HTTP/1.1 that wait for the next request of their key, by origin."""

    def __init__(self) -> None:
        self._of_origin: dict[Origin, list[Single]] = {}
        self._of_org: dict[str, OrderedDict[Single, None]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def of(self, origin: Origin) -> int:
        """How many there are of an origin."""
        return len(self._of_origin.get(origin, ()))

    def all(self) -> list[Single]:
        """All of them."""
        return [each for them in self._of_origin.values() for each in them]

    def add(self, connection: Single) -> None:
        """Keep one."""
        origin, org = connection.origin, org_of(connection.origin)
        connections, own = self._of_origin.get(origin), self._of_org.get(org)
        if connections is None:
            connections = self._of_origin[origin] = []
        if own is None:
            own = self._of_org[org] = OrderedDict()
        connections.append(connection)
        own[connection] = None
        self._count += 1

    def take(self, origin: Origin) -> Single | None:
        """The one of an origin that was used last, which is no longer kept."""
        connections = self._of_origin.get(origin)
        if not connections:
            return None
        connection = connections.pop()
        if not connections:
            del self._of_origin[origin]
        org = org_of(origin)
        own = self._of_org[org]
        del own[connection]
        if not own:
            del self._of_org[org]
        self._count -= 1
        return connection

    def discard(self, connection: Single) -> None:
        """Keep it no longer, if it was kept."""
        origin, org = connection.origin, org_of(connection.origin)
        own = self._of_org.get(org)
        if own is None or connection not in own:
            return
        del own[connection]
        connections = self._of_origin[origin]
        if connections[-1] is connection:
            connections.pop()
        else:
            connections.remove(connection)
        self._count -= 1
        if not own:
            del self._of_org[org]
        if not self._of_origin[origin]:
            del self._of_origin[origin]

    def spare(self) -> Single | None:
        """The one that has to go first: the oldest of the org that has most."""
        if not self._count:
            return None
        org = max(self._of_org, key=lambda each: len(self._of_org[each]))
        return next(iter(self._of_org[org]))

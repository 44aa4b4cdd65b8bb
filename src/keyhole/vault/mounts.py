"""Which engine answers at which path. A path has one mount (the longest prefix) and one route of its table."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from keyhole import engines
from keyhole.core.errors import NotFound
from keyhole.core.request import Operation
from keyhole.engines import Engine, Handler, Route

_RESOLVED = 4096
_WRITES = frozenset({Operation.CREATE, Operation.UPDATE})


@dataclass(frozen=True)
class Mount:
    """An engine at a path.

    Attributes:
        path: with its trailing slash.
        id: names its storage; stays when the mount moves.
        made: the engine, or what loads it when it is first asked: a command asks one or two of them.
        description: for people.
    """

    path: str
    id: str
    made: Engine | Callable[[], Engine]
    description: str = ""

    @functools.cached_property
    def engine(self) -> Engine:
        """What answers."""
        return self.made if isinstance(self.made, Engine) else self.made()


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes: mount, route, handler and the parameters from the path."""

    mount: Mount
    route: Route
    handler: Handler
    params: Mapping[str, str]


class Mounts:
    """The table of mounts of a vault."""

    def __init__(self, mounts: Iterable[Mount]) -> None:
        self._resolved: dict[tuple[Operation, str], Target] = {}
        self._mounts: list[Mount] = []
        self._tables: dict[str, list[tuple[re.Pattern[str], Route]]] = {}
        for mount in mounts:
            self.add(mount)

    def add(self, mount: Mount) -> None:
        """Put one more mount into the table."""
        self._mounts.append(mount)
        self._resolved.clear()
        self._mounts.sort(key=lambda each: len(each.path), reverse=True)

    def __iter__(self) -> Iterator[Mount]:
        """All mounts, the longest path first."""
        return iter(self._mounts)

    def at(self, path: str) -> Mount:
        """The mount with exactly this path. Raises ``NotFound``."""
        for mount in self._mounts:
            if mount.path == path:
                return mount
        raise NotFound(f"there is no mount at {path}")

    def resolve(self, operation: Operation, path: str) -> Target:
        """The handler for an operation on a path.

        Args:
            operation: create and update are one here.
            path: canonical; a listing ends in a slash.

        Raises:
            NotFound: no mount or no route fits.
            UnsupportedOperation: a route fits and does not know the operation.
        """
        target = self._resolved.get((operation, path))
        if target is None:
            target = self._resolve(operation, path)
            if len(self._resolved) >= _RESOLVED:
                self._resolved.clear()
            self._resolved[operation, path] = target
        return target

    def _resolve(self, operation: Operation, path: str) -> Target:
        wanted = Operation.CREATE if operation in _WRITES else operation
        folder = path if path.endswith("/") else f"{path}/"
        fits = False
        for mount in self._mounts:
            if not folder.startswith(mount.path):
                continue
            below = path[len(mount.path) :]
            for pattern, route in self._table(mount):
                match = pattern.fullmatch(below)
                if match is None:
                    continue
                fits = True
                if handler := route.handlers.get(wanted):
                    return Target(mount, route, handler, match.groupdict())
            break
        if fits:
            raise UnsupportedOperation("unsupported operation")
        raise NotFound(f"no handler for route '{path}'")

    def _table(self, mount: Mount) -> list[tuple[re.Pattern[str], Route]]:
        """A mount's routes, compiled when it is first asked: a command asks one or two of them."""
        table = self._tables.get(mount.path)
        if table is None:
            table = self._tables[mount.path] = [(route.compiled(), route) for route in mount.engine.routes]
        return table


class UnsupportedOperation(NotFound):
    """The path exists and does not take this operation."""

    status = 405


def standard() -> list[Mount]:
    """The mounts that every org has."""
    return [
        Mount("secret/", "kv", partial(engines.load, "kv"), "versioned secrets"),
        Mount("services/", "services", partial(engines.load, "services"), "where secrets may go"),
        Mount("cubbyhole/", "cubbyhole", partial(engines.load, "cubbyhole"), "a drawer for each token"),
        Mount("transit/", "transit", partial(engines.load, "transit"), "encryption as a service"),
    ]

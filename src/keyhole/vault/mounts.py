"""Which engine answers at which path. A path has one mount (the longest prefix) and one route of its table."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from keyhole.core import EMPTY
from keyhole.core.errors import InvalidRequest, NotFound
from keyhole.core.lease import SYSTEM_DEFAULT_TTL, SYSTEM_MAX_TTL
from keyhole.core.request import Operation
from keyhole.engines import Engine, Handler, Route

AUTH = "auth/"
_RESOLVED = 4096
_COMPILED = 1024
_WRITES = frozenset({Operation.CREATE, Operation.UPDATE})


class Mount:
    """An engine at a path.

    Attributes:
        path: with its trailing slash; that of a login method begins with ``auth/``.
        id: names its storage; stays when the mount moves.
        made: the engine, or what loads it when it is first asked: a command asks one or two of them.
        type: as it was asked for.
        description: for people.
        accessor: names it in identities and records.
        uuid: shown to people; that of a mount which somebody made is its id.
        options: of the engine, such as the version of ``kv``.
        config: what was tuned, in Vault's names.
        local: said when it was made; a single cluster has no use for it.
        seal_wrap: said when it was made; everything here is sealed anyway.
        fixed: part of every org; it can be neither moved nor disabled.
    """

    def __init__(
        self,
        path: str,
        id: str,  # noqa: A002  # it is called what it is
        made: Engine | Callable[[], Engine],
        type: str,  # noqa: A002  # the same
        description: str = "",
        *,
        accessor: str = "",
        uuid: str = "",
        options: Mapping[str, str] = EMPTY,
        config: Mapping[str, Any] = EMPTY,
        local: bool = False,
        seal_wrap: bool = False,
        fixed: bool = False,
    ) -> None:
        self.path: Final = path
        self.id: Final = id
        self.made: Final = made
        self.type: Final = type
        self.description: Final = description
        self.accessor: Final = accessor
        self.uuid: Final = uuid
        self.options: Final = options
        self.config: Final = config
        self.local: Final = local
        self.seal_wrap: Final = seal_wrap
        self.fixed: Final = fixed

    @functools.cached_property
    def engine(self) -> Engine:
        """What answers."""
        return self.made if isinstance(self.made, Engine) else self.made()

    @property
    def used(self) -> bool:
        """Whether anything has asked for its engine yet."""
        return isinstance(self.made, Engine) or "engine" in self.__dict__

    @functools.cached_property
    def max_ttl(self) -> int:
        """Seconds that something made here lives at most: what was tuned, else the system's own."""
        return int(self.config.get("max_lease_ttl", 0)) or SYSTEM_MAX_TTL

    @functools.cached_property
    def default_ttl(self) -> int:
        """Seconds that something made here lives unless it is said; never more than ``max_ttl``."""
        return min(int(self.config.get("default_lease_ttl", 0)) or SYSTEM_DEFAULT_TTL, self.max_ttl)


def unset(path: str) -> dict[str, Any]:
    """The settings of a mount at a path of which nothing was said."""
    settings: dict[str, Any] = {"default_lease_ttl": 0, "max_lease_ttl": 0, "force_no_cache": False}
    return {**settings, "token_type": "default-service"} if path.startswith(AUTH) else settings


class Target(NamedTuple):
    """Where a request goes: mount, route, handler and the parameters from the path."""

    mount: Mount
    route: Route
    handler: Handler
    params: Mapping[str, str]


class Mounts:
    """The mounts of an org.

    Args:
        mounts: no path of one lies below another's.
        revision: of the stored table that they were read from.
        going: those that are being removed; they answer nothing, and what they leased is still to be taken back.
    """

    def __init__(self, mounts: Iterable[Mount], revision: int = 0, going: Iterable[Mount] = ()) -> None:
        self.revision = revision
        self._going = tuple(going)
        self._resolved: dict[tuple[Operation, str], Target] = {}
        self._found: dict[str, Mount | None] = {}
        self._mounts = sorted(mounts, key=lambda each: len(each.path), reverse=True)

    def __iter__(self) -> Iterator[Mount]:
        """All mounts, the longest path first."""
        return iter(self._mounts)

    def at(self, path: str) -> Mount:
        """The mount with exactly this path. Raises ``NotFound``."""
        for mount in self._mounts:
            if mount.path == path:
                return mount
        raise NotFound(f"there is no mount at {path}")

    def by_id(self, mount_id: str) -> Mount | None:
        """The mount of this id, also one that is being removed."""
        return next((mount for mount in (*self._mounts, *self._going) if mount.id == mount_id), None)

    def find(self, path: str) -> Mount | None:
        """The mount that answers at a path that ends in a slash."""
        if path not in self._found:
            if len(self._found) >= _RESOLVED:
                self._found.clear()
            self._found[path] = next((mount for mount in self._mounts if path.startswith(mount.path)), None)
        return self._found[path]

    def require_free(self, path: str, besides: str = "") -> None:
        """Raises ``InvalidRequest`` when a mount is at, above or below a path; one of id ``besides`` does not count.

        Two never lie within each other, so a path has one mount whatever others are made.
        """
        for mount in self._mounts:
            if mount.id != besides and (path.startswith(mount.path) or mount.path.startswith(path)):
                there = mount.path.removeprefix(AUTH)
                raise InvalidRequest(f"path is already in use at {there}", "choose another path")

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
        mount = self.find(path if path.endswith("/") else f"{path}/")
        fits = False
        if mount is not None:
            below = path[len(mount.path) :]
            for route in mount.engine.routes:
                match = _compiled(route.pattern).fullmatch(below)
                if match is None:
                    continue
                fits = True
                if handler := route.handlers.get(wanted):
                    return Target(mount, route, handler, match.groupdict())
        if fits:
            raise UnsupportedOperation("unsupported operation")
        if mount is not None:
            raise NotFound("unsupported path", f"ask for help: GET /v1/{mount.path}?help=1")
        raise NotFound(f"no handler for route '{path}'", "GET sys/mounts says what is mounted")


@functools.lru_cache(maxsize=_COMPILED)  # the mounts of all orgs have the same few engines
def _compiled(pattern: str) -> re.Pattern[str]:
    return Route(pattern, {}).compiled()


class UnsupportedOperation(NotFound):
    """The path exists and does not take this operation."""

    status = 405

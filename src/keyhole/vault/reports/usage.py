"""Adds up records: how often, and from when to when, who used which credential. Pure, and bounded in memory.

A credential is named as a service names it: ``stripe/api-key`` in ``secret/``, and ``/MOUNT/PATH`` for what a READ of
another mount reveals.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from keyhole.core.record import Phase, Record

_SECRETS = "secret/data/"
_SERVICES = "services/"
_WRITES = frozenset({"create", "update", "patch", "delete"})
_VERSIONS = ("delete", "undelete", "destroy")
_THROUGH = 100  # services that are named of one caller and credential
_ABORTED = "aborted"  # nobody waited for the answer any more; it may have been released


@dataclass(slots=True)
class Use:
    """What one caller did with one credential.

    Attributes:
        uses: calls in which it was lent to the road.
        reads: times that its value was asked for, and given out.
        changes: versions that were written, deleted or destroyed.
        refused: times that any of this was refused, or failed.
        first, last: seconds since the epoch.
        through: services by which it was lent.
    """

    uses: int = 0
    reads: int = 0
    changes: int = 0
    refused: int = 0
    first: float = 0.0
    last: float = 0.0
    through: set[str] = field(default_factory=set)

    def seen(self, seconds: float) -> None:
        """Something of this happened then."""
        self.first = min(self.first or seconds, seconds)
        self.last = max(self.last, seconds)


@dataclass(slots=True)
class Latest:
    """When each name was last seen; of so many names at most.

    Attributes:
        most: names that are kept.
        at: seconds since the epoch, by name.
        left_out: something was seen whose name is not kept.
    """

    most: int
    at: dict[str, float] = field(default_factory=dict)
    left_out: bool = False

    def saw(self, name: str, seconds: float) -> None:
        """It happened then."""
        if not name:
            return
        if name not in self.at and len(self.at) >= self.most:
            self.left_out = True
            return
        self.at[name] = max(self.at.get(name, 0.0), seconds)


class Usage:
    """The sum of the records that it is given, in any order.

    Args:
        reveals: whether a READ of an API path reveals a credential.
        lent_by: names of the credentials of each service; says what a refused use was about.
        secret, caller: of these only; empty for all.
        most: pairs of credential and caller, and names of each kind, that are kept.

    Attributes:
        pairs: what was done, by credential and caller.
        credentials: when each was last used or read.
        services: when each was last used.
        bound: when each service was last written.
        callers, accessors: when each was last seen.
        records: how many records that were.
    """

    def __init__(
        self,
        reveals: Callable[[str], bool],
        lent_by: Mapping[str, tuple[str, ...]],
        *,
        secret: str = "",
        caller: str = "",
        most: int = 100_000,
    ) -> None:
        self._reveals = reveals
        self._lent_by = lent_by
        self._secret = secret
        self._caller = caller
        self._most = most
        self._cut = False
        self.pairs: dict[tuple[str, str], Use] = {}
        self.credentials, self.services, self.bound, self.callers, self.accessors = (Latest(most) for _ in range(5))
        self.records = 0

    @property
    def complete(self) -> bool:
        """Nothing was left out for being too much."""
        kept = (self.credentials, self.services, self.bound, self.callers, self.accessors)
        return not (self._cut or any(each.left_out for each in kept))

    def add(self, record: Record, seconds: float) -> None:
        """One record, of this time."""
        self.records += 1
        self.callers.saw(record.caller, seconds)
        self.accessors.saw(record.accessor, seconds)
        what, names = self.touched(record)
        done = record.phase is not Phase.REFUSED
        if what == "uses" and done:
            self.services.saw(record.service, seconds)
        if record.operation in _WRITES and done and record.path.startswith(_SERVICES):
            self.bound.saw(record.path.removeprefix(_SERVICES), seconds)
        for name in names:
            if done and what != "changes":
                self.credentials.saw(name, seconds)
            if (not self._secret or name == self._secret) and self._caller in {"", record.caller}:
                self._count(name, what, record, seconds)

    def touched(self, record: Record) -> tuple[str, tuple[str, ...]]:
        """What was asked for, as a field of ``Use``, and of which credentials; no names where it was of none."""
        if record.operation == "use":
            return "uses", record.secrets or self._lent_by.get(record.service, ())
        path = record.path
        if record.operation == "read":
            revealed = path.startswith(_SECRETS) or self._reveals(path)
            return "reads", (named(path),) if revealed else ()
        if record.operation not in _WRITES:
            return "", ()
        mount, verb, rest = _split(path, record.secrets)
        if verb in _VERSIONS or (verb == "metadata" and record.operation == "delete"):
            path = f"{mount}data/{rest}"
        elif verb == "metadata":
            return "", ()
        written = path.startswith(_SECRETS) or self._reveals(path)
        return "changes", (named(path),) if written else ()

    def _count(self, name: str, what: str, record: Record, seconds: float) -> None:
        use = self.pairs.get((name, record.caller))
        if use is None:
            if len(self.pairs) >= self._most:
                self._cut = True
                return
            use = self.pairs[name, record.caller] = Use()
        if record.phase is Phase.INTENT:
            if what == "uses" and len(use.through) < _THROUGH:
                use.through.add(record.service)
            setattr(use, what, getattr(use, what) + 1)
        elif record.phase is Phase.REFUSED:
            use.refused += record.count or 1
        elif record.result not in {"ok", _ABORTED}:
            use.refused += 1
            setattr(use, what, getattr(use, what) - 1)  # its intent is another record of the same window, or near it
        use.seen(seconds)


def named(path: str) -> str:
    """The credential that a READ of an API path reveals, as services name it."""
    return path.removeprefix(_SECRETS) if path.startswith(_SECRETS) else f"/{path}"


def _split(path: str, secrets: tuple[str, ...]) -> tuple[str, str, str]:
    """Mount, first word below it and the rest, of a path below an engine that has secrets of its own."""
    for name in secrets:
        if path.endswith(f"/{name}"):
            mount, _, verb = path.removesuffix(f"/{name}").rpartition("/")
            return f"{mount}/" if mount else "", verb, name
    mount, _, rest = path.partition("/")
    verb, _, rest = rest.partition("/")
    return f"{mount}/", verb, rest

"""The services of an org by what they lend. Thousands may lend the same, which is opened once for all of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from keyhole.core.inject import KINDS
from keyhole.core.layered import Layered
from keyhole.core.service import Service


class Lendings:
    """What all services of an org lend, at one epoch of theirs. None of it ever changes.

    Attributes:
        of: what each service lends, by its name.
        services: one of those that lend it, for each of what is lent; its values are the same for all of them.
        at: what is lent of each path.
    """

    __slots__ = ("_counts", "at", "of", "services")

    def __init__(self, services: Iterable[Service]) -> None:
        self._counts: Layered[str, int] = Layered()
        self.of: Layered[str, str] = Layered()
        self.services: Layered[str, Service] = Layered()
        self.at: Layered[str, tuple[str, ...]] = Layered()
        self._change((), tuple(services))

    def changed(self, gone: Sequence[Service], come: Sequence[Service]) -> Lendings:
        """The same of other services: one that was changed is among both."""
        other = Lendings(())
        other._counts, other.of, other.services, other.at = self._counts, self.of, self.services, self.at
        other._change(gone, come)
        return other

    def _change(self, gone: Sequence[Service], come: Sequence[Service]) -> None:
        before = {service.name: _lent(service) for service in gone}
        after = {service.name: _lent(service) for service in come}
        counts: dict[str, int] = {}
        one_of: dict[str, Service] = {}
        for lent, service, more in [(before[service.name], service, -1) for service in gone] + [
            (after[service.name], service, 1) for service in come
        ]:
            counts[lent] = counts.get(lent, self._counts.get(lent, 0)) + more
            one_of[lent] = service
        fresh = {lent: one_of[lent] for lent, count in counts.items() if count and lent not in self.services}
        ended = {lent for lent, count in counts.items() if not count}
        at: dict[str, tuple[str, ...]] = {}
        for lent in (*fresh, *ended):
            for path in _paths(one_of[lent]):
                others = tuple(each for each in at.get(path, self.at.get(path, ())) if each != lent)
                at[path] = (*others, lent) if lent in fresh else others
        self.of = self.of.changed(before, after)
        self._counts = self._counts.changed(ended, {lent: count for lent, count in counts.items() if count})
        self.services = self.services.changed(ended, fresh)
        self.at = self.at.changed(at, {path: lent for path, lent in at.items() if lent})


def stored(service: Service) -> list[str]:
    """Paths in ``secret/`` of what a service lends."""
    return sorted(path for path in _paths(service) if not path.startswith("/"))


def _paths(service: Service) -> set[str]:
    return {path for path, _ in service.secret_refs()}


def _lent(service: Service) -> str:
    """The same text for services whose values are the same: of the same fields, of which the same are public."""
    public = sorted(KINDS[service.inject.kind].public)
    return json.dumps([service.secret_choices(), service.certificate_choices(), public])

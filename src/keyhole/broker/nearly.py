"""Which services a refused call nearly means, and in which part it differs from each. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher
from itertools import islice
from typing import Any

from keyhole.broker.directory import Wanted
from keyhole.core.host import HostPattern
from keyhole.core.service import Service

_MOST = 3
_LOOKED_AT = 1000  # services
_SHOWN = 4  # hosts or paths
_ALIKE = 0.8  # of 1: api.strip.com and api.stripe.com have 0.96


def nearly(services: Iterable[Service], wanted: Wanted) -> list[dict[str, Any]]:
    """The nearest services, each with the parts that differ: part to what the service wants there.

    A service counts whose host is the call's, or looks like it.

    Args:
        services: that the reader may know of.
        wanted: the call.
    """
    found = []
    for service in islice(services, _LOOKED_AT):
        host = _nearest(service, wanted)
        if host is not None:
            parts = _differences(service, host, wanted)
            if parts:
                found.append((len(parts), service.name, parts))
    return [{"service": name, "differs": parts} for _, name, parts in sorted(found, key=lambda near: near[:2])[:_MOST]]


def _nearest(service: Service, wanted: Wanted) -> HostPattern | None:
    asked = wanted.authority

    def likeness(host: HostPattern) -> tuple[float, bool]:
        name = asked.host.partition(".")[2] if host.wildcard else asked.host
        same = name == host.host
        return (1.0 if same else _likeness(name, host.host), host.port == asked.port)

    best = max(service.hosts, key=likeness)
    return best if likeness(best)[0] >= _ALIKE else None


def _likeness(one: str, other: str) -> float:
    matcher = SequenceMatcher(None, one, other, autojunk=False)
    # The cheap upper bounds first: most hosts have nothing to do with one another.
    if matcher.real_quick_ratio() < _ALIKE or matcher.quick_ratio() < _ALIKE:
        return 0.0
    return min(0.99, matcher.ratio())


def _differences(service: Service, host: HostPattern, wanted: Wanted) -> dict[str, str]:
    parts: dict[str, str] = {}
    name = wanted.authority.host.partition(".")[2] if host.wildcard else wanted.authority.host
    if wanted.scheme not in service.schemes:
        parts["scheme"] = " ".join(service.schemes)
    if name != host.host:
        parts["host"] = f"*.{host.host}" if host.wildcard else host.host
    if wanted.authority.port != host.port:
        parts["port"] = str(host.port)
    if service.methods and wanted.method not in service.methods:
        parts["method"] = " ".join(sorted(service.methods))
    if any(service.path_rank(path) is None for path in wanted.paths):
        patterns = [glob.pattern for glob in service.paths]
        parts["path"] = " ".join(patterns[:_SHOWN]) + (" …" if len(patterns) > _SHOWN else "")
    elif any(service.denies(path) for path in wanted.paths):
        parts["path"] = "none of " + " ".join(glob.pattern for glob in service.deny_paths[:_SHOWN])
    return parts

"""Which service of the agent is meant by a call that names secrets as AgentSecrets does (``STRIPE_KEY``). Pure.

1. A name is that of an environment variable of a service; else the path of a secret (``stripe/api-key``, also with its
   field); else one of these, or the service's own name, in capitals with ``_`` between the words. The first of the
   three that anything has counts.
2. A service counts for a host of its own only, with every secret of the call, each in the place that it binds. Names of
   parameters and fields are compared as written; where that finds none, without case, for clients that change it.
3. Of several the one that the broker would prefer; if that leaves several secrets, the name is ambiguous.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from keyhole.core.inject import Inject, placed
from keyhole.core.path import DEFAULT_FIELD
from keyhole.core.placed import field_path
from keyhole.core.record import clip
from keyhole.core.service import Service
from keyhole.core.target import readings
from keyhole.faces.run.agentsecrets import said
from keyhole.faces.run.agentsecrets.asked import Asked, Place

_WORD = re.compile(r"[^A-Z0-9]+")
_BEARER = "bearer {}"
_HEADERS = frozenset({"header", "oauth2"})


@dataclass(frozen=True, slots=True)
class Wish:
    """What the port needs to know of its agent.

    Attributes:
        agent: its name.
        services: what it may use at this moment, name to binding; asked in a thread of its own.
        placeholders: service to the text that stands for its secret in this session.
        port: where to listen; 0 for a free one.
    """

    agent: str
    services: Callable[[], Mapping[str, Service]]
    placeholders: Mapping[str, str]
    port: int = 0


class Chosen(NamedTuple):
    """The service for a call, and headers that show it a placeholder, for a service that replaces one."""

    service: Service
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Slot(NamedTuple):
    """A place that a service binds, and the field of the secret that goes there; empty for its only one."""

    style: str
    name: str
    field: str = ""


def slots(how: Inject) -> Iterator[Slot]:
    """The places of an injection, as far as a caller of AgentSecrets can name them."""
    kind = how.kind
    if kind in {"bearer", "basic"}:
        yield Slot(kind, "")
    elif kind in _HEADERS:
        yield Slot("header", how["name"])
        if how["name"].lower() == "authorization" and how["template"].lower() == _BEARER:
            yield Slot("bearer", "")
    elif kind == "headers":
        yield from (Slot("header", name, field) for name, field in how["headers"])
    elif kind == "query":
        yield from (
            Slot("query", name, field) for name, field in (((how["name"], ""),) if how["name"] else how["params"])
        )
    elif kind in {"body", "form"}:
        yield Slot(kind, how["field"])
    elif kind == "several":
        for item in json.loads(how["each"]):
            part, field, _ = placed(item)
            yield from (slot._replace(field=field) for slot in slots(part))
    elif kind == "placeholder" and "header" in how["in"]:
        yield Slot("bearer", "")
        yield Slot("header", "")  # any


def choose(asked: Asked, services: Mapping[str, Service], placeholders: Mapping[str, str]) -> Chosen:
    """The service for a call. Raises ``Refused``: the contract's answers for a host or a secret that is not there."""
    host = asked.authority.host
    if not services:
        raise said.empty(host)
    here = [service for service in services.values() if service.host_rank(asked.scheme, asked.authority) is not None]
    if not here:
        raise said.not_allowed(host)
    levels = {place.key: _level(place.key, services.values()) for place in asked.places}
    for key, level in levels.items():
        if level is None:
            raise said.unknown(key)
    bound = [s for s in here if all(_means(s, place.key, levels[place.key]) for place in asked.places)]
    if not bound:
        raise _unbound(asked, host)
    fitting = _fitting(asked.places, bound, levels)
    if not fitting:
        ways = "; ".join(sorted({service.inject.describe() for service in bound}))
        wanted = " and ".join(map(str, asked.places))
        raise said.not_bound(host, f"the secret is bound to {host} as {ways}, and not as {wanted}")
    service = _best(fitting, asked)
    if service is None:
        names = ", ".join(sorted(service.name for service in fitting))
        keys = ", ".join(clip(place.key) for place in asked.places)
        raise said.ambiguous(host, f"{keys} means several secrets at {host}, of the services {names}: use their paths")
    return Chosen(service, tuple(_shown(service, asked.places, placeholders)))


def known(services: Iterable[Service]) -> Iterator[tuple[str, Service]]:
    """The name under which a caller finds each secret, for lists: its variables, else its path in capitals."""
    for service in services:
        names = service.variables or (normal(service.secret.partition("#")[0]),)
        yield from ((name, service) for name in names if service.secret)


def listing(services: Iterable[Service]) -> list[dict[str, Any]]:
    """Each secret by its name for lists (``key``), where it may go (``domains``), and its other ``names``."""
    found: dict[str, tuple[set[str], set[str]]] = {}
    for name, service in known(services):
        hosts, names = found.setdefault(name, (set(), set()))
        hosts.update(str(host).removesuffix(":443") for host in service.hosts)
        names.update((*_exact(service), *_capitals(service)))
    return [
        {"key": name, "domains": sorted(hosts), "names": sorted(names - {name})}
        for name, (hosts, names) in sorted(found.items())
    ]


def normal(text: str) -> str:
    """A name as that of an environment variable."""
    return _WORD.sub("_", text.upper()).strip("_")


def _level(key: str, services: Iterable[Service]) -> int | None:
    """The first way of naming by which anything has this name."""
    found = [level for level in range(3) if any(_means(service, key, level) for service in services)]
    return found[0] if found else None


def _means(service: Service, key: str, level: int | None) -> bool:
    path = service.secret.partition("#")[0]
    if level == 0:
        return key in service.variables
    if level == 1:
        several = bool(_named(service)) and key.partition("#")[0] == path
        return bool(path) and (several or key in _exact(service))
    return bool(path) and normal(key) in _capitals(service)


def _exact(service: Service) -> set[str]:
    """The path of the secret, with and without its usual field."""
    path, _, field = service.secret.partition("#")
    return {path if field == DEFAULT_FIELD else service.secret, service.secret}


def _capitals(service: Service) -> set[str]:
    return {normal(name) for name in (*_exact(service), service.name)}


def _named(service: Service) -> set[str]:
    return {slot.field for slot in slots(service.inject) if slot.field}


def _unbound(asked: Asked, host: str) -> said.Refused:
    keys = [clip(place.key) for place in asked.places]
    if len(set(keys)) > 1:
        return said.not_bound(host, f"no service attaches {', '.join(keys)} together; bind them in one service")
    return said.not_allowed(host, f"{keys[0]} is not bound to it: keyhole service list")


def _fitting(places: tuple[Place, ...], bound: list[Service], levels: Mapping[str, int | None]) -> list[Service]:
    for same in (str, str.lower):
        found = [s for s in bound if all(_fits(s, place, levels[place.key], same) for place in places)]
        if found:
            return found
    return []


def _fits(service: Service, place: Place, level: int | None, same: Callable[[str], str]) -> bool:
    wanted = service.fields.get(place.key, "") if level == 0 else place.key.partition("#")[2]
    for slot in slots(service.inject):
        if slot.style != place.style or (wanted and slot.field and wanted != slot.field):
            continue
        if slot.style == "header":
            if slot.name.lower() in {place.name.lower(), ""}:
                return True
        elif slot.style == "body":
            if same(".".join(field_path(slot.name)).replace("-", ".")) == same(place.name):
                return True
        elif same(slot.name) == same(place.name):
            return True
    return False


def _best(found: list[Service], asked: Asked) -> Service | None:
    """What the broker would prefer; ``None`` for a tie between several secrets."""
    paths = readings(asked.target)
    ranked = []
    for service in found:
        ranks = [service.path_rank(path) for path in paths]
        if None not in ranks and (not service.methods or asked.method in service.methods):
            rank = (service.host_rank(asked.scheme, asked.authority), ranks[0], bool(service.methods))
            ranked.append((rank, service))
    best = max((rank for rank, _ in ranked), default=None)
    top = [service for rank, service in ranked if rank == best] or found
    if len({service.secret for service in top}) > 1:
        return None
    return min(top, key=lambda service: service.name)


def _shown(
    service: Service, places: tuple[Place, ...], placeholders: Mapping[str, str]
) -> Iterator[tuple[bytes, bytes]]:
    if service.inject.kind == "placeholder":
        text = placeholders.get(service.name, service.inject.text)
        for place in places:
            bearer = place.style == "bearer"
            yield (b"Authorization" if bearer else place.name.encode()), f"{'Bearer ' * bearer}{text}".encode()

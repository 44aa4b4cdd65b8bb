"""The services of an org, compiled for matching. Pure: host table first, then the rules of few candidates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from keyhole.core.errors import AmbiguousService, KeyholeError, NoService, PolicyDenied
from keyhole.core.host import Authority
from keyhole.core.identity import Caller
from keyhole.core.message import Headers
from keyhole.core.service import Service
from keyhole.injections.placeholder import decode_basic


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a call is matched by.

    Attributes:
        scheme: ``http`` or ``https``.
        authority: canonical destination.
        method: as received.
        path: decoded path that rules are judged on.
        service: the service that the caller named, or ``""``.
        headers: searched for placeholders when a tie is left.
    """

    scheme: str
    authority: Authority
    method: str
    path: str
    service: str = ""
    headers: Headers | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """The outcome of matching.

    Attributes:
        service: what the call goes through; ``None`` when no service of the org knows the host.
        refusal: why it may not be made.
    """

    service: Service | None = None
    refusal: KeyholeError | None = None


class Directory:
    """All services of one org at one epoch."""

    def __init__(self, services: Iterable[Service]) -> None:
        self._exact: dict[tuple[str, int], list[Service]] = {}
        self._wild: dict[tuple[str, int], list[Service]] = {}
        for service in services:
            for host in service.hosts:
                table = self._wild if host.wildcard else self._exact
                table.setdefault((host.host, host.port), []).append(service)

    def at(self, scheme: str, authority: Authority) -> list[Service]:
        """Services that mean this destination, whoever asks."""
        found = list(self._exact.get((authority.host, authority.port), ()))
        if not authority.is_ip:
            parent = authority.host.partition(".")[2]
            found += self._wild.get((parent, authority.port), ())
        return [s for s in dict.fromkeys(found) if scheme in s.schemes] if found else found

    def knows(self, authority: Authority) -> bool:
        """Does any service mean this destination, with whatever scheme?"""
        return any(self.at(scheme, authority) for scheme in ("https", "http"))

    def match(self, caller: Caller, wanted: Wanted) -> Match:
        """Which service a call goes through, or why it may not be made."""
        candidates = self.at(wanted.scheme, wanted.authority)
        if wanted.service:
            candidates = [service for service in candidates if service.name == wanted.service]
            if not candidates:
                return Match(
                    refusal=NoService(
                        f"the service {wanted.service!r} does not mean {wanted.scheme}://{wanted.authority}",
                        "keyhole service list",
                    )
                )
        if not candidates:
            return self._other_scheme(wanted)
        granted = [service for service in candidates if caller.acl.decide("use", f"services/{service.name}")]
        if not granted:
            return Match(refusal=_not_granted(caller, candidates, wanted))
        for service in granted:
            if service.denies(wanted.path):
                return Match(
                    refusal=PolicyDenied(
                        f"the service {service.name!r} denies {wanted.path}", "its deny paths win over all others"
                    )
                )
        return _best(granted, wanted)

    def _other_scheme(self, wanted: Wanted) -> Match:
        """A host that has services for another scheme only must not fall through to the egress rule."""
        other = "http" if wanted.scheme == "https" else "https"
        if not self.at(other, wanted.authority):
            return Match()
        return Match(refusal=NoService(f"{wanted.authority} has services for {other} only", f"call it over {other}"))


def _best(granted: list[Service], wanted: Wanted) -> Match:
    ranked = []
    for service in granted:
        host = service.host_rank(wanted.scheme, wanted.authority)
        path = service.path_rank(wanted.path)
        if host is not None and path is not None and (not service.methods or wanted.method in service.methods):
            ranked.append(((host, path, bool(service.methods)), service))
    if not ranked:
        names = ", ".join(sorted(service.name for service in granted))
        return Match(
            refusal=PolicyDenied(
                f"{wanted.method} {wanted.path} is not among what {names} allows", "keyhole service show NAME"
            )
        )
    best = max(rank for rank, _ in ranked)
    top = [service for rank, service in ranked if rank == best]
    if len(top) > 1:
        top = [service for service in top if _shows(service, wanted.headers or [])] or top
    if len(top) > 1:
        names = ", ".join(sorted(service.name for service in top))
        return Match(
            refusal=AmbiguousService(
                f"the services {names} fit equally well", "name one in the header X-Keyhole-Service"
            )
        )
    return Match(top[0])


def _shows(service: Service, headers: Headers) -> bool:
    """Does the caller show the placeholder of this service?"""
    texts = [text.encode() for text in (service.placeholder, service.inject.text) if text]
    if not texts:
        return False
    for _, value in headers:
        inside = decode_basic(value) or b""
        if any(text in value or text in inside for text in texts):
            return True
    return False


def _not_granted(caller: Caller, candidates: list[Service], wanted: Wanted) -> PolicyDenied:
    name = min(service.name for service in candidates)
    who = caller.name.removeprefix("agent/")
    return PolicyDenied(
        f"{caller.name} may not use the service {name!r} for {wanted.authority}", f"keyhole grant {who} {name}"
    )

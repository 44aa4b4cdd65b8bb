"""The services of an org, compiled for matching. Pure: host table first, then the rules of few candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from keyhole.core.checks.rules import Checks
from keyhole.core.checks.scope import Rule
from keyhole.core.errors import AmbiguousService, KeyholeError, NoService, PolicyDenied
from keyhole.core.host import Authority, HostPattern
from keyhole.core.identity import Caller
from keyhole.core.layered import Layered
from keyhole.core.message import Headers
from keyhole.core.passthrough import SCHEMES as PASSED
from keyhole.core.service import SCHEMES, Service
from keyhole.core.sql import SCHEMES as DATABASES
from keyhole.core.ssh import SSH
from keyhole.injections.placeholder import shows, shows_in_target

_GRANTED = 4096
_CAPTURES = ("captures",)
_SHORT_PATH = 256


@dataclass(slots=True)
class Wanted:
    """What a call is matched by.

    Attributes:
        scheme: ``http`` or ``https``.
        authority: canonical destination.
        method: as received.
        paths: the readings of its path that rules are judged on; the first is the usual one.
        service: the service that the caller named, or ``""``.
        headers: searched for placeholders when a tie is left.
        target: the same.
        own: a service as the caller's session sees it, when it has placeholders of its own.
    """

    scheme: str
    authority: Authority
    method: str
    paths: tuple[str, ...]
    service: str = ""
    headers: Headers | None = None
    target: bytes = b""
    own: Callable[[Service], Service] | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """The outcome of matching.

    Attributes:
        service: what the call goes through; ``None`` when no service of the org knows the host.
        refusal: why it may not be made.
        shown: whether it was decided by what the request shows.
        about: the service that a refusal is about, for the record; also where a check may refuse yet.
        checks: what is asked of the call besides; ``None`` for nothing.
    """

    service: Service | None = None
    refusal: KeyholeError | None = None
    shown: bool = False
    about: str = ""
    checks: Checks | None = None


_Place = tuple[str | int | bool, ...]
_Table = Layered[_Place, tuple[Service, ...]]


def _places(service: Service) -> Iterator[_Place]:
    """Where a service stands in the table of its directory."""
    for host in service.hosts:
        yield "at", host.host, host.port, host.wildcard
        yield "on", host.host, host.wildcard
    if service.capture:
        yield _CAPTURES
    if any(not host.wildcard for host in service.hosts):
        for scheme in service.schemes:
            if scheme not in SCHEMES:
                yield "speaks", scheme
                yield "named", scheme, service.name


def _changed(table: _Table, gone: Iterable[Service], come: Iterable[Service]) -> _Table:
    """Another table, with other services in the places of these; those of a place are in the order of their names."""
    touched: dict[_Place, dict[str, Service]] = {}
    for service in gone:
        for place in _places(service):
            _named(touched, table, place).pop(service.name, None)
    for service in come:
        for place in _places(service):
            _named(touched, table, place)[service.name] = service
    come_to = {place: tuple(named[name] for name in sorted(named)) for place, named in touched.items() if named}
    return table.changed(touched, come_to)


def _named(touched: dict[_Place, dict[str, Service]], table: _Table, place: _Place) -> dict[str, Service]:
    named = touched.get(place)
    if named is None:
        named = touched[place] = {service.name: service for service in table.get(place, ())}
    return named


class Directory:
    """All services of one org at one epoch.

    Attributes:
        captures: some of them keep credentials that calls make.
    """

    def __init__(self, services: Iterable[Service]) -> None:
        self._begin(_changed(Layered(), (), services))

    def _begin(self, table: _Table) -> None:
        self._table = table
        self._granted: dict[tuple[object, ...], Match] = {}
        self._spoken: dict[Authority, str] = {}
        self._opened: set[tuple[object, Authority]] = set()
        self.captures = _CAPTURES in table

    def changed(self, gone: Sequence[Service], come: Sequence[Service]) -> Directory:
        """The directory of other services: one that was changed is among both. What was granted is decided anew."""
        other = Directory(())
        other._begin(_changed(self._table, gone, come))
        return other

    def at(self, scheme: str, authority: Authority) -> list[Service]:
        """Services that mean this destination, whoever asks."""
        found = self._table.get(("at", authority.host, authority.port, False), ())
        if not authority.is_ip:
            found += self._table.get(("at", authority.host.partition(".")[2], authority.port, True), ())
        return list({service.name: service for service in found if scheme in service.schemes}.values())

    def session(self, caller: Caller, scheme: str, name: str, authority: Authority | None) -> Match:
        """Which service a session goes through that is one use, whatever is said in it, or why it may not be opened.

        Args:
            caller: who opens it.
            scheme: of a database, or of a tunnel that is passed on.
            name: of the service; empty for the one at ``authority``.
            authority: where the caller's tunnel leads; ``None`` without one.
        """
        found = self._named(scheme, name, authority)
        if not found:
            what = f"the service {name!r} is" if name else "no service is"
            where = f" at {authority}" if authority is not None else ""
            thing = "a database" if scheme in DATABASES else "a tunnel"
            return Match(refusal=NoService(f"{what} {thing} of {scheme}{where}", "keyhole service list"))
        granted = [service for service in found if caller.acl.decide("use", f"services/{service.name}")]
        if not granted:
            first = min(found, key=lambda service: service.name)
            return Match(refusal=_not_granted(caller, [first], first.hosts[0]), about=first.name)
        if len(granted) > 1:
            names = ", ".join(sorted(service.name for service in granted))
            return Match(
                refusal=AmbiguousService(
                    f"the services {names} fit equally well", "name one as the user, or in a tunnel"
                )
            )
        return Match(granted[0])

    def _named(self, scheme: str, name: str, authority: Authority | None) -> list[Service]:
        if authority is None:
            return list(self._table.get(("named", scheme, name), ()))
        found = self.at(scheme, authority)
        return [service for service in found if service.name == name] if name else found

    def spoken_at(self, authority: Authority, name: str) -> str:
        """The scheme of the database that a tunnel leads to, or of a tunnel that is passed on; empty for one of HTTP.

        Args:
            authority: where it leads.
            name: of the service that its client chose; empty for none.
        """
        spoken = None if name else self._spoken.get(authority)
        if spoken is None:
            spoken = self.database_at(authority, name) or self.passed_at(authority)
            if not name:
                if len(self._spoken) >= _GRANTED:
                    self._spoken.clear()
                self._spoken[authority] = spoken
        return spoken

    def database_at(self, authority: Authority, name: str) -> str:
        """The scheme of the database that a tunnel leads to; empty where it leads to HTTP."""
        for scheme in DATABASES:
            found = self.at(scheme, authority)
            if any(service.name == name for service in found) if name else found:
                return scheme
        return ""

    def passed_at(self, authority: Authority) -> str:
        """The scheme of a tunnel to here that is passed on; empty where it is looked into, which any service wins."""
        if any(self.at(scheme, authority) for scheme in SCHEMES):
            return ""
        return next((scheme for scheme in PASSED if self.at(scheme, authority)), "")

    def logins(self) -> list[Service]:
        """Services with a key for logins by SSH, whoever asks."""
        return [service for service in self._table.get(("speaks", SSH), ()) if service.inject.kind == SSH]

    def elsewhere(self, authority: Authority) -> str:
        """Where services mean this host, on whatever port and scheme, for the reader of a refusal; empty if none."""
        for host, wildcard in ((authority.host, False), (authority.host.partition(".")[2], True)):
            for service in self._table.get(("on", host, wildcard), ()) if not (wildcard and authority.is_ip) else ():
                pattern = next(each for each in service.hosts if (each.host, each.wildcard) == (host, wildcard))
                return f"{service.schemes[0]}://{pattern}"
        return ""

    def decide(self, caller: Caller, wanted: Wanted, egress: str, *, passed: bool = False) -> Match:
        """What becomes of a call before its service's checks: ``match``, and the org's rule where no service is.

        Args:
            caller: who calls.
            wanted: what is called.
            egress: what the org lets out without a service.
            passed: it is a tunnel that nobody looks into, which needs a service.
        """
        match = self.match(caller, wanted)
        if match.refusal is None and match.service is None and (egress == "deny" or passed):
            return Match(refusal=no_service(wanted.authority))
        return match

    def tunnel(self, caller: Caller, authority: Authority, egress: str) -> Match:
        """Why nothing in a tunnel could be allowed, if so; what is in it is judged request by request.

        What was granted once is granted again, as in ``match``.
        """
        key = (caller.acl, authority)
        if key in self._opened:
            return Match()
        schemes = [scheme for scheme in SCHEMES if self.at(scheme, authority)]
        match = Match()
        for scheme in schemes or SCHEMES[:1]:
            if any(caller.acl.decide("use", f"services/{s.name}") for s in self.at(scheme, authority)):
                if len(self._opened) >= _GRANTED:
                    self._opened.clear()
                self._opened.add(key)
                return Match()
            match = self.decide(caller, Wanted(scheme, authority, "GET", ("/",)), egress)
        return match

    def opened(self, caller: Caller, authority: Authority, name: str) -> bool:
        """Whether such a tunnel was granted before, to what speaks HTTP. ``False`` says nothing of others."""
        return not name and (caller.acl, authority) in self._opened and self._spoken.get(authority) == ""

    def unknown(self, authority: Authority) -> bool:
        """Does no service mean this destination, whoever may use it?"""
        return not any(self.at(scheme, authority) for scheme in (*SCHEMES, *PASSED))

    def match(self, caller: Caller, wanted: Wanted) -> Match:
        """Which service a call goes through, or why it may not be made.

        What was granted once by name, destination and path, without a look at headers, is granted again: all that it
        depends on lives as long as this directory.
        """
        key = (caller.acl, wanted.scheme, wanted.authority, wanted.method, wanted.paths, wanted.service)
        match = self._granted.get(key)
        if match is None:
            match = self._match(caller, wanted)
            if match.service is not None and not match.shown and len(wanted.paths[0]) <= _SHORT_PATH:
                if len(self._granted) >= _GRANTED:
                    self._granted.clear()
                self._granted[key] = match
        return match

    def _match(self, caller: Caller, wanted: Wanted) -> Match:
        candidates = self.at(wanted.scheme, wanted.authority)
        named = [s for s in candidates if s.name == wanted.service] if wanted.service else candidates
        if wanted.service and not named:
            return Match(
                refusal=NoService(
                    f"the service {wanted.service!r} does not mean {wanted.scheme}://{wanted.authority}",
                    "keyhole service list",
                )
            )
        if not candidates:
            return self._without_service(wanted.authority)
        granted = [service for service in candidates if caller.acl.decide("use", f"services/{service.name}")]
        chosen = [service for service in named if service in granted]
        if not chosen:
            return Match(
                refusal=_not_granted(caller, named, wanted.authority), about=min(service.name for service in named)
            )
        for service in granted:  # also those that were not named: naming another is no way around a deny path
            if any(service.denies(path) for path in wanted.paths):
                return Match(
                    refusal=PolicyDenied(
                        f"the service {service.name!r} denies {wanted.paths[0]}", "its deny paths win over all others"
                    ),
                    about=service.name,
                )
        match = _best(chosen, wanted)
        if match.service is not None and (checks := _checks(match.service, granted, wanted)) is not None:
            return replace(match, checks=checks, about=match.service.name)
        return match

    def _without_service(self, authority: Authority) -> Match:
        """A host that has services on another port or scheme must not fall through to the egress rule."""
        where = self.elsewhere(authority)
        if not where:
            return Match()
        return Match(refusal=NoService(f"{authority.host} has services elsewhere only", f"call it at {where}"))


def _best(granted: list[Service], wanted: Wanted) -> Match:
    ranked = []
    for service in granted:
        host = service.host_rank(wanted.scheme, wanted.authority)
        paths = [service.path_rank(path) for path in wanted.paths]
        path = None if None in paths else paths[0]
        if host is not None and path is not None and (not service.methods or wanted.method in service.methods):
            ranked.append(((host, path, bool(service.methods)), service))
    if not ranked:
        names = ", ".join(sorted(service.name for service in granted))
        return Match(
            refusal=PolicyDenied(
                f"{wanted.method} {wanted.paths[0]} is not among what {names} allows",
                f"keyhole service show {min(service.name for service in granted)}",
            ),
            about=min(service.name for service in granted),
        )
    best = max(rank for rank, _ in ranked)
    top = [service for rank, service in ranked if rank == best]
    shown = len(top) > 1
    if shown:
        own = wanted.own or _as_it_is
        top = [service for service in top if _shows(own(service), wanted)] or top
    if len(top) > 1:
        names = ", ".join(sorted(service.name for service in top))
        return Match(
            refusal=AmbiguousService(
                f"the services {names} fit equally well", "name one in the header X-Keyhole-Service"
            )
        )
    return Match(top[0], shown=shown)


def _as_it_is(service: Service) -> Service:
    return service


def _checks(chosen: Service, granted: list[Service], wanted: Wanted) -> Checks | None:
    """The checks of the chosen service, and what others that bind the same secret want a person to approve."""
    secret = chosen.secret.partition("#")[0]
    others = [
        approval
        for service in granted
        if service is not chosen and service.checks is not None and service.secret.partition("#")[0] == secret
        for approval in service.checks.approvals
        if Rule(service.methods, service.paths).means(wanted.method, wanted.paths)
    ]
    if not others:
        return chosen.checks
    own = chosen.checks or Checks()
    return replace(own, approvals=(*own.approvals, *others))


def _shows(service: Service, wanted: Wanted) -> bool:
    """Does the caller show a placeholder of this service?"""
    for text in map(str.encode, service.shown()):
        if shows_in_target(wanted.target, text) or any(shows(value, text) for _, value in wanted.headers or ()):
            return True
    return False


def _not_granted(caller: Caller, candidates: list[Service], where: Authority | HostPattern) -> PolicyDenied:
    name = min(service.name for service in candidates)
    who = caller.name.removeprefix("agent/")
    return PolicyDenied(f"{caller.name} may not use the service {name!r} for {where}", f"keyhole grant {who} {name}")


def no_service(authority: Authority) -> NoService:
    """The refusal of a host that no service means."""
    return NoService(
        f"no service binds a secret to {authority}, and this org lets no other calls out",
        f"keyhole service add NAME --host {authority} …, or allow it: keyhole org set --egress allow",
    )

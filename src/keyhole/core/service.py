"""A service binds secrets to a destination and says how they are attached. Pure.

Which of several services is meant by a call (``choose``):

1. a matching deny path refuses, also against the rules of other services that the caller may use;
2. only services that the caller may use count;
3. the more specific host wins, then the more specific path, then the one that names its methods;
4. what is left equal is a tie: the caller names the service, or shows its placeholder.

The checks of a service (``core.checks``) do not choose: they are judged once it is chosen, and refuse.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from keyhole.core.capture import CaptureRule, rules_from
from keyhole.core.checks.rules import Checks
from keyhole.core.errors import InvalidRequest
from keyhole.core.host import Authority, HostPattern
from keyhole.core.inject import KINDS, Inject
from keyhole.core.minted import ENDPOINTS
from keyhole.core.passthrough import PORTS as TUNNEL_PORTS
from keyhole.core.passthrough import check_service as check_tunnel
from keyhole.core.path import DEFAULT_FIELD, parse_field, parse_secret_ref
from keyhole.core.probe import Probe
from keyhole.core.request import Limits
from keyhole.core.sql import PORTS as SQL_PORTS
from keyhole.core.sql import check_service
from keyhole.core.target import PathGlob
from keyhole.core.url import parse_url

MTLS = "mtls"
SCHEMES = ("https", "http")  # of requests; those of databases and of tunnels are never among them
PORTS = {"https": 443, "http": 80, **SQL_PORTS, **TUNNEL_PORTS}
_METHOD = re.compile(r"[A-Z][A-Z-]{0,31}")
_LIMIT = 64


@dataclass(frozen=True, slots=True)
class Service:
    """Where secrets may go and how.

    Attributes:
        name: of the service.
        hosts: patterns with their ports.
        schemes: ``https``, and ``http`` only when it was asked for; or the one of a database (``core.sql``) or of
            tunnels that are passed on (``core.passthrough``).
        methods: upper case; empty for any.
        paths: globs of which one must match; empty for any.
        deny_paths: globs of which none may match.
        secret: reference ``path#field``.
        inject: how it is attached.
        certificate: reference ``path#field`` of the client's certificate and key, for TLS with the upstream.
        allow_addresses: networks that are dialled although the guard refuses them.
        placeholder: text that stands for the secret in an agent's environment.
        variables: names of the environment variables that the SDKs read.
        placeholders: field to text, for the fields of a secret that has several.
        fields: variable to field, for variables that hold the placeholder of a field of its own.
        settings: variable to text, for what an agent needs besides and may know, such as the region of an account.
        files: variable to the text of a file that it names, for SDKs that read their credentials from one.
        test: a harmless call.
        checks: conditions, limits and approval of a call that goes through it; ``None`` without any.
        capture: calls that answer with a new credential, which is kept.
    """

    name: str
    hosts: tuple[HostPattern, ...]
    schemes: tuple[str, ...]
    methods: frozenset[str]
    paths: tuple[PathGlob, ...]
    deny_paths: tuple[PathGlob, ...]
    secret: str
    inject: Inject
    allow_addresses: tuple[str, ...] = ()
    placeholder: str = ""
    variables: tuple[str, ...] = ()
    placeholders: Mapping[str, str] = field(default_factory=dict, hash=False)
    fields: Mapping[str, str] = field(default_factory=dict, hash=False)
    settings: Mapping[str, str] = field(default_factory=dict, hash=False)
    files: Mapping[str, str] = field(default_factory=dict, hash=False)
    test: Probe | None = None
    certificate: str = ""
    checks: Checks | None = None
    capture: tuple[CaptureRule, ...] = ()

    @classmethod
    def from_data(cls, name: str, data: Mapping[str, Any]) -> Service:
        """Read a service from request or stored data. Raises ``InvalidRequest`` that names the field."""
        schemes = tuple(_texts(data, "schemes")) or ("https",)
        if any(scheme not in PORTS for scheme in schemes):
            raise InvalidRequest(f"schemes are {', '.join(PORTS)}")
        hosts = _texts(data, "hosts")
        if not hosts:
            raise InvalidRequest("a service needs at least one host", '"hosts": ["api.example.com"]')
        methods = _texts(data, "methods")
        for method in methods:
            if not _METHOD.fullmatch(method):
                raise InvalidRequest(f"{method[:40]!r} is not a method", "write it in upper case, as in GET")
        variables, fields = _variables(data)
        placeholders = {_field(key): _environment_text(text) for key, text in _table(data, "placeholders").items()}
        for variable, key in fields.items():
            if key not in placeholders:
                raise InvalidRequest(f"{variable} holds the placeholder of {key!r}, which is not among placeholders")
        inject = Inject.from_data(data.get("inject"))
        # A host without a port is meant on the usual port of every scheme.
        patterns = tuple(dict.fromkeys(HostPattern.parse(host, PORTS[s]) for s in schemes for host in hosts))
        check_service(data, schemes, patterns, inject.kind)
        check_tunnel(data, schemes, inject.kind)
        addresses = _texts(data, "allow_addresses")
        for address in addresses:
            _network(address)
        return cls(
            name=name,
            hosts=patterns,
            schemes=schemes,
            methods=frozenset(methods),
            paths=tuple(PathGlob(path) for path in _texts(data, "paths")),
            deny_paths=tuple(PathGlob(path) for path in _texts(data, "deny_paths")),
            secret=_secret(data, inject),
            inject=inject,
            allow_addresses=tuple(addresses),
            placeholder=_environment_text(data.get("placeholder", "")),
            variables=variables,
            placeholders=placeholders,
            fields=fields,
            settings={_variable(key): _environment_text(text) for key, text in _table(data, "settings").items()},
            files={_variable(key): _environment_text(text) for key, text in _table(data, "files").items()},
            test=Probe.from_data(data["test"]) if data.get("test") is not None else None,
            certificate=_certificate(data, inject, schemes),
            checks=Checks.from_data(data),
            capture=rules_from(data.get("capture")),
        )

    def as_data(self) -> dict[str, Any]:
        """JSON-ready, in the form that ``from_data`` reads."""
        data: dict[str, Any] = {
            "hosts": [str(host) for host in self.hosts],
            "schemes": list(self.schemes),
            "methods": sorted(self.methods),
            "paths": [glob.pattern for glob in self.paths],
            "deny_paths": [glob.pattern for glob in self.deny_paths],
            "secret": self.secret,
            "inject": self.inject.as_data(),
            "allow_addresses": list(self.allow_addresses),
            "placeholder": self.placeholder,
            "variables": {name: self.fields.get(name, "") for name in self.variables}
            if self.fields
            else list(self.variables),
            **({"certificate": self.certificate} if self.certificate else {}),
            **(self.checks.as_data() if self.checks is not None else {}),
        }
        if self.capture:
            data["capture"] = [rule.as_data() for rule in self.capture]
        if self.placeholders:
            data["placeholders"] = dict(self.placeholders)
        if self.settings:
            data["settings"] = dict(self.settings)
        if self.files:
            data["files"] = dict(self.files)
        if self.test is not None:
            data["test"] = self.test.as_data()
        return data

    def environment(self) -> dict[str, str]:
        """Variable to the placeholder that it holds for an agent. Without ``settings``."""
        texts = {name: self.placeholders.get(self.fields.get(name, ""), self.placeholder) for name in self.variables}
        return {name: text for name, text in texts.items() if text}

    def shown(self) -> tuple[str, ...]:
        """Every text that stands for the secret or a field of it."""
        return tuple(filter(None, dict.fromkeys((self.placeholder, *self.placeholders.values(), self.inject.text))))

    def secret_refs(self) -> list[tuple[str, str]]:
        """``(path, field)`` of every secret field that a loan of this service opens."""
        certificate = self.certificate_choices()
        return [*self.secret_choices()[0], *(certificate[0] if certificate else [])]

    def secret_choices(self) -> list[list[tuple[str, str]]]:
        """The fields that a loan opens, by preference; ``KINDS`` says which an injection can work with."""
        kind = KINDS[self.inject.kind]
        if kind.secretless or self.inject.kind == MTLS:
            return [[]]
        path, field = parse_secret_ref(self.secret)
        if names := kind.named(self.inject):
            return [[(path, name) for name in names]]
        named = [[(path, name) for name in names] for names in kind.fields] if field == DEFAULT_FIELD else []
        return [*([[(path, field)]] if kind.sole or not named else []), *named]

    def beyond(self, limits: Limits) -> str:
        """A destination to which these limits let nothing go; empty for none.

        A host of a limit without a port is meant on the usual port of every scheme of the service.
        """
        ends = [parse_url(str(url))[1] for name, url in self.inject.options if name in ENDPOINTS and url]
        wanted = [*self.hosts, *(HostPattern(end.host, end.port, wildcard=False) for end in ends)]
        for limit in limits:
            try:
                allowed = [HostPattern.parse(text, PORTS[s]) for text in limit for s in {*self.schemes, "https"}]
            except InvalidRequest:  # what nobody understands lets nothing go anywhere
                allowed = []
            for host in wanted:
                if not any(each.covers(host) for each in allowed):
                    return str(host)
        return ""

    def closed(self) -> Service:
        """Itself without anything to attach."""
        return replace(self, secret="", certificate="", inject=Inject("none"))

    @property
    def sourced(self) -> bool:
        """Whether anything that it lends comes from a source, which is asked at the moment of use."""
        return self.secret.startswith("/") or self.certificate.startswith("/")

    @property
    def certified(self) -> bool:
        """Whether connections of this service show a client's certificate."""
        return bool(self.certificate) or self.inject.kind == MTLS

    def certificate_choices(self) -> list[list[tuple[str, str]]]:
        """The fields with the client's certificate and its key, by preference; empty for a service without one."""
        if not self.certified:
            return []
        path, field = parse_secret_ref(self.certificate or self.secret)
        pair = [(path, "certificate"), (path, "private_key")]
        return [[(path, field)], *([pair] if field == DEFAULT_FIELD else [])]

    def host_rank(self, scheme: str, authority: Authority) -> tuple[int, int] | None:
        """How specifically the service means this destination; ``None`` when it does not."""
        if scheme not in self.schemes:
            return None
        return max((host.specificity for host in self.hosts if host.matches(authority)), default=None)

    def path_rank(self, path: str) -> tuple[int, ...] | None:
        """How specifically the service means this path; ``None`` when it does not."""
        if not self.paths:
            return ()
        return max((glob.specificity for glob in self.paths if glob.matches(path)), default=None)

    def denies(self, path: str) -> bool:
        """Does a deny path match?"""
        return any(glob.denies(path) for glob in self.deny_paths)


def _texts(data: Mapping[str, Any], name: str) -> list[str]:
    value = data.get(name) or []
    items = [part.strip() for part in value.split(",")] if isinstance(value, str) else value
    if not isinstance(items, list | tuple) or len(items) > _LIMIT or not all(isinstance(item, str) for item in items):
        raise InvalidRequest(f"{name} is a list of at most {_LIMIT} texts")
    return [item for item in items if item]


def _table(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = data.get(name) or {}
    if not isinstance(value, Mapping) or len(value) > _LIMIT:
        raise InvalidRequest(f"{name} is an object of at most {_LIMIT} texts")
    return value


def _variables(data: Mapping[str, Any]) -> tuple[tuple[str, ...], dict[str, str]]:
    """The names, and for those of an object the field whose placeholder each holds; an empty one is the main one."""
    if not isinstance(data.get("variables"), Mapping):
        return tuple(_variable(text) for text in _texts(data, "variables")), {}
    table = _table(data, "variables")
    return tuple(_variable(name) for name in table), {name: _field(key) for name, key in table.items() if key != ""}


def _field(value: Any) -> str:
    return parse_field(str(value))


def _secret(data: Mapping[str, Any], inject: Inject) -> str:
    text = str(data.get("secret") or "")
    if KINDS[inject.kind].secretless:
        if text:
            raise InvalidRequest(f"the injection {inject.kind} attaches no secret", "leave secret out")
        return ""
    path, field = parse_secret_ref(text)
    if field != DEFAULT_FIELD and KINDS[inject.kind].named(inject):
        raise InvalidRequest("the injection names the fields of the secret itself", f"name the secret as {path}")
    return f"{path}#{field}"


def _certificate(data: Mapping[str, Any], inject: Inject, schemes: tuple[str, ...]) -> str:
    text = str(data.get("certificate") or "")
    if (text or inject.kind == MTLS) and schemes != ("https",):
        raise InvalidRequest("a client's certificate is for https alone", "leave the scheme http out")
    if not text:
        return ""
    if inject.kind == MTLS:
        raise InvalidRequest("the certificate is named twice", "name it as secret, or as certificate beside a key")
    path, field = parse_secret_ref(text)
    return f"{path}#{field}"


def _environment_text(value: Any) -> str:
    text = str(value or "")
    if len(text) > 512 or not text.isascii() or not text.isprintable():
        raise InvalidRequest("a placeholder is at most 512 visible ASCII characters")
    return text


def _variable(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,127}", text):
        raise InvalidRequest(f"{text[:40]!r} is not the name of an environment variable")
    return text


def _network(text: str) -> None:
    try:
        ipaddress.ip_network(text, strict=True)
    except ValueError:
        raise InvalidRequest(f"{text[:64]!r} is not a network", "write it like 10.0.0.5/32") from None

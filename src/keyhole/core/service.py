"""A service binds secrets to a destination and says how they are attached. Pure.

Which of several services is meant by a call (``choose``):

1. a matching deny path refuses, also against the rules of other services that the caller may use;
2. only services that the caller may use count;
3. the more specific host wins, then the more specific path, then the one that names its methods;
4. what is left equal is a tie: the caller names the service, or shows its placeholder.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.host import Authority, HostPattern
from keyhole.core.path import DEFAULT_FIELD, parse_secret_ref
from keyhole.core.target import PathGlob

SCHEMES = ("https", "http")
PORTS = {"https": 443, "http": 80}
_METHOD = re.compile(r"[A-Z][A-Z-]{0,31}")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")
# Headers that frame or route a message: a secret in one of them would change what is judged.
_FRAMING = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "te", "trailer", "upgrade", "expect", "via"}
)
_PLACES = ("header", "query", "path", "body")
_LIMIT = 64


@dataclass(frozen=True, slots=True)
class Inject:
    """How a secret is attached.

    Attributes:
        kind: ``bearer``, ``basic``, ``header`` or ``placeholder``.
        name: header name in lower case, for ``header``.
        template: with one ``{}``, for ``header``.
        text: what stands for the secret, for ``placeholder``.
        places: where that text is replaced.
        user: the user name that goes with a value without one, for ``basic``.
    """

    kind: str
    name: str = ""
    template: str = "{}"
    text: str = ""
    places: tuple[str, ...] = ()
    user: str = ""

    @classmethod
    def from_data(cls, data: Any) -> Inject:
        """Read the ``inject`` object of a service. Raises ``InvalidRequest`` for a kind that does not exist."""
        if not isinstance(data, Mapping):
            raise InvalidRequest("inject is an object", 'for example {"kind": "bearer"}')
        kind = data.get("kind")
        if kind == "bearer":
            return cls("bearer", "authorization", "Bearer {}")
        if kind == "basic":
            user = str(data.get("user", ""))
            if ":" in user or not user.isprintable():
                raise InvalidRequest("the user name of basic cannot have a colon or a control character")
            return cls("basic", "authorization", user=user)
        if kind == "header":
            return cls("header", _header_name(data.get("name")), _template(data.get("template") or "{}"))
        if kind == "placeholder":
            return cls("placeholder", text=_placeholder(data.get("text")), places=_places(data.get("in")))
        raise InvalidRequest(f"there is no injection {str(kind)!r} yet", "use bearer, basic, header or placeholder")

    def as_data(self) -> dict[str, Any]:
        """The form in which it was given."""
        if self.kind == "header":
            return {"kind": "header", "name": self.name, "template": self.template}
        if self.kind == "placeholder":
            return {"kind": "placeholder", "text": self.text, "in": list(self.places)}
        if self.kind == "basic" and self.user:
            return {"kind": "basic", "user": self.user}
        return {"kind": self.kind}


@dataclass(frozen=True, slots=True)
class Service:
    """Where secrets may go and how.

    Attributes:
        name: of the service.
        hosts: patterns with their ports.
        schemes: ``https``, and ``http`` only when it was asked for.
        methods: upper case; empty for any.
        paths: globs of which one must match; empty for any.
        deny_paths: globs of which none may match.
        secret: reference ``path#field``.
        inject: how it is attached.
        allow_addresses: networks that are dialled although the guard refuses them.
        placeholder: text that stands for the secret in an agent's environment.
        variables: names of the environment variables that the SDKs read.
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

    @classmethod
    def from_data(cls, name: str, data: Mapping[str, Any]) -> Service:
        """Read a service from request or stored data. Raises ``InvalidRequest`` that names the field."""
        schemes = tuple(_texts(data, "schemes")) or ("https",)
        if any(scheme not in SCHEMES for scheme in schemes):
            raise InvalidRequest("schemes are https or http")
        hosts = _texts(data, "hosts")
        if not hosts:
            raise InvalidRequest("a service needs at least one host", '"hosts": ["api.example.com"]')
        methods = _texts(data, "methods")
        for method in methods:
            if not _METHOD.fullmatch(method):
                raise InvalidRequest(f"{method[:40]!r} is not a method", "write it in upper case, as in GET")
        path, field = parse_secret_ref(str(data.get("secret") or ""))
        addresses = _texts(data, "allow_addresses")
        for address in addresses:
            _network(address)
        return cls(
            name=name,
            # A host without a port is meant on the usual port of every scheme.
            hosts=tuple(dict.fromkeys(HostPattern.parse(host, PORTS[s]) for s in schemes for host in hosts)),
            schemes=schemes,
            methods=frozenset(methods),
            paths=tuple(PathGlob(path) for path in _texts(data, "paths")),
            deny_paths=tuple(PathGlob(path) for path in _texts(data, "deny_paths")),
            secret=f"{path}#{field}",
            inject=Inject.from_data(data.get("inject")),
            allow_addresses=tuple(addresses),
            placeholder=_environment_text(data.get("placeholder", "")),
            variables=tuple(_variable(text) for text in _texts(data, "variables")),
        )

    def as_data(self) -> dict[str, Any]:
        """JSON-ready, in the form that ``from_data`` reads."""
        return {
            "hosts": [str(host) for host in self.hosts],
            "schemes": list(self.schemes),
            "methods": sorted(self.methods),
            "paths": [glob.pattern for glob in self.paths],
            "deny_paths": [glob.pattern for glob in self.deny_paths],
            "secret": self.secret,
            "inject": self.inject.as_data(),
            "allow_addresses": list(self.allow_addresses),
            "placeholder": self.placeholder,
            "variables": list(self.variables),
        }

    def secret_refs(self) -> list[tuple[str, str]]:
        """``(path, field)`` of every secret field that a loan of this service opens."""
        return self.secret_choices()[0]

    def secret_choices(self) -> list[list[tuple[str, str]]]:
        """The fields that a loan opens, by preference: Basic takes one value, or a user name and a password."""
        path, field = parse_secret_ref(self.secret)
        pair = [(path, "username"), (path, "password")]
        return [[(path, field)], *([pair] if self.inject.kind == "basic" and field == DEFAULT_FIELD else [])]

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


def _header_name(value: Any) -> str:
    text = str(value or "").lower()
    if not _HEADER.fullmatch(text) or text in _FRAMING or text.startswith("proxy-"):
        raise InvalidRequest("the header name is not one that can carry a secret", "for example X-Api-Key")
    return text


def _template(value: Any) -> str:
    text = str(value)
    if text.count("{}") != 1 or not text.isprintable() or not text.isascii():
        raise InvalidRequest("a header template has exactly one {} and only ASCII", "for example 'Token {}'")
    return text


def _placeholder(value: Any) -> str:
    text = str(value or "")
    if not 8 <= len(text) <= 256 or not text.isascii() or not text.isprintable() or " " in text:
        raise InvalidRequest("a placeholder is 8 to 256 visible ASCII characters", "for example sk-placeholder-1")
    return text


def _places(value: Any) -> tuple[str, ...]:
    places = tuple(value.split(",")) if isinstance(value, str) else value or ("header",)
    if not isinstance(places, list | tuple):
        raise InvalidRequest(f"a placeholder is replaced in {', '.join(_PLACES)}")
    for place in places:
        if place not in _PLACES:
            raise InvalidRequest(f"a placeholder is replaced in {', '.join(_PLACES)}")
        if place != "header":
            raise InvalidRequest(f"placeholders in the {place} are not built yet", "use header")
    return tuple(places)


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

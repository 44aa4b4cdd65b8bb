"""One entry of the catalog and the form of its file.

============== ====================================================================================
``title``       what people call it
``variables``   environment variables that its SDKs and command lines read
``key_page``    ``host`` or ``host_labels``, and ``path``: where a key is made
``[key]``       ``pattern`` (a regular expression for all of it), ``placeholder`` (how ours begins), ``length``
``[[service]]`` ``name``, ``hosts`` or ``host_labels``, ``inject``; optional ``methods``, ``paths``, ``deny_paths``
``[test]``      ``method``, ``path``; optional ``headers``, ``body``, ``statuses``, ``contains``; goes to the first
                host of the first service
============== ====================================================================================

``host_labels`` writes a host as the list of its labels, for hosts whose name is not to be found in files.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.core.service import Service

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_MARK = "keyhole"
_LENGTHS = range(16, 257)


@dataclass(frozen=True, slots=True)
class KeyShape:
    """What a key looks like.

    Attributes:
        pattern: matches the whole key.
        placeholder: how our placeholders begin; contains the word that marks them.
        length: characters of a placeholder, as many as a key usually has.
    """

    pattern: re.Pattern[str]
    placeholder: str
    length: int


@dataclass(frozen=True, slots=True)
class CatalogService:
    """One service of an entry: a destination with its own way of attaching the same key."""

    name: str
    hosts: tuple[str, ...]
    inject: Mapping[str, Any]
    methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    deny_paths: tuple[str, ...] = ()

    def data(self, secret: str, *, placeholder: str = "", variables: tuple[str, ...] = ()) -> dict[str, Any]:
        """The object that creates this service, bound to ``secret`` (``path#field``)."""
        return {
            "hosts": list(self.hosts),
            "schemes": ["https"],
            "methods": list(self.methods),
            "paths": list(self.paths),
            "deny_paths": list(self.deny_paths),
            "secret": secret,
            "inject": dict(self.inject),
            "placeholder": placeholder,
            "variables": list(variables),
        }


@dataclass(frozen=True, slots=True)
class TestCall:
    """A call that changes nothing and shows whether a key is accepted.

    Attributes:
        method: of HTTP.
        url: where to.
        headers: besides the credential.
        body: ``None`` for none.
        statuses: that an accepted key gets.
        contains: what the answer must have besides, once its white space is taken out.
    """

    __test__ = False  # not a test case, whatever its name makes pytest think

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None
    statuses: tuple[int, ...] = (200,)
    contains: str = ""

    def accepted(self, status: int, body: str) -> bool:
        """Whether this answer means that the key works."""
        return status in self.statuses and self.contains in "".join(body.split())


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """All that the catalog knows under one name."""

    name: str
    title: str
    variables: tuple[str, ...]
    key_page: str
    key: KeyShape
    services: tuple[CatalogService, ...]
    test: TestCall

    def placeholder(self, seed: bytes) -> str:
        """A text in the shape of a key that is visibly none, always the same for one seed (a secret's name)."""
        begin = self.key.placeholder
        return begin + "".join(_letters(self.name.encode() + b"\0" + seed, self.key.length - len(begin)))

    def looks_like_a_key(self, text: str) -> bool:
        """Whether a pasted text has the shape of a key. Shapes change: to warn by, not to refuse."""
        return bool(self.key.pattern.fullmatch(text)) and _MARK not in text

    @classmethod
    def from_data(cls, name: str, data: Mapping[str, Any]) -> CatalogEntry:
        """Read the content of a file.

        Raises:
            InvalidRequest: names the entry, the field and what is wrong with it.
        """
        reader = _Reader(name, data)
        if not _NAME.fullmatch(name):
            raise reader.wrong("", "is named with lower case letters, digits and hyphens")
        reader.only("title", "variables", "key_page", "key", "service", "test")
        services = tuple(_service(part) for part in reader.tables("service"))
        key = _key(reader.table("key"))
        entry = cls(
            name=name,
            title=reader.text("title"),
            variables=reader.texts("variables"),
            key_page=_url(reader.table("key_page")),
            key=key,
            services=services,
            test=_test(reader.table("test"), services[0].hosts[0]),
        )
        for service, part in zip(services, reader.tables("service"), strict=True):
            _accepted_by_the_vault(entry, service, part)
        if not key.pattern.fullmatch(entry.placeholder(b"")):
            raise reader.wrong("key.placeholder", "does not lead to a text that the pattern matches")
        return entry


class _Reader:
    """A table of a file that says where it stands when something is wrong with it."""

    def __init__(self, where: str, data: Mapping[str, Any]) -> None:
        self.where = where
        self.data = data

    def wrong(self, name: str, what: str) -> InvalidRequest:
        place = f"{self.where}: {name}" if name else self.where
        return InvalidRequest(f"catalog entry {place} {what}")

    def only(self, *names: str) -> None:
        for name in self.data:
            if name not in names:
                raise self.wrong(name, f"is not known; there are {', '.join(names)}")

    def text(self, name: str, default: str | None = None) -> str:
        value = self.data.get(name, default)
        if not isinstance(value, str) or (default is None and not value):
            raise self.wrong(name, "must be a text")
        return value

    def texts(self, name: str, *, required: bool = True) -> tuple[str, ...]:
        value = self.data.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value) or (required and not value):
            raise self.wrong(name, "must be a list of texts")
        return tuple(value)

    def table(self, name: str) -> _Reader:
        value = self.data.get(name)
        if not isinstance(value, Mapping):
            raise self.wrong(name, "must be a table")
        return _Reader(f"{self.where}: {name}", value)

    def tables(self, name: str) -> list[_Reader]:
        value = self.data.get(name)
        if not isinstance(value, list) or not value or not all(isinstance(item, Mapping) for item in value):
            raise self.wrong(name, "must be there at least once, as [[service]]")
        return [_Reader(f"{self.where}: {name} {number}", item) for number, item in enumerate(value, 1)]

    def host(self) -> str:
        if ("host" in self.data) == ("host_labels" in self.data):
            raise self.wrong("host", "or host_labels must be there, one of the two")
        return self.text("host") if "host" in self.data else ".".join(self.texts("host_labels"))

    def hosts(self) -> tuple[str, ...]:
        labels = self.data.get("host_labels", [])
        if not isinstance(labels, list) or not all(isinstance(item, list) and item for item in labels):
            raise self.wrong("host_labels", "must be a list of lists of texts")
        if not all(isinstance(label, str) for item in labels for label in item):
            raise self.wrong("host_labels", "must be a list of lists of texts")
        hosts = (*self.texts("hosts", required=False), *(".".join(item) for item in labels))
        if not hosts:
            raise self.wrong("hosts", "or host_labels must name a host")
        return hosts


def _key(part: _Reader) -> KeyShape:
    part.only("pattern", "placeholder", "length")
    try:
        pattern = re.compile(part.text("pattern"))
    except re.error as error:
        raise part.wrong("pattern", f"is not a regular expression ({error})") from error
    placeholder, length = part.text("placeholder"), part.data.get("length")
    if _MARK not in placeholder:
        raise part.wrong("placeholder", f"must contain {_MARK!r}, so that nobody takes it for a key")
    if type(length) is not int or length not in _LENGTHS or length < len(placeholder) + 8:
        raise part.wrong("length", f"must be a number from {_LENGTHS.start} to {_LENGTHS.stop - 1}, past the beginning")
    return KeyShape(pattern, placeholder, length)


def _service(part: _Reader) -> CatalogService:
    part.only("name", "hosts", "host_labels", "inject", "methods", "paths", "deny_paths")
    name = part.text("name")
    if not _NAME.fullmatch(name):
        raise part.wrong("name", "has lower case letters, digits and hyphens")
    return CatalogService(
        name=name,
        hosts=part.hosts(),
        inject=dict(part.table("inject").data),
        methods=part.texts("methods", required=False),
        paths=part.texts("paths", required=False),
        deny_paths=part.texts("deny_paths", required=False),
    )


def _test(part: _Reader, host: str) -> TestCall:
    part.only("method", "path", "headers", "body", "statuses", "contains")
    headers, statuses = part.data.get("headers", {}), part.data.get("statuses", [200])
    if not isinstance(headers, Mapping) or not all(isinstance(value, str) for value in headers.values()):
        raise part.wrong("headers", "must be a table of texts")
    if not isinstance(statuses, list) or not all(type(status) is int for status in statuses) or not statuses:
        raise part.wrong("statuses", "must be a list of numbers")
    return TestCall(
        method=part.text("method"),
        url=f"https://{host}{_path(part)}",
        headers=dict(headers),
        body=part.text("body") if "body" in part.data else None,
        statuses=tuple(statuses),
        contains=part.text("contains", ""),
    )


def _url(part: _Reader) -> str:
    part.only("host", "host_labels", "path")
    return f"https://{part.host()}{_path(part)}"


def _path(part: _Reader) -> str:
    path = part.text("path")
    if not path.startswith("/"):
        raise part.wrong("path", "must begin with a slash")
    return path


def _accepted_by_the_vault(entry: CatalogEntry, service: CatalogService, part: _Reader) -> None:
    """The vault's own reader is the judge of hosts, paths, injection and variables."""
    data = service.data("a/key", placeholder=entry.placeholder(b""), variables=entry.variables)
    try:
        Service.from_data(service.name, data)
    except InvalidRequest as error:
        raise part.wrong("", f"cannot become a service: {error.reason}") from error


def _letters(seed: bytes, count: int) -> Iterator[str]:
    """Lower case letters and digits, which every known shape allows, drawn from a hash."""
    made = 0
    for counter in range(count):
        digest = hashlib.sha256(b"keyhole placeholder\0" + bytes([counter]) + seed).digest()
        for letter in base64.b32encode(digest).decode().lower().rstrip("="):
            if made == count:
                return
            made += 1
            yield letter

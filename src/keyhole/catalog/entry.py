"""One entry of the catalog and the form of its file.

================ ==================================================================================================
``title``        what people call it
``key_page``     ``host`` or ``host_labels``, and ``path``: where a key is made
``note``         optional: a sentence for who adds it
``variables``    environment variables that its SDKs and command lines read: a list, or for a credential of several
                 fields a table of variable and field
``shared``       those of them that other entries claim as well
``settings``     optional: variables that are set to a text, which may have blanks
``files``        optional: variables that name a file with a text, which may have blanks; ``<throw-away RSA key>`` in it
                 is replaced by a private key in PEM, as a JSON string has it, made for one run and opening nothing
``[key]``        ``pattern`` (a regular expression for all of it), ``placeholder`` (how ours begins, or with ``*`` for
                 each letter to fill in), ``length``, ``token`` where it stands for a token that is made with the key;
                 for a credential of several fields ``[key.FIELD]`` with a ``title`` besides, and ``optional``
``[blank.NAME]`` what differs from account to account, written ``{NAME}`` elsewhere: ``ask``, ``kind`` (``label``,
                 ``host``, ``text``), ``choices``, ``default``, ``example``, ``optional``
``[[service]]``  ``name``, ``hosts`` or ``host_labels``, ``inject``; optional ``methods``, ``paths``, ``deny_paths``,
                 ``field``
``[test]``       see ``core.probe``; goes to the first host of the first service. ``{key}``, or ``{FIELD}``, is the
                 placeholder
================ ==================================================================================================

``host_labels`` writes a host as the list of its labels, for hosts whose name is not to be found in files.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from keyhole.catalog.blank import Blank, put, read_blanks, written_in
from keyhole.catalog.reader import Reader
from keyhole.catalog.shape import KeyShape, read_shape
from keyhole.core.errors import InvalidRequest
from keyhole.core.inject import KINDS
from keyhole.core.kind import Kind
from keyhole.core.path import DEFAULT_FIELD
from keyhole.core.probe import Probe
from keyhole.core.service import Service

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,31}")
_KEY = "key"  # what a single key is called in braces


@dataclass(frozen=True, slots=True)
class CatalogService:
    """One service of an entry: a destination with its own way of attaching the same key.

    Attributes:
        name: of the service; the entry's own, or with an ending.
        hosts: patterns, which may have blanks.
        inject: the object that says how.
        methods: upper case; empty for any.
        paths: globs; empty for any.
        deny_paths: globs.
        field: of the credential, where only one of several is attached.
    """

    name: str
    hosts: tuple[str, ...]
    inject: Mapping[str, Any]
    methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    deny_paths: tuple[str, ...] = ()
    field: str = ""


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """All that the catalog knows under one name.

    Attributes:
        name: of the file.
        title: what people call it.
        key_page: URL where keys are made.
        variables: that hold a placeholder.
        fields: variable to field, for a credential of several fields.
        shared: variables that other entries claim as well.
        settings: variable to text.
        files: variable to the text of the file that it names.
        keys: field to shape; the field ``value`` alone for a single key.
        blanks: to be filled in.
        services: to be made.
        test: a harmless call through the first of them.
        note: a sentence for who adds it.
    """

    name: str
    title: str
    key_page: str
    variables: tuple[str, ...]
    fields: Mapping[str, str]
    shared: tuple[str, ...]
    settings: Mapping[str, str]
    files: Mapping[str, str]
    keys: Mapping[str, KeyShape]
    blanks: tuple[Blank, ...]
    services: tuple[CatalogService, ...]
    test: Probe
    note: str = ""

    @property
    def key(self) -> KeyShape:
        """The shape of the only key, or of the first field."""
        return next(iter(self.keys.values()))

    @property
    def secret(self) -> str:
        """Where the key is kept unless somebody says otherwise."""
        return f"{self.name}/{'api-key' if DEFAULT_FIELD in self.keys else 'credentials'}"

    def placeholder(self, seed: bytes, field: str = "") -> str:
        """A text in the shape of a key that is visibly none, always the same for one seed (a secret's name).

        Args:
            seed: what makes it differ from others.
            field: of a credential of several; empty for the key, or for the first of them.
        """
        field = field or next(iter(self.keys))
        mark = b"" if field == DEFAULT_FIELD else field.encode() + b"\0"
        return self.keys[field].fill(self.name.encode() + b"\0" + mark + seed)

    def looks_like_a_key(self, text: str, field: str = "") -> bool:
        """Whether a pasted text has the shape of a key. Shapes change: to warn by, not to refuse."""
        return self.keys[field or next(iter(self.keys))].matches(text)

    def bindings(self, secret: str, *, without: Collection[str] = ()) -> dict[str, dict[str, Any]]:
        """Service name to the object that creates it, bound to the secret of this path.

        Args:
            secret: path of the secret.
            without: optional fields that it does not have.

        Raises:
            InvalidRequest: a blank is not filled in and has no default.
        """
        if self.blanks:
            return self.fill(self.answers({})).bindings(secret, without=without)
        seed = secret.encode()
        shown = {field: self.placeholder(seed, field) for field in self.keys if field not in without}
        fields = {variable: field for variable, field in self.fields.items() if field not in without}
        single = shown.get(DEFAULT_FIELD, "")
        more = {} if single else {"placeholders": shown}
        words = {_KEY: single, **shown}
        test = put(self.test.as_data(), words)
        made = {}
        for service in self.services:
            if service.field in without:
                continue
            kind = KINDS.get(str(service.inject.get("kind")))
            text = {"text": single} if single and _takes_text(kind) and "text" not in service.inject else {}
            secretless = kind is not None and kind.secretless
            made[service.name] = {
                "hosts": list(service.hosts),
                "schemes": ["https"],
                "methods": list(service.methods),
                "paths": list(service.paths),
                "deny_paths": list(service.deny_paths),
                "secret": "" if secretless else f"{secret}#{service.field or DEFAULT_FIELD}",
                "inject": {**put(dict(service.inject), words), **text},
                "placeholder": single,
                "variables": fields or list(self.variables),
                **more,
                **({"settings": dict(self.settings)} if self.settings else {}),
                **({"files": dict(self.files)} if self.files else {}),
                **({"test": test} if service is self.services[0] else {}),
            }
        return made

    def answers(self, said: Mapping[str, str]) -> dict[str, str]:
        """What was said for the blanks, in normal form.

        Raises:
            InvalidRequest: there is no such blank, an answer is missing or wrong.
        """
        known = {blank.name for blank in self.blanks}
        for name in said:
            if name not in known:
                has = f"it has {', '.join(sorted(known))}" if known else "it has none"
                raise InvalidRequest(f"{self.title} has no blank {name[:40]!r} to fill in", has)
        return {blank.name: blank.read(said.get(blank.name, ""), self.hosts_with(blank)) for blank in self.blanks}

    def hosts_with(self, blank: Blank) -> tuple[str, ...]:
        """The hosts that a blank is a part of."""
        return tuple(h for service in self.services for h in service.hosts if blank.name in written_in(h))

    def fill(self, answers: Mapping[str, str]) -> CatalogEntry:
        """The same entry for one account. What names an optional blank that stays empty is left out."""
        empty = {blank.name for blank in self.blanks} - {name for name, text in answers.items() if text}

        def kept(texts: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(put(text, answers) for text in texts if not written_in(text) & empty)

        services = tuple(
            dataclasses.replace(
                service,
                hosts=kept(service.hosts),
                inject=put(service.inject, answers),
                paths=kept(service.paths),
                deny_paths=kept(service.deny_paths),
            )
            for service in self.services
        )
        settings = {name: text for name, text in self.settings.items() if not written_in(text) & empty}
        return dataclasses.replace(
            self,
            blanks=(),
            key_page=put(self.key_page, answers),
            settings=put(settings, answers),
            files=put(dict(self.files), answers),
            services=tuple(service for service in services if service.hosts),
            test=Probe.from_data(put(self.test.as_data(), answers)),
        )

    def sample(self) -> CatalogEntry:
        """The entry of some account, to look at or to check."""
        return self.fill({blank.name: blank.sample() for blank in self.blanks})

    @classmethod
    def from_data(cls, name: str, data: Mapping[str, Any]) -> CatalogEntry:
        """Read the content of a file.

        Raises:
            InvalidRequest: names the entry, the field and what is wrong with it.
        """
        reader = Reader(name, data)
        if not _NAME.fullmatch(name):
            raise reader.wrong("", "is named with lower case letters, digits and hyphens")
        reader.only(
            "title",
            "key_page",
            "note",
            "variables",
            "shared",
            "settings",
            "files",
            "key",
            "blank",
            "service",
            "test",
        )
        keys = _keys(reader.table("key"))
        variables, fields = _variables(reader, keys)
        entry = cls(
            name=name,
            title=reader.text("title"),
            key_page=_url(reader.table("key_page")),
            variables=variables,
            fields=fields,
            shared=reader.texts("shared", required=False),
            settings=reader.table_of_texts("settings"),
            files=reader.table_of_texts("files"),
            keys=keys,
            blanks=read_blanks(reader.table("blank")) if "blank" in data else (),
            services=tuple(_service(part, name, keys) for part in reader.tables("service")),
            test=_test(reader.table("test")),
            note=reader.text("note", ""),
        )
        _check(entry, reader)
        return entry


def _takes_text(kind: Kind | None) -> bool:
    """Whether the client has to send the placeholder, or gets it."""
    return kind is not None and any(option.name == "text" for option in kind.options)


def _keys(part: Reader) -> dict[str, KeyShape]:
    if "pattern" in part.data or not part.data:
        return {DEFAULT_FIELD: read_shape(part)}
    for field in part.data:
        if not _FIELD.fullmatch(field) or field in {DEFAULT_FIELD, _KEY}:
            raise part.wrong(field[:40], "is not the name of a field: lower case letters, digits and underscores")
    return {field: read_shape(part.table(field)) for field in part.data}


def _variables(part: Reader, keys: Mapping[str, KeyShape]) -> tuple[tuple[str, ...], dict[str, str]]:
    if isinstance(part.data.get("variables"), list):
        names = part.texts("variables", required=False)
        if names and DEFAULT_FIELD not in keys:
            raise part.wrong("variables", "must be a table of variable and field: the key has several fields")
        return names, {}
    table = part.table_of_texts("variables")
    for variable, field in table.items():
        if field not in keys or field == DEFAULT_FIELD:
            raise part.wrong(f"variables: {variable}", f"names no field; there are {', '.join(keys)}")
    return tuple(table), table


def _service(part: Reader, entry: str, keys: Mapping[str, KeyShape]) -> CatalogService:
    part.only("name", "hosts", "host_labels", "inject", "methods", "paths", "deny_paths", "field")
    name, field = part.text("name"), part.text("field", "")
    if not _NAME.fullmatch(name):
        raise part.wrong("name", "has lower case letters, digits and hyphens")
    if name != entry and not name.startswith(f"{entry}-"):
        raise part.wrong("name", f"must be {entry!r}, or begin with {entry + '-'!r}")
    if field and field not in keys:
        raise part.wrong("field", f"is none of {', '.join(keys)}")
    return CatalogService(
        name=name,
        hosts=part.hosts(),
        inject=dict(part.table("inject").data),
        methods=part.texts("methods", required=False),
        paths=part.texts("paths", required=False),
        deny_paths=part.texts("deny_paths", required=False),
        field=field,
    )


def _test(part: Reader) -> Probe:
    try:
        return Probe.from_data(part.data)
    except InvalidRequest as error:
        reason = error.reason.removeprefix("test: ")
        raise InvalidRequest(f"catalog entry {part.where}: {reason}", error.hint) from error


def _url(part: Reader) -> str:
    part.only("host", "host_labels", "path")
    path = part.text("path")
    if not path.startswith("/"):
        raise part.wrong("path", "must begin with a slash")
    return f"https://{part.host()}{path}"


def _check(entry: CatalogEntry, reader: Reader) -> None:
    """What can only be judged when all of it is read. The vault's own reader has the last word."""
    names = [service.name for service in entry.services]
    if names[0] != entry.name or len(set(names)) != len(names):
        raise reader.wrong("service", f"the first is named {entry.name!r}, and no two have one name")
    if unknown := set(entry.shared) - set(entry.variables):
        raise reader.wrong("shared", f"has {min(unknown)}, which is not among the variables")
    blanks = {blank.name for blank in entry.blanks}
    if both := blanks & entry.keys.keys():
        raise reader.wrong("blank", f"has {min(both)}, which is a field of the key")
    for service, part in zip(entry.services, reader.tables("service"), strict=True):
        takes_text = _takes_text(KINDS.get(str(service.inject.get("kind"))))
        known = blanks | ({*entry.keys, _KEY} if takes_text else set())
        used = written_in([*service.hosts, *service.paths, *service.deny_paths, dict(service.inject)])
        if used - known:
            raise part.wrong("", f"has {{{min(used - known)}}}, which is no blank")
    if unknown := (written_in(entry.settings) | written_in(entry.key_page)) - blanks:
        raise reader.wrong("settings", f"has {{{min(unknown)}}}, which is no blank")
    least = entry.fill({blank.name: "" if blank.optional else blank.sample() for blank in entry.blanks})
    if not least.services or least.services[0].name != entry.name:
        raise reader.wrong("service 1", "has no host when the optional blanks stay empty")
    made = []
    for number, (name, data) in enumerate(entry.sample().bindings("a/key").items(), 1):
        try:
            made.append(Service.from_data(name, data))
        except InvalidRequest as error:
            raise reader.wrong(f"service {number}", f"cannot become a service: {error.reason}") from error
        if not any({field for _, field in choice} <= entry.keys.keys() for choice in made[-1].secret_choices()):
            raise reader.wrong(f"service {number}", f"attaches a field that is none of {', '.join(entry.keys)}")
    _check_test(made[0], reader)


def _check_test(first: Service, reader: Reader) -> None:
    """The harmless call has to be one that its service lets through."""
    if first.test is None:
        return
    path = first.test.path.partition("?")[0]
    if (
        first.path_rank(path) is None
        or first.denies(path)
        or (first.methods and first.test.method not in first.methods)
    ):
        raise reader.wrong("test", "is no call that the first service allows")
    if first.hosts[0].wildcard:
        raise reader.wrong("service 1: hosts", "begin with a wildcard, where the test cannot go")

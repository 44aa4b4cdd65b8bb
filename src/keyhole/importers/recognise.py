"""What the catalog knows of credentials that were found, and which of them are to be taken. Pure.

A credential is recognised by the variable that holds it, by the host that its source sends it to, or by its shape,
where only one entry has that shape and not every random text has it too. Variables that are fields of one credential
become one, where all that it needs stand together.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from keyhole.catalog import Catalog, CatalogEntry
from keyhole.core.errors import InvalidRequest
from keyhole.core.path import DEFAULT_FIELD
from keyhole.core.value import Secret
from keyhole.importers.found import Binding, Found, Report, Skipped, Spot
from keyhole.importers.judge import EXAMPLE

_RANDOM = ("0123456789abcdef", "0a1B2c3D4e5F6g7H8i9J", "aBcDeFgHiJ", "0a-1_B2c3")
_LENGTHS = range(8, 129, 4)
_USER, _PASSWORD = "username", "password"
_MARK = "keyhole"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A credential that is to be taken, and what is to become of it.

    Attributes:
        found: as the source has it.
        name: of the secret.
        fields: of the secret.
        spots: with the fields of the secret.
        entry: what the catalog knows, filled in as far as the source says it; ``None`` for what it does not know.
        odd: it has not the shape that keys of this entry have.
    """

    found: Found
    name: str
    fields: Mapping[str, Secret]
    spots: tuple[Spot, ...]
    entry: CatalogEntry | None = None
    odd: bool = False

    @property
    def binding(self) -> Binding | None:
        """Where the source sends it, where the catalog knows nothing better."""
        return self.found.binding if self.entry is None else None

    @property
    def missing(self) -> tuple[str, ...]:
        """What has to be known besides before there can be a service, in words."""
        blanks = self.entry.blanks if self.entry is not None else ()
        return tuple(blank.ask for blank in blanks if not blank.default and not blank.optional)


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user asked for besides: globs of variables or names of secrets.

    Attributes:
        take: although they do not look like secrets.
        leave: whatever they look like.
        under: first part of the names of what the catalog does not know; empty to leave it as it is.
    """

    take: tuple[str, ...] = ()
    leave: tuple[str, ...] = ()
    under: str = ""


class Recogniser:
    """Asks the catalog. Reads it once, however many credentials there are."""

    def __init__(self, catalog: Catalog) -> None:
        self._entries, _ = catalog.entries()
        self._by_name = {entry.name: entry for entry in self._entries}
        self._by_variable: dict[str, list[CatalogEntry]] = {}
        self._settings = {name: entry.title for entry in self._entries for name in entry.settings}
        self._by_host: dict[str, CatalogEntry] = {}
        for entry in self._entries:
            for variable in entry.variables:
                self._by_variable.setdefault(variable, []).append(entry)
            for host in (host for service in entry.services for host in service.hosts if not set("{*") & set(host)):
                self._by_host.setdefault(host, entry)

    def choose(self, report: Report, wish: Wish) -> tuple[list[Proposal], list[Skipped]]:
        """What of a report is to be taken, and what not, with the reasons."""
        taken, left = list[Proposal](), list(report.skipped)
        settings = {found.variable: found for found in report.found if found.variable}
        for found in self._joined(report.found):
            proposal = self._proposed(found, wish, settings)
            why = self._why_not(proposal, wish)
            if why:
                left.append(Skipped(found.variable or found.name, found.where, why))
            else:
                taken.append(proposal)
        return taken, left

    def _why_not(self, proposal: Proposal, wish: Wish) -> str:
        found = proposal.found
        names = (found.variable, found.name, proposal.name)
        if named(names, wish.leave):
            return "is to be left, as you said"
        if any(self._is_placeholder(_text(value)) for value in proposal.fields.values()):
            return "is a placeholder of Keyhole already"
        if named(names, wish.take):
            return ""
        if proposal.entry is None and found.variable in self._settings:
            return f"is a setting for {self._settings[found.variable]}, and no secret"
        if not found.doubt:
            return ""
        known = proposal.entry is not None and (found.doubt != EXAMPLE or not proposal.odd)
        return "" if known else found.doubt

    def _proposed(self, found: Found, wish: Wish, settings: Mapping[str, Found]) -> Proposal:
        entry = self._entry(found)
        if entry is None:
            name = f"{wish.under}/{found.name.rpartition('/')[2]}" if wish.under else found.name
            return Proposal(found, name, found.fields, found.spots)
        fields, spots = found.fields, found.spots
        if {_USER, _PASSWORD} <= fields.keys() and not _takes_a_pair(entry):
            fields = {DEFAULT_FIELD: fields[_PASSWORD if len(fields[_PASSWORD]) else _USER]}
            spots = tuple(replace(spot, field=DEFAULT_FIELD) for spot in spots)
        odd = any(
            field in entry.keys and not entry.looks_like_a_key(_text(value), field) for field, value in fields.items()
        )
        return Proposal(found, entry.secret, fields, spots, _filled(entry, found, settings), odd)

    def _entry(self, found: Found) -> CatalogEntry | None:
        known = self._by_name.get(found.entry) or self._of_variable(found.variable)
        if known is None and found.binding is not None:
            known = self._by_host.get(found.binding.host.removesuffix(":443"))
        if known is not None:
            return known if _has_all(known, found) else None
        values = [value for name, value in found.fields.items() if name != _USER or len(found.fields) == 1]
        return self._by_shape(_text(values[0])) if len(values) == 1 and not found.stays else None

    def _of_variable(self, variable: str) -> CatalogEntry | None:
        """The entry that claims it alone, or that the others leave it to."""
        entries = self._by_variable.get(variable, [])
        return entries[0] if len(entries) == 1 else next((e for e in entries if variable not in e.shared), None)

    def _by_shape(self, text: str) -> CatalogEntry | None:
        alike = [entry for entry in self._entries if DEFAULT_FIELD in entry.keys and entry.looks_like_a_key(text)]
        plain = [entry for entry in alike if not entry.blanks]
        alike = plain or alike  # what has a host of its own for each account may share its shape with the public one
        return alike[0] if len(alike) == 1 and _telling(alike[0].key.pattern) else None

    def _is_placeholder(self, text: str) -> bool:
        shapes = (shape for entry in self._entries for shape in entry.keys.values())
        return _MARK in text.lower() and any(_begins(shape.placeholder).match(text) for shape in shapes)

    def _joined(self, found: Iterable[Found]) -> list[Found]:
        """Variables that are fields of one credential, as one; where one that it needs is missing they stay apart."""
        result, groups = list[Found](), dict[tuple[str, str, str], dict[str, Found]]()
        for each in found:
            entry = self._of_variable(each.variable)
            field = entry.fields.get(each.variable) if entry is not None else None
            if entry is None or field is None:
                result.append(each)
                continue
            place = each.where.removesuffix(each.variable) if each.where.endswith(each.variable) else ""
            group = groups.setdefault((entry.name, each.name.rpartition("/")[0], place), {})
            if field in group:
                result.append(each)
            else:
                group[field] = each
        for (name, _, _), group in groups.items():
            entry = self._by_name[name]
            whole = all(field in group or shape.optional for field, shape in entry.keys.items())
            result += [_one(entry, group)] if whole else list(group.values())
        return result


def _one(entry: CatalogEntry, group: Mapping[str, Found]) -> Found:
    """One credential out of its fields. It is called after where they stand, for one that is not the first."""
    first = next(iter(group.values()))
    spots = tuple(replace(spot, field=field) for field, each in group.items() for spot in each.spots)
    return Found(
        name=f"{first.name.rpartition('/')[0]}/{entry.name}",
        fields={field: each.fields[DEFAULT_FIELD] for field, each in group.items()},
        where=", ".join(dict.fromkeys(each.where for each in group.values())),
        entry=entry.name,
        spots=spots,
        doubt=EXAMPLE if any(each.doubt == EXAMPLE for each in group.values()) else "",
    )


def _has_all(entry: CatalogEntry, found: Found) -> bool:
    """Is what was found a whole credential of this entry?"""
    if {_USER, _PASSWORD} <= found.fields.keys():
        return DEFAULT_FIELD in entry.keys
    if any(shape.token for shape in entry.keys.values()):  # a variable holds what is made with the key
        return all(entry.looks_like_a_key(_text(value), field) for field, value in found.fields.items())
    needed = {field for field, shape in entry.keys.items() if not shape.optional}
    return needed <= found.fields.keys() <= entry.keys.keys()


def _filled(entry: CatalogEntry, found: Found, settings: Mapping[str, Found]) -> CatalogEntry:
    """The entry with what the source says about the account: in other variables, or in a user name."""
    if not entry.blanks:
        return entry
    answers = dict[str, str]()
    for variable, template in entry.settings.items():
        blank = re.fullmatch(r"([^{}]*)\{(\w+)\}([^{}]*)", template)
        said = _text(settings[variable].fields[DEFAULT_FIELD]) if blank and variable in settings else ""
        if blank and len(said) > len(blank[1] + blank[3]) and said.startswith(blank[1]) and said.endswith(blank[3]):
            answers[blank[2]] = said.removeprefix(blank[1]).removesuffix(blank[3])
    if _USER in found.fields:
        users = {str(service.inject.get("user", "")) for service in entry.services}
        answers |= {blank.name: _text(found.fields[_USER]) for blank in entry.blanks if f"{{{blank.name}}}" in users}
    try:
        return entry.fill(entry.answers(answers))
    except InvalidRequest:
        return entry  # what is missing is asked for later


def named(names: Iterable[str], globs: tuple[str, ...]) -> bool:
    """Is one of these names meant by one of the patterns?"""
    return any(name and fnmatch.fnmatchcase(name, glob) for name in names for glob in globs)


def _takes_a_pair(entry: CatalogEntry) -> bool:
    """Basic without a user name of its own takes a name and a password."""
    return all(s.inject.get("kind") == "basic" and not s.inject.get("user") for s in entry.services)


@functools.cache
def _telling(pattern: re.Pattern[str]) -> bool:
    """Does a pattern say something of whose key it is, rather than match whatever is long and random?"""
    return not any(pattern.fullmatch((letters * 16)[:length]) for letters in _RANDOM for length in _LENGTHS)


@functools.cache
def _begins(text: str) -> re.Pattern[str]:
    """What every placeholder of a shape begins with."""
    end = text.lower().find(_MARK) + len(_MARK)
    return re.compile(re.escape(text[:end]).replace(r"\*", "[A-Za-z0-9]"))


def _text(value: Secret) -> str:
    return value.reveal().decode()

"""What the catalog knows of credentials that were found, and which of them are to be taken. Pure.

A credential is recognised by the variable that holds it, by the host that its source sends it to, or by its shape,
where only one entry has that shape and not every random text has it too.
"""

from __future__ import annotations

import fnmatch
import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from keyhole.catalog import Catalog, CatalogEntry
from keyhole.core.path import DEFAULT_FIELD
from keyhole.core.value import Secret
from keyhole.importers.found import Binding, Found, Report, Skipped, Spot
from keyhole.importers.judge import EXAMPLE

_RANDOM = ("0123456789abcdef", "0a1B2c3D4e5F6g7H8i9J", "aBcDeFgHiJ", "0a-1_B2c3")
_LENGTHS = range(8, 129, 4)
_USER, _PASSWORD = "username", "password"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A credential that is to be taken, and what is to become of it.

    Attributes:
        found: as the source has it.
        name: of the secret.
        fields: of the secret.
        spots: with the fields of the secret.
        entry: what the catalog knows; ``None`` for what it does not.
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
        self._entries = [catalog.get(name) for name in catalog.names()]
        self._by_variable = {variable: entry for entry in reversed(self._entries) for variable in entry.variables}
        self._by_host: dict[str, CatalogEntry] = {}
        for entry in reversed(self._entries):
            for service in entry.services:
                self._by_host |= dict.fromkeys(service.hosts, entry)

    @property
    def variables(self) -> frozenset[str]:
        """All that the catalog knows."""
        return frozenset(self._by_variable)

    def choose(self, report: Report, wish: Wish) -> tuple[list[Proposal], list[Skipped]]:
        """What of a report is to be taken, and what not, with the reasons."""
        taken, left = list[Proposal](), list(report.skipped)
        for found in report.found:
            proposal = self._proposed(found, wish)
            why = self._why_not(proposal, wish)
            if why:
                left.append(Skipped(found.variable or found.name, found.where, why))
            else:
                taken.append(proposal)
        return taken, left

    def _why_not(self, proposal: Proposal, wish: Wish) -> str:
        found = proposal.found
        names = (found.variable, found.name, proposal.name)
        if _named(names, wish.leave):
            return "is to be left, as you said"
        if any(self._is_placeholder(_text(value)) for value in proposal.fields.values()):
            return "is a placeholder of Keyhole already"
        if not found.doubt or _named(names, wish.take):
            return ""
        known = proposal.entry is not None and (found.doubt != EXAMPLE or not proposal.odd)
        return "" if known else found.doubt

    def _proposed(self, found: Found, wish: Wish) -> Proposal:
        entry = self._entry(found)
        if entry is None:
            name = f"{wish.under}/{found.name.rpartition('/')[2]}" if wish.under else found.name
            return Proposal(found, name, found.fields, found.spots)
        fields, spots = found.fields, found.spots
        if {_USER, _PASSWORD} <= fields.keys() and not _takes_a_pair(entry):
            part = _PASSWORD if len(fields[_PASSWORD]) else _USER
            fields = {DEFAULT_FIELD: fields[part]}
            spots = tuple(replace(spot, field=DEFAULT_FIELD) for spot in spots)
        value = fields.get(DEFAULT_FIELD)
        odd = value is not None and not entry.looks_like_a_key(_text(value))
        return Proposal(found, f"{entry.name}/api-key", fields, spots, entry, odd)

    def _entry(self, found: Found) -> CatalogEntry | None:
        known = self._by_variable.get(found.variable)
        if known is None and found.binding is not None:
            known = self._by_host.get(found.binding.host.removesuffix(":443"))
        if known is not None:
            return known if DEFAULT_FIELD in found.fields or {_USER, _PASSWORD} <= found.fields.keys() else None
        values = [value for name, value in found.fields.items() if name != _USER or len(found.fields) == 1]
        return self._by_shape(_text(values[0])) if len(values) == 1 and not found.stays else None

    def _by_shape(self, text: str) -> CatalogEntry | None:
        alike = [entry for entry in self._entries if entry.looks_like_a_key(text)]
        return alike[0] if len(alike) == 1 and _telling(alike[0].key.pattern) else None

    def _is_placeholder(self, text: str) -> bool:
        return "keyhole" in text.lower() and any(_begins(entry.key.placeholder).match(text) for entry in self._entries)


def _named(names: Iterable[str], globs: tuple[str, ...]) -> bool:
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
    """What every placeholder of an entry begins with."""
    end = text.lower().find("keyhole") + len("keyhole")
    return re.compile(re.escape(text[:end]).replace(r"\*", "[A-Za-z0-9]"))


def _text(value: Secret) -> str:
    return value.reveal().decode()

"""Reads tables of a file so that a mistake is named with its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keyhole.core.errors import InvalidRequest


class Reader:
    """A table of a file that says where it stands when something is wrong with it."""

    def __init__(self, where: str, data: Mapping[str, Any]) -> None:
        self.where = where
        self.data = data

    def wrong(self, name: str, what: str) -> InvalidRequest:
        """An error about one name of this table; about the table itself where the name is empty."""
        place = f"{self.where}: {name}" if name else self.where
        return InvalidRequest(f"catalog entry {place} {what}", "docs/catalog.md describes the form")

    def only(self, *names: str) -> None:
        """Refuse what is not known: a misspelt name would be passed over."""
        for name in self.data:
            if name not in names:
                raise self.wrong(name, f"is not known; there are {', '.join(names)}")

    def text(self, name: str, default: str | None = None) -> str:
        """A text; not an empty one unless there is a default."""
        value = self.data.get(name, default)
        if not isinstance(value, str) or (default is None and not value):
            raise self.wrong(name, "must be a text")
        return value

    def flag(self, name: str) -> bool:
        """True or false; false unless said."""
        value = self.data.get(name, False)
        if not isinstance(value, bool):
            raise self.wrong(name, "must be true or false")
        return value

    def texts(self, name: str, *, required: bool = True) -> tuple[str, ...]:
        """A list of texts."""
        value = self.data.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value) or (required and not value):
            raise self.wrong(name, "must be a list of texts")
        return tuple(value)

    def table(self, name: str) -> Reader:
        """A table that has to be there."""
        value = self.data.get(name)
        if not isinstance(value, Mapping):
            raise self.wrong(name, "must be a table")
        return Reader(f"{self.where}: {name}", value)

    def table_of_texts(self, name: str) -> dict[str, str]:
        """A table with texts only; an empty one where there is none."""
        value = self.data.get(name, {})
        if not isinstance(value, Mapping) or not all(isinstance(item, str) for item in value.values()):
            raise self.wrong(name, "must be a table of texts")
        return dict(value)

    def tables(self, name: str) -> list[Reader]:
        """One or more tables of the same name."""
        value = self.data.get(name)
        if not isinstance(value, list) or not value or not all(isinstance(item, Mapping) for item in value):
            raise self.wrong(name, f"must be there at least once, as [[{name}]]")
        return [Reader(f"{self.where}: {name} {number}", item) for number, item in enumerate(value, 1)]

    def host(self) -> str:
        """One host, written as it is or as its labels."""
        if ("host" in self.data) == ("host_labels" in self.data):
            raise self.wrong("host", "or host_labels must be there, one of the two")
        return self.text("host") if "host" in self.data else ".".join(self.texts("host_labels"))

    def hosts(self) -> tuple[str, ...]:
        """Hosts, written as they are or as lists of their labels."""
        labels = self.data.get("host_labels", [])
        if not isinstance(labels, list) or not all(isinstance(item, list) and item for item in labels):
            raise self.wrong("host_labels", "must be a list of lists of texts")
        if not all(isinstance(label, str) for item in labels for label in item):
            raise self.wrong("host_labels", "must be a list of lists of texts")
        hosts = (*self.texts("hosts", required=False), *(".".join(item) for item in labels))
        if not hosts:
            raise self.wrong("hosts", "or host_labels must name a host")
        return hosts

"""The entries by name: those that come with Keyhole, and a user's own in the same form."""

from __future__ import annotations

import difflib
import tomllib
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from keyhole.catalog.entry import CatalogEntry
from keyhole.core.errors import InvalidRequest, NotFound


class Catalog:
    """Entries, each read when it is first asked for. A user's own file wins over one of ours with the same name."""

    def __init__(self, sources: dict[str, Traversable]) -> None:
        self._sources = sources
        self._read: dict[str, CatalogEntry] = {}

    @classmethod
    def load(cls, *folders: Path) -> Catalog:
        """Our entries and those in ``folders``; a folder that is not there is an empty one."""
        found: dict[str, Traversable] = {}
        for folder in (files("keyhole.catalog") / "data", *folders):
            if folder.is_dir():
                found |= {item.name.removesuffix(".toml"): item for item in folder.iterdir() if _is_entry(item)}
        return cls(found)

    def names(self) -> tuple[str, ...]:
        """In alphabetical order."""
        return tuple(sorted(self._sources))

    def get(self, name: str) -> CatalogEntry:
        """The entry of that name.

        Raises:
            NotFound: there is none; the hint names similar ones.
            InvalidRequest: its file is wrong.
        """
        if name not in self._read:
            source = self._sources.get(name)
            if source is None:
                raise NotFound(f"the catalog has no entry {name!r}", self._hint(name))
            self._read[name] = read_entry(source)
        return self._read[name]

    def for_variable(self, variable: str) -> CatalogEntry | None:
        """The entry whose SDKs read this environment variable; ``None`` too where several share it."""
        found = [entry for entry in map(self.get, self.names()) if variable in entry.variables]
        return found[0] if len(found) == 1 else next((e for e in found if variable not in e.shared), None)

    def _hint(self, name: str) -> str:
        close = difflib.get_close_matches(name, self.names(), n=3)
        titles = {self.get(each).title.lower(): each for each in self.names()} if not close else {}
        close = close or [titles[title] for title in difflib.get_close_matches(name.lower(), titles, n=3)]
        return f"perhaps {' or '.join(close)}" if close else "keyhole catalog list shows what there is"


def read_entry(source: Traversable) -> CatalogEntry:
    """Read and check one file.

    Raises:
        InvalidRequest: names the entry, the field and what is wrong with it.
    """
    name = source.name.removesuffix(".toml")
    try:
        data = tomllib.loads(source.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"catalog entry {name} is not TOML ({error})") from error
    except OSError as error:
        raise InvalidRequest(f"catalog entry {name} cannot be read ({error.strerror})") from error
    return CatalogEntry.from_data(name, data)


def _is_entry(item: Traversable) -> bool:
    return item.name.endswith(".toml") and item.is_file()

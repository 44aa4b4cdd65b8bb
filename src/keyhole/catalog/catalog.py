"""The entries by name: those that come with Keyhole, and a user's own in the same form."""

from __future__ import annotations

import difflib
import tomllib
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from keyhole.catalog.entry import CatalogEntry
from keyhole.core.errors import InvalidRequest, NotFound

LONGEST = 64 * 1024  # bytes of a file
_OURS: dict[str, CatalogEntry] = {}  # read once in a process: they come with the program


class Catalog:
    """Entries, each read when it is first asked for. A user's own file wins over one of ours with the same name."""

    def __init__(
        self,
        sources: dict[str, Traversable],
        own: frozenset[str] = frozenset(),
        ours: dict[str, CatalogEntry] | None = None,
    ) -> None:
        self._sources = sources
        self._own = own
        self._read_own: dict[str, CatalogEntry] = {}
        self._read_ours = {} if ours is None else ours

    @classmethod
    def load(cls, *folders: Path) -> Catalog:
        """Our entries and those in ``folders``; a folder that is not there is an empty one."""
        found = _entries(files("keyhole.catalog") / "data")
        own: dict[str, Traversable] = {}
        for folder in folders:
            own |= _entries(folder)
        return cls(found | own, frozenset(own), _OURS)

    def names(self) -> tuple[str, ...]:
        """In alphabetical order."""
        return tuple(sorted(self._sources))

    def own_names(self) -> frozenset[str]:
        """Those of a user's own."""
        return self._own

    def get(self, name: str) -> CatalogEntry:
        """The entry of that name.

        Raises:
            NotFound: there is none; the hint names similar ones.
            InvalidRequest: its file is wrong.
        """
        read = self._read_own if name in self._own else self._read_ours
        if name not in read:
            source = self._sources.get(name)
            if source is None:
                raise NotFound(f"the catalog has no entry {name!r}", self._hint(name))
            read[name] = read_entry(source)
        return read[name]

    def entries(self) -> tuple[tuple[CatalogEntry, ...], tuple[InvalidRequest, ...]]:
        """All entries, and what is wrong with the files of a user's own that cannot be read."""
        found, wrong = [], []
        for name in self.names():
            try:
                found.append(self.get(name))
            except InvalidRequest as error:
                wrong.append(error)
        return tuple(found), tuple(wrong)

    def for_variable(self, variable: str) -> CatalogEntry | None:
        """The entry whose SDKs read this environment variable; ``None`` too where several share it."""
        found = [entry for entry in self.entries()[0] if variable in entry.variables]
        return found[0] if len(found) == 1 else next((e for e in found if variable not in e.shared), None)

    def _hint(self, name: str) -> str:
        wanted = name.lower()
        near = [entry.name for entry in self.entries()[0] if wanted and wanted in entry.title.lower()]
        near += [name for name in difflib.get_close_matches(wanted, self.names(), n=3) if name not in near]
        return f"perhaps {' or '.join(near[:3])}" if near else "keyhole catalog list shows what there is"


def read_entry(source: Traversable) -> CatalogEntry:
    """Read and check one file.

    Raises:
        InvalidRequest: names the entry, the field and what is wrong with it.
    """
    name = source.name.removesuffix(".toml")
    try:
        with source.open("rb") as file:
            content = file.read(LONGEST + 1)
        if len(content) > LONGEST:
            raise InvalidRequest(f"catalog entry {name} is longer than {LONGEST} bytes")
        data = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"catalog entry {name} is not TOML ({error})") from error
    except OSError as error:
        raise InvalidRequest(f"catalog entry {name} cannot be read ({error.strerror})") from error
    return CatalogEntry.from_data(name, data)


def _entries(folder: Traversable) -> dict[str, Traversable]:
    """Name to file. A hidden file is no entry: an editor or a copy under way made it."""
    if not folder.is_dir():
        return {}
    names = (item for item in folder.iterdir() if item.name.endswith(".toml") and not item.name.startswith("."))
    return {item.name.removesuffix(".toml"): item for item in names if item.is_file()}

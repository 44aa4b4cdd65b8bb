"""What was read one by one, as it lies in the file, for as long as nothing there has changed.

Each commit of the journal, which is one for nearly every call, makes SQLite read all pages anew. The number in
``generation`` changes with entries alone, so what was read at that number is what would be read again. What is kept
here is sealed as it is in the file.
"""

from __future__ import annotations

from keyhole.stores import Entry

ROWS = 1024
"""How many are kept."""

SIZE = 4096
"""Longer values are read each time, so that all that is kept takes 4 MiB at most."""


class Known:
    """Entries by their keys, of one generation."""

    __slots__ = ("_generation", "_rows")

    def __init__(self) -> None:
        self._generation = -1
        self._rows: dict[str, Entry] = {}

    def get(self, key: str, generation: int) -> Entry | None:
        """The entry, or ``None`` where it has to be read.

        Args:
            key: of the entry.
            generation: read before what is going to be kept, so that a row can be newer than it and never older.
        """
        if generation != self._generation:
            self._generation = generation
            self._rows.clear()
        return self._rows.get(key)

    def keep(self, key: str, entry: Entry) -> None:
        """Keep what was read after ``get`` had not found it."""
        if entry.value is not None and len(entry.value) <= SIZE and len(self._rows) < ROWS:
            self._rows[key] = entry

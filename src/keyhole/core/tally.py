"""Small counts by a key, such as how often an address has failed: bounded, and forgotten without harm.

    with tallies.held("names", "acme/alice") as cell:   # three numbers; zeros for what was never counted
        cell[0] += 1
        cell[1] = now

Processes that serve one port together count in one memory (``keyhole.workers``); all others by themselves.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

KINDS = ("addresses", "names", "quotas", "rates", "under way")
_NOTHING = (0.0, 0.0, 0.0)
Cell = list[float]


class Tallies(Protocol):
    """Cells by kind and key. The cell that was used least lately makes room for a new one."""

    def read(self, kind: str, key: str) -> Sequence[float]:
        """The three numbers now; zeros for what is not there, which stays so."""

    def held(self, kind: str, key: str) -> AbstractContextManager[Cell]:
        """The cell, to be changed before anybody else reads it. Do nothing in between that waits."""

    def forget(self, kind: str, key: str) -> None:
        """Back to zeros."""

    def enter(self, key: str, most: int) -> bool:
        """Count one more of what is under way in this process, if all processes together have fewer than ``most``."""

    def leave(self, key: str) -> None:
        """One less."""


class LocalTallies:
    """Counts of one process.

    Args:
        most: cells of one kind.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._cells: dict[str, OrderedDict[str, Cell]] = {kind: OrderedDict() for kind in KINDS}

    def __len__(self) -> int:
        """How many cells there are."""
        return sum(map(len, self._cells.values()))

    def read(self, kind: str, key: str) -> Sequence[float]:
        """See ``Tallies``."""
        return self._cells[kind].get(key, _NOTHING)

    @contextlib.contextmanager
    def held(self, kind: str, key: str) -> Iterator[Cell]:
        """See ``Tallies``."""
        cells = self._cells[kind]
        cell = cells.pop(key, None) or [*_NOTHING]
        cells[key] = cell
        if len(cells) > self._most:
            cells.popitem(last=False)
        yield cell

    def forget(self, kind: str, key: str) -> None:
        """See ``Tallies``."""
        self._cells[kind].pop(key, None)

    def enter(self, key: str, most: int) -> bool:
        """See ``Tallies``. What is under way is never forgotten."""
        cells = self._cells["under way"]
        count = cells[key][0] if key in cells else 0.0
        if count >= most:
            return False
        cells[key] = [count + 1, 0.0, 0.0]
        return True

    def leave(self, key: str) -> None:
        """See ``Tallies``."""
        cells = self._cells["under way"]
        if key in cells:
            cells[key][0] -= 1
            if cells[key][0] <= 0:
                del cells[key]

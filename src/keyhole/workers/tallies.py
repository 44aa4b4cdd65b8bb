"""Counts that several processes share: a memory without a name, which they have inherited.

Each kind of ``core.tally`` has an area of its own: sets of eight cells, of which the one that was used least lately
makes room. What is under way is never forgotten: where there is no room for one more, it may not begin. A cell is found
by a keyed digest, so nobody can choose keys that meet in one set. A record lock of the kernel (fcntl(2)) over an area's
byte keeps processes from each other's way; that of a process that dies is given back.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import struct
import sys
from collections.abc import Iterator, Sequence

from keyhole.core.tally import KINDS, Cell

_CELL = struct.Struct("=16sdddQQ")  # digest, three numbers, when it was used last (a count), whose it is
_NUMBERS = struct.Struct("=ddd")
_WAYS = 8
_SETS = 2048
_AREA = _CELL.size * _WAYS * _SETS
_CLOCK = len(KINDS) * _AREA  # where the count of all uses stands
SIZE = _CLOCK + 8
_NOTHING = (0.0, 0.0, 0.0)
_UNDER_WAY = "under way"
_NEIGHBOURS = 4  # sets in which a count of what is under way may stand: none of them makes room


def new_memory() -> int:
    """A descriptor of memory for ``SharedTallies``, which vanishes with the processes that have it."""
    if sys.platform != "linux":
        raise OSError("memory without a name is there on Linux only")
    descriptor = os.memfd_create("keyhole-tallies")
    os.ftruncate(descriptor, SIZE)
    return descriptor


class SharedTallies:
    """``core.tally.Tallies`` over shared memory.

    Args:
        descriptor: of ``new_memory``; it is closed at the end of the process.
        key: the same in all processes.
        index: of this process among them; what an earlier one with this number had under way has ended.
        count: how many processes there are.
    """

    def __init__(self, descriptor: int, key: bytes, index: int, count: int) -> None:
        self._descriptor = descriptor
        self._memory = mmap.mmap(descriptor, SIZE)
        self._key = key
        self._index = index
        self._count = count
        self._drop_own()

    def read(self, kind: str, key: str) -> Sequence[float]:
        """See ``Tallies``."""
        digest = self._digest(key)
        with self._locked(kind):
            place, found = self._find(kind, digest)
            return _NUMBERS.unpack_from(self._memory, place + 16) if found else _NOTHING

    @contextlib.contextmanager
    def held(self, kind: str, key: str) -> Iterator[Cell]:
        """See ``Tallies``."""
        digest = self._digest(key)
        with self._locked(kind), self._cell(kind, digest, 0) as cell:
            yield cell

    def forget(self, kind: str, key: str) -> None:
        """See ``Tallies``."""
        digest = self._digest(key)
        with self._locked(kind):
            place, found = self._find(kind, digest)
            if found:
                self._clear(place)

    def enter(self, key: str, most: int) -> bool:
        """See ``Tallies``."""
        with self._locked(_UNDER_WAY):
            if sum(self._calls(key, index) for index in range(self._count)) >= most:
                return False
            digest = self._digest(f"{self._index}/{key}")
            place, found = self._find(_UNDER_WAY, digest)
            if not found and self._used(place):
                return False  # there is no room to count it, and what is not counted has no bound
            with self._cell(_UNDER_WAY, digest, self._index + 1) as cell:
                cell[0] += 1
            return True

    def leave(self, key: str) -> None:
        """See ``Tallies``."""
        with self._locked(_UNDER_WAY):
            place, found = self._find(_UNDER_WAY, self._digest(f"{self._index}/{key}"))
            if not found:
                return
            (calls, *_) = _NUMBERS.unpack_from(self._memory, place + 16)
            if calls > 1:
                _NUMBERS.pack_into(self._memory, place + 16, calls - 1, 0.0, 0.0)
            else:
                self._clear(place)

    def _calls(self, key: str, index: int) -> float:
        place, found = self._find(_UNDER_WAY, self._digest(f"{index}/{key}"))
        return float(_NUMBERS.unpack_from(self._memory, place + 16)[0]) if found else 0.0

    def _drop_own(self) -> None:
        start = KINDS.index(_UNDER_WAY) * _AREA
        with self._locked(_UNDER_WAY):
            for place in range(start, start + _AREA, _CELL.size):
                if _CELL.unpack_from(self._memory, place)[5] == self._index + 1:
                    self._clear(place)

    @contextlib.contextmanager
    def _locked(self, kind: str) -> Iterator[None]:
        where = KINDS.index(kind)
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1, where)
        try:
            yield
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, where)

    @contextlib.contextmanager
    def _cell(self, kind: str, digest: bytes, owner: int) -> Iterator[Cell]:
        place, found = self._find(kind, digest)
        cell = [*(_NUMBERS.unpack_from(self._memory, place + 16) if found else _NOTHING)]
        yield cell
        (used,) = struct.unpack_from("=Q", self._memory, _CLOCK)
        struct.pack_into("=Q", self._memory, _CLOCK, used + 1)
        _CELL.pack_into(self._memory, place, digest, *cell, used + 1, owner)

    def _find(self, kind: str, digest: bytes) -> tuple[int, bool]:
        """Where a cell is, or may be made, and whether it is there."""
        area, first = KINDS.index(kind) * _AREA, int.from_bytes(digest[:4], "big") % _SETS * _WAYS
        oldest, least = area, 1 << 64
        for number in range(first, first + _WAYS * (_NEIGHBOURS if kind == _UNDER_WAY else 1)):
            place = area + number % (_WAYS * _SETS) * _CELL.size
            if self._memory[place : place + 16] == digest:
                return place, True
            used = self._used(place)
            if used < least:
                oldest, least = place, used
        return oldest, False

    def _used(self, place: int) -> int:
        """When a cell was used last; 0 for one that is free."""
        return int(_CELL.unpack_from(self._memory, place)[4])

    def _clear(self, place: int) -> None:
        self._memory[place : place + _CELL.size] = bytes(_CELL.size)

    def _digest(self, key: str) -> bytes:
        return hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=16, key=self._key).digest()

"""Files in tar archives, and in the layers of images of containers as ``docker save`` and OCI write them.

A file that a later layer removes is in the image all the same, so every layer is looked at. Nothing is unpacked:
members are read one after the other, and links are not followed.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from typing import IO, cast

from keyhole.sprawl.finding import Limits

_MAGIC = b"ustar"
_AT = 257  # offset of the magic in a header (POSIX.1-1988)
_BLOCK = 512
_GZIP = b"\x1f\x8b\x08"
_DEEPEST = 3  # archives within archives: an image, its layers, and an archive in a layer
_MOST = 200_000  # members
_TOTAL = 4 * 1024**3  # bytes of all members together, so that an archive that expands costs bounded time


def is_archive(head: bytes) -> bool:
    """Does a file begin as a tar archive does, plain or in gzip?"""
    return head[_AT : _AT + len(_MAGIC)] == _MAGIC or head.startswith(_GZIP)


def entries(file: IO[bytes], notes: list[str], label: str, limits: Limits) -> Iterator[tuple[str, bytes]]:
    """Names and contents of all files in an archive, those of archives in it too.

    Args:
        file: at its beginning.
        notes: takes what could not be read.
        label: of the archive, for the notes.
        limits: of a file.
    """
    yield from _Reader(notes, label, limits).members(file, "", 0)


class _Reader:
    def __init__(self, notes: list[str], label: str, limits: Limits) -> None:
        self._notes = notes
        self._label = label
        self._limits = limits
        self._count = 0
        self._bytes = 0

    def members(self, file: IO[bytes], before: str, depth: int) -> Iterator[tuple[str, bytes]]:
        try:
            with tarfile.open(fileobj=file, mode="r|*") as archive:
                for member in archive:
                    self._count += 1
                    self._bytes += max(member.size, 0)
                    if self._count > _MOST or self._bytes > _TOTAL:
                        self._notes.append(f"{self._label}: it has more in it than is looked at")
                        return
                    if member.isfile():
                        yield from self._member(archive, member, before, depth)
        except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError) as error:
            self._notes.append(f"{self._label}{'!' + before if before else ''}: no archive that can be read ({error})")

    def _member(
        self, archive: tarfile.TarFile, member: tarfile.TarInfo, before: str, depth: int
    ) -> Iterator[tuple[str, bytes]]:
        content = archive.extractfile(member)
        if content is None:
            return
        name = f"{before}{member.name}"
        head = content.read(_BLOCK)
        if depth < _DEEPEST and is_archive(head):
            yield from self.members(cast("IO[bytes]", _Stream(head, content)), f"{name}!", depth + 1)
            return
        yield name, head + content.read(self._limits.file - len(head))
        if member.size > self._limits.file:
            self._notes.append(f"{self._label}!{name}: only its beginning was looked at")


class _Stream:
    """What ``tarfile`` reads a stream from: the first bytes, and then the rest."""

    def __init__(self, head: bytes, rest: IO[bytes]) -> None:
        self._head = head
        self._rest = rest

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        if not self._head:
            return self._rest.read(size)
        piece, self._head = self._head[:size], self._head[size:]
        return piece if len(piece) == size else piece + self._rest.read(size - len(piece))

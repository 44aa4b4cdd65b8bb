"""Files to look at: those of a folder, with images of containers opened; links are not followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from keyhole.sprawl.archive import entries, is_archive
from keyhole.sprawl.finding import LIMITS, Limits

# What others have written and this repository does not: objects of git (see ``history``), caches, what was installed.
_PASSED = {".git", ".hg", ".svn", "node_modules", ".venv", "venv", "__pycache__", ".tox", ".mypy_cache", ".ruff_cache"}


@dataclass(frozen=True, slots=True)
class Content:
    """Bytes to look at.

    Attributes:
        label: path, with what is in an archive behind an exclamation mark.
        data: the bytes, or their beginning.
        path: of the file, where it is one by itself.
    """

    label: str
    data: bytes = field(repr=False)
    path: Path | None = None


@dataclass
class Passed:
    """What was not looked at, with the reason, for the person."""

    notes: list[str] = field(default_factory=list)


def walk(start: Path, passed: Passed, limits: Limits = LIMITS) -> Iterator[Content]:
    """Every file of a folder, or one file.

    Args:
        start: a folder or a file.
        passed: takes what cannot be read, or not whole.
        limits: of a file.
    """
    if not start.is_dir():
        yield from _file(start, passed, limits)
        return
    for folder, folders, names in os.walk(start, onerror=lambda error: passed.notes.append(_reason(error))):
        folders[:] = sorted(name for name in folders if name not in _PASSED)
        for name in sorted(names):
            yield from _file(Path(folder, name), passed, limits)


def _reason(error: OSError) -> str:
    return f"{error.filename}: {error.strerror}"


def _file(path: Path, passed: Passed, limits: Limits) -> Iterator[Content]:
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    try:
        if path.is_symlink():
            yield Content(str(path), os.fsencode(path.readlink()))
            return
        with os.fdopen(os.open(path, flags), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return
            head = file.read(512)
            file.seek(0)
            if is_archive(head):
                for name, data in entries(file, passed.notes, str(path), limits):
                    yield Content(f"{path}!{name}", data)
                return
            data = file.read(limits.file)
    except OSError as error:
        passed.notes.append(f"{path}: {error.strerror or 'cannot be read'}")
        return
    if status.st_size > len(data):
        passed.notes.append(f"{path}: only the first {limits.file // 2**20} MiB were looked at")
    yield Content(str(path), data, path)

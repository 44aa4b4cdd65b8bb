"""What was refused here because it was not genuine: a local record, so that an attempt does not pass unnoticed.

One file for each vault of this machine, beside what was seen of it. A refusal that repeats itself is one line.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from keyhole.core.errors import IntegrityError
from keyhole.repo.documents import instant
from keyhole.repo.seen import FOLDER

FOLDER_OF_VAULT = "the folder"
_MAX_FILE = 256 * 1024  # bytes; older refusals are let go
_MAX_LINE = 2000  # characters
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Refusal:
    """One refusal.

    Attributes:
        time: when, RFC 3339.
        where: what was looked at, the folder or a remote.
        reason: what was not genuine, with its name; never a value.
    """

    time: str
    where: str
    reason: str


def recorded(opens: Callable[[Path, Path], R]) -> Callable[[Path, Path], R]:
    """A function of the root of a vault and the home of this machine, whose refusals are recorded."""

    @functools.wraps(opens)
    def opening(root: Path, home: Path) -> R:
        with recording(root, home, FOLDER_OF_VAULT):
            return opens(root, home)

    return opening


@contextlib.contextmanager
def recording(root: Path, home: Path, where: str) -> Iterator[None]:
    """Record an ``IntegrityError``, and raise it."""
    with recording_beside(_file(root, home), where):
        yield


@contextlib.contextmanager
def recording_beside(seen: Path | None, where: str = FOLDER_OF_VAULT) -> Iterator[None]:
    """The same, of a vault of which this machine keeps in ``seen`` what it has seen; nothing where it keeps nothing."""
    try:
        yield
    except IntegrityError as error:
        if seen is not None:
            with contextlib.suppress(OSError):  # what is refused stays refused, also where nothing can be written
                refusal = Refusal(instant(datetime.now(UTC)), where, error.reason[:_MAX_LINE])
                _append(seen.with_suffix(".refused"), refusal)
        raise


def refusals(root: Path, home: Path) -> list[Refusal]:
    """What was refused of a vault on this machine, oldest first."""
    return _read(_file(root, home))


def _file(root: Path, home: Path) -> Path:
    return home / FOLDER / f"{hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:32]}.refused"


def _read(path: Path) -> list[Refusal]:
    found = []
    with contextlib.suppress(OSError):
        for line in path.read_text(errors="replace").splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                data = json.loads(line)
                found.append(Refusal(str(data["time"]), str(data["where"]), str(data["reason"])))
    return found


def _append(path: Path, refusal: Refusal) -> None:
    before = _read(path)
    if before and (before[-1].where, before[-1].reason) == (refusal.where, refusal.reason):
        return
    line = json.dumps({"time": refusal.time, "where": refusal.where, "reason": refusal.reason}) + "\n"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists() and path.stat().st_size > _MAX_FILE:
        path.unlink()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "a") as file:
        file.write(line)
        file.flush()
        os.fsync(descriptor)

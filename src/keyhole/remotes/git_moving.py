"""From one commit to another, so that what a kill leaves can be carried on.

What is meant is written down first. Git writes the files before it writes its index, so a kill can leave a work tree
between two commits, which git itself takes for somebody's work.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path
from typing import Protocol

from keyhole.core.errors import Conflict, IntegrityError, InvalidRequest

_NOTE = "moving.json"
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_MOST = 200_000  # files that differ


class Runs(Protocol):
    """What is wanted of ``Git``."""

    root: Path

    def run(self, *arguments: str) -> bytes:
        """What git prints."""

    def head(self) -> str:
        """The commit that is checked out."""


def move(git: Runs, local: Path, to: str, message: str) -> None:
    """Check a commit out that goes on from what is checked out; what is not committed stays as it is.

    Args:
        git: the repository.
        local: where the note lies meanwhile, a folder that is not shared.
        to: the commit.
        message: for the log of the branch.

    Raises:
        Conflict: work that is not committed would be lost.
    """
    ours = git.head()
    with contextlib.suppress(InvalidRequest):  # what is not up to date stays so, and is in the way below
        git.run("update-index", "-q", "--refresh")
    try:
        git.run("read-tree", "-m", "-u", "-n", ours, to)
    except InvalidRequest as error:
        raise Conflict("work that is not committed is in the way", error.reason) from None
    _write(local / _NOTE, {"from": ours, "to": to, "message": message})
    try:
        git.run("read-tree", "-m", "-u", ours, to)
    except InvalidRequest:
        _settle(git, ours, to)
    _arrive(git, local, ours, to, message)


def carry_on(git: Runs, local: Path) -> str:
    """Finish what a command that was ended had begun; returns its message, empty for nothing.

    Raises:
        Conflict: somebody has changed a file meanwhile that it would write.
        IntegrityError: the note cannot be read.
    """
    try:
        note = json.loads(_read(local / _NOTE))
        ours, to, message = str(note["from"]), str(note["to"]), str(note["message"])[:1000]
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise IntegrityError(f"{local / _NOTE} cannot be read", "keyhole operator fsck --repair") from None
    if not _COMMIT.fullmatch(ours) or not _COMMIT.fullmatch(to):
        raise IntegrityError(f"{local / _NOTE} names no commits", "keyhole operator fsck --repair")
    if git.head() != ours:  # it arrived, or somebody has gone elsewhere since
        (local / _NOTE).unlink(missing_ok=True)
        return ""
    _settle(git, ours, to)
    _arrive(git, local, ours, to, message)
    return message


def is_left(local: Path) -> bool:
    """Whether a command was ended on its way."""
    return (local / _NOTE).is_file()


def stop(local: Path) -> None:
    """Carry on with nothing; the work tree stays as it is."""
    (local / _NOTE).unlink(missing_ok=True)


def _arrive(git: Runs, local: Path, ours: str, to: str, message: str) -> None:
    git.run("update-ref", "-m", message, "HEAD", to, ours)
    (local / _NOTE).unlink(missing_ok=True)


def _settle(git: Runs, ours: str, to: str) -> None:
    """The index and the files as they are in ``to``, where a part of them is so already, or was being written."""
    parts = git.run("diff-tree", "-r", "-z", "--no-renames", ours, to).split(b"\0")
    listed = list(zip(parts[::2], parts[1::2], strict=False))[:_MOST]
    noted = set(git.run("ls-files", "-z").split(b"\0"))
    for about, name in listed:
        _, _, old, new, status = about.decode().split(" ")
        path = git.root / os.fsdecode(name)
        found = _content(git.root, path)
        if found is None:
            continue
        fresh = None if status == "D" else git.run("cat-file", "blob", new)
        if fresh is not None and fresh.startswith(found):
            if status == "A" and name not in noted:
                path.unlink()  # git takes what it has not noted yet for somebody's
        elif status == "A" or not _is(git, path, found, old):
            raise Conflict(
                f"{os.fsdecode(name)[:200]!r} was changed while the last command was on its way",
                "move it away, then try again",
            )
    git.run("read-tree", "--reset", "-u", ours, to)


def _is(git: Runs, path: Path, found: bytes, blob: str) -> bool:
    if path.is_symlink():
        return found == git.run("cat-file", "blob", blob)
    return git.run("hash-object", "--", str(path)).decode().strip() == blob


def _content(root: Path, path: Path) -> bytes | None:
    """The bytes of a file, or where a link leads; ``None`` where nothing is, or a link is on the way."""
    folder = root
    for part in path.relative_to(root).parts[:-1]:
        folder /= part
        if folder.is_symlink():
            return None
    with contextlib.suppress(OSError):
        return os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
    return None


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        return file.read(64 * 1024)


def _write(path: Path, note: dict[str, str]) -> None:
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(note, file)
        file.flush()
        os.fsync(descriptor)
    fresh.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

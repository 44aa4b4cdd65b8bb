"""What is wrong with a git repository, and what of it can be put right without a choice."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Protocol

from keyhole.core.errors import InvalidRequest

_MOST = 100


class Runs(Protocol):
    """What is wanted of ``Git``."""

    root: Path

    def run(self, *arguments: str, data: bytes = b"") -> bytes:
        """What git prints."""


def git_folder(top: Path) -> Path | None:
    """Where a work tree says that its repository lies; ``None`` where it says nothing."""
    entry = top / ".git"
    if entry.is_dir():
        return entry.resolve()
    with contextlib.suppress(OSError, ValueError):
        return (top / entry.read_text()[:4096].removeprefix("gitdir: ").strip()).resolve()
    return None


def match_index(git: Runs, base: str) -> list[str]:
    """Note files in the index as they are committed, where they lie there like that.

    Args:
        git: the repository, which has a commit.
        base: only below this folder.

    Returns:
        Which files those are.
    """
    differing = git.run("diff-index", "--cached", "-z", "--no-renames", "HEAD", "--", base).split(b"\0")
    found = {}
    for about, name in zip(differing[::2], differing[1::2], strict=False):
        mode, _, blob, *_ = about.decode().lstrip(":").split(" ")
        path, file = os.fsdecode(name), git.root / os.fsdecode(name)
        if mode == "000000":
            if not os.path.lexists(file):
                found[path] = f"0 {'0' * 40}"
        elif not file.is_symlink() and _blob(git, file) == blob:
            found[path] = f"{mode} {blob}"
    if found:
        lines = "".join(f"{about}\t{path}\0" for path, about in found.items())
        git.run("update-index", "--add", "-z", "--index-info", data=os.fsencode(lines))
    return list(found)


def broken_objects(git: Runs) -> list[str]:
    """What git finds wrong with its objects, at most a hundred lines."""
    try:
        git.run("fsck", "--no-dangling", "--no-progress", "--connectivity-only")
    except InvalidRequest as failed:
        printed: bytes = getattr(failed, "printed", b"")
        return [line for line in (*printed.decode(errors="replace").splitlines(), failed.reason) if line][:_MOST]
    return []


def _blob(git: Runs, file: Path) -> str:
    with contextlib.suppress(InvalidRequest):
        return git.run("hash-object", "--no-filters", "--", str(file)).decode().strip()
    return ""

"""Lock files that a git which was killed has left: git itself never takes them away.

Whether anybody still works there is read from the processes of this machine. Where that cannot be read, or a process
works there, nothing is touched.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Protocol

from keyhole.core.errors import Conflict, InvalidRequest

_PROCESSES = Path("/proc")
_WAIT = 10.0  # seconds for a git whose parent was killed to end


class Runs(Protocol):
    """What is wanted of ``Git``."""

    root: Path

    def run(self, *arguments: str) -> bytes:
        """What git prints."""


def stale(git: Runs) -> list[Path]:
    """Lock files of the repository that stand in the way of what is done here. Not all of them need be stale."""
    refs = ["HEAD"]
    with contextlib.suppress(InvalidRequest):
        head = git.run("symbolic-ref", "--quiet", "HEAD").decode().strip()
        refs.append(head)
        refs.append(git.run("for-each-ref", "--format=%(upstream)", "--", head).decode().strip())
    names = [f"{ref}.lock" for ref in refs if ref] + [
        "index.lock",
        "packed-refs.lock",
        "shallow.lock",
        "FETCH_HEAD.lock",
        "config.lock",
    ]
    words = [word for name in names for word in ("--git-path", name)]
    paths = git.run("rev-parse", *words).decode(errors="surrogateescape").splitlines()
    return [path for path in (git.root / line for line in paths) if path.is_file() and not path.is_symlink()]


def clear(git: Runs, wait: float = _WAIT) -> list[Path]:
    """Remove what a killed git left; returns what was removed.

    Raises:
        Conflict: another git works there, or that cannot be told.
    """
    until = time.monotonic() + wait
    while (found := stale(git)) and working(git):
        if time.monotonic() >= until:
            raise Conflict("another git works in this repository", "wait for it, or end it")
        time.sleep(0.05)
    if found and not _PROCESSES.joinpath("self").exists():
        names = " ".join(path.name for path in found)
        raise Conflict(f"git has left {names}", "if no git works in this repository, remove it")
    for path in found:
        path.unlink(missing_ok=True)
    return found


def working(git: Runs) -> bool:
    """Whether a git of this machine works in the repository."""
    inside = [git.root, Path(git.run("rev-parse", "--absolute-git-dir").decode(errors="surrogateescape").strip())]
    for process in _PROCESSES.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "comm").read_text().startswith("git"):
                folder = (process / "cwd").readlink()
                if any(folder.is_relative_to(each) for each in inside):
                    return True
    return False

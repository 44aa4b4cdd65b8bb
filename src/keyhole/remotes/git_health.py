"""What is wrong with a git repository, and what of it can be put right without a choice."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

from keyhole.core.errors import Conflict, IntegrityError, InvalidRequest, KeyholeError, PolicyDenied
from keyhole.repo.names import one_line

_MOST = 100
_REFUSED = re.compile(r"\[remote rejected\] \((.*)\)")
_RACED = re.compile("failed to update ref|cannot lock ref|incorrect old value|fetch first|non-fast-forward")
_WRITTEN = (
    "HEAD",
    "FETCH_HEAD",
    "ORIG_HEAD",
    "index",
    "packed-refs",
    "config",
    "refs",
    "logs",
    "objects",
    "info",
    "shallow",
)


class Runs(Protocol):
    """What is wanted of ``Git``."""

    root: Path

    def run(self, *arguments: str, data: bytes = b"") -> bytes:
        """What git prints."""


def reason(said: bytes) -> str:
    """Why git has failed, in its own words; advice that comes after the reason is left out."""
    lines = said.decode(errors="replace").strip().splitlines()
    return ([line for line in lines if line.startswith("fatal:")] or lines or [""])[-1][:300]


def require_none(folder: Path) -> None:
    """Raises ``InvalidRequest`` where git finds no repository around a folder, and something of that kind is there."""
    for each in (folder, *folder.parents):
        if os.path.lexists(each / ".git"):
            raise InvalidRequest(f"git cannot read the repository in {each}", "see git status there; clone it afresh")


def leads_out(top: Path, inside: Path) -> str:
    """Why what is done here could land in another repository or file; empty where it cannot.

    Args:
        top: the work tree that git has found.
        inside: the folder of the repository that git has found.
    """
    entry = top / ".git"
    if entry.is_symlink() or _said(entry) != inside.resolve():
        return ".git"
    if entry.is_file() and inside.name == ".git" and not _knows(inside, entry):
        return ".git"
    common = inside
    with contextlib.suppress(OSError):
        common = (inside / (inside / "commondir").read_text()[:4096].strip()).resolve()
    return next((str(path.relative_to(folder)) for folder in {inside, common} for path in _links(folder)), "")


def _said(entry: Path) -> Path | None:
    """Where a work tree says that its repository lies."""
    if entry.is_dir():
        return entry.resolve()
    with contextlib.suppress(OSError, ValueError):
        return (entry.parent / entry.read_text()[:4096].removeprefix("gitdir: ").strip()).resolve()
    return None


def _knows(inside: Path, entry: Path) -> bool:
    """Whether a repository names a work tree as one of its own."""
    with contextlib.suppress(OSError, ValueError):
        return Path((inside / "gitdir").read_text()[:4096].strip()).resolve() == entry.resolve()
    return False


def _links(folder: Path) -> Iterator[Path]:
    """Symbolic links where git writes: it would write through most of them."""
    for path in [*(folder / name for name in _WRITTEN), *folder.glob("objects/*")]:
        if path.is_symlink():
            yield path
    for name in ("refs", "logs"):
        for place, folders, files in os.walk(folder / name):
            yield from (path for each in (*folders, *files) if (path := Path(place) / each).is_symlink())


def not_pushed(printed: bytes, failed: KeyholeError) -> KeyholeError:
    """Why a push has failed.

    Args:
        printed: by ``push --porcelain``.
        failed: what is known besides.
    """
    text = printed.decode(errors="replace")
    said = _REFUSED.search(text)
    if said is not None and not _RACED.search(said[1]):
        return PolicyDenied(
            f"the remote refuses the push: {one_line(said[1])[:200]}",
            "ask who runs it; the branch may be protected",
        )
    if "rejected" in text or "rejected" in failed.reason:
        return Conflict("the remote has more than this clone", "keyhole repo pull, then push again")
    return failed


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
                found[path] = f"0 {'0' * len(blob)}"
        elif file.is_file() and not file.is_symlink() and _blob(git, file) == blob:
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


def removals(paths: Iterable[str], commit: str) -> Iterator[str]:
    """Lines of ``update-index --index-info`` that take files out; a commit says how long ids are in this repository."""
    none = "0" * (len(commit) or 40)
    return (f"0 {none}\t{path}\0" for path in paths)


def size_in(head: bytes, blob: str) -> int:
    """The size in a line of ``cat-file --batch``, in bytes. Raises ``IntegrityError`` for an object that is missing."""
    words = head.split(b" ")
    if len(words) != 3:
        raise IntegrityError(f"the repository lacks the object {blob}", "see git fsck, or clone it afresh")
    return int(words[2])


def _blob(git: Runs, file: Path) -> str:
    with contextlib.suppress(InvalidRequest):
        return git.run("hash-object", "--no-filters", "--", str(file)).decode().strip()
    return ""

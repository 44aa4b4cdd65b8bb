"""Which files of a vault two commits do not have alike."""

from __future__ import annotations

from pathlib import Path

from keyhole.remotes.git import Git
from keyhole.repo.reviewing import Touched
from keyhole.repo.tree import VAULT

_PLAIN = {"100644", "100755"}


def touched_below(git: Git, root: Path, before: str, after: str) -> list[Touched]:
    """As ``touched_by``, for the vault of a folder."""
    prefix = root.relative_to(git.root).as_posix()
    return touched_by(git, VAULT if prefix == "." else f"{prefix}/{VAULT}", before, after)


def touched_by(git: Git, base: str, before: str, after: str) -> list[Touched]:
    """Files below ``base`` that are not alike in two commits; ``before`` may be empty for nothing."""
    start = before or git.run("hash-object", "-t", "tree", "--stdin").decode().strip()
    words = ("diff-tree", "-r", "--raw", "--no-abbrev", "--no-renames", "-z", start, after)
    listed = git.run(*words, "--", f":(top,literal){base}").decode(errors="replace").split("\0")
    found = []
    for about, path in zip(listed[0::2], listed[1::2], strict=False):
        _, mode, _, blob, _ = about.split(" ")
        found.append(Touched(path.removeprefix(f"{base}/"), mode in _PLAIN, not blob.strip("0")))
    return found

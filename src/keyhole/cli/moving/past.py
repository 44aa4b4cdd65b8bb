"""Which values stand in the history of a file: a secret that was committed in clear is not one any more.

Git is asked for the versions of the file, and they are searched here: no value is ever an argument of a program.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from keyhole.core.errors import KeyholeError
from keyhole.importers import Found
from keyhole.remotes.git import Git

_MOST_VERSIONS = 500
_MOST_BYTES = 64 * 1024 * 1024
_SHORTEST = 6  # bytes; a shorter value stands in many files by chance
_SECONDS = 20.0


def committed(path: Path, found: Sequence[Found]) -> frozenset[str]:
    """The names of those whose values stand, in clear, in a version of this file that was committed."""
    resolved = path.resolve()
    try:
        git = Git.find(resolved.parent, os.environ)
        versions = [] if git is None else _versions(git, resolved)
    except KeyholeError:
        return frozenset()  # no git, or no history that it can read
    seen = set[str]()
    for version in versions:
        seen |= {each.name for each in found if each.name not in seen and _stands(each, version)}
    return frozenset(seen)


def _stands(found: Found, content: bytes) -> bool:
    values = (value.reveal() for value in found.fields.values())
    return any(len(value) >= _SHORTEST and value in content for value in values)


def _versions(git: Git, path: Path) -> list[bytes]:
    """Every version of a file, each once."""
    name = path.relative_to(git.root.resolve()).as_posix()
    words = ("log", "--all", "--raw", "--no-abbrev", "--no-renames", "--format=", f"--max-count={_MOST_VERSIONS}")
    raw = git.run(*words, "-z", "--", f":(top,literal){name}", timeout=_SECONDS).decode(errors="replace")
    ids = [columns[3] for each in raw.split("\0") if len(columns := each.split()) >= 5 and each.startswith(":")]
    blobs = [each for each in dict.fromkeys(ids) if set(each) != {"0"}]
    if not blobs:
        return []
    sizes = git.run("cat-file", "--batch-check=%(objectsize)", data="\n".join(blobs).encode() + b"\n").split()
    kept, total = list[str](), 0
    for blob, size in zip(blobs, sizes, strict=False):
        total += int(size) if size.isdigit() else 0
        if total <= _MOST_BYTES:
            kept.append(blob)
    return [git.run("cat-file", "--batch=", data="\n".join(kept).encode() + b"\n", timeout=_SECONDS)]

"""All that was ever committed: every content that a branch, a tag or a stash leads to, once."""

from __future__ import annotations

from collections.abc import Iterator

from keyhole.sprawl.finding import LIMITS, Limits
from keyhole.sprawl.repository import Repository


def history(repository: Repository, notes: list[str], limits: Limits = LIMITS) -> Iterator[tuple[str, str, bytes]]:
    """Id, first path and content of every file that is reachable.

    Args:
        repository: whose.
        notes: takes what was not looked at whole.
        limits: of a file.
    """
    listed = repository.run("rev-list", "--objects", "--all", "--reflog").decode(errors="surrogateescape")
    named = dict[str, str]()
    for line in listed.splitlines():
        blob, _, path = line.partition(" ")
        if path:
            named.setdefault(blob, path)
    check = "".join(f"{blob}\n" for blob in named).encode()
    kinds = repository.run("cat-file", "--batch-check", data=check).decode().split("\n")
    blobs = [line.split(" ")[0] for line in kinds if " blob " in line]
    for blob, (data, size) in zip(blobs, repository.blobs(blobs, limits.file), strict=True):
        if size > limits.file:
            notes.append(f"{named[blob]} in {blob[:12]}: only the first {limits.file // 2**20} MiB were looked at")
        yield blob, named[blob], data


def commit_of(repository: Repository, blob: str) -> str:
    """The first commit that has a content: its id, short; empty where none is found."""
    words = ("log", "--all", "--reflog", "--reverse", "--format=%h", f"--find-object={blob}", "--no-textconv")
    return repository.run(*words, "--no-ext-diff").decode().partition("\n")[0]

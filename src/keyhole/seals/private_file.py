"""Files that the seals of the operator's own keys read: of their owner alone, and no longer than a key is."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from keyhole.core.errors import InvalidRequest, Sealed

_MAX_LINKS = 40  # as the kernel's own limit


def read_private(path: Path, what: str, wanted: str, limit: int) -> bytes:
    """The content of a file; one byte more than ``limit`` at most.

    Args:
        path: a link on the way has to be of this user or of root.
        what: the file is, for a person: ``key file``.
        wanted: what to do where it is no file at all.
        limit: bytes.

    Raises:
        Sealed: it is not there, or the medium does not give it.
        InvalidRequest: somebody else may read or replace it.
    """
    try:
        _refuse_foreign_links(path, what)
        # Opened without waiting: a named pipe in its place would block for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            _refuse_unsafe(path, what, wanted, os.fstat(descriptor))
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(limit + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Sealed(f"the {what} {path} cannot be read: {error.strerror}", "mount it, or name another seal") from None


def _trusted(owner: int) -> bool:
    return owner in (os.geteuid(), 0)


def _refuse_foreign_links(path: Path, what: str) -> None:
    """Who owns a link on the way chooses the key; so it has to be us or root."""
    for _ in range(_MAX_LINKS):
        status = path.lstat()
        if not stat.S_ISLNK(status.st_mode):
            return
        if not _trusted(status.st_uid):
            raise InvalidRequest(f"the link {path} belongs to somebody else", f"name the {what} itself")
        path = path.parent / path.readlink()
    raise InvalidRequest(f"the {what} {path} is behind too many links", f"name the {what} itself")


def _refuse_unsafe(path: Path, what: str, wanted: str, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise InvalidRequest(f"the {what} {path} is not a regular file", wanted)
    if not _trusted(status.st_uid):
        raise InvalidRequest(f"the {what} {path} belongs to somebody else", f"chown {os.geteuid()} {path}")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise InvalidRequest(
            f"the {what} {path} can be used by others than its owner",
            f"chmod 600 {path}; on Kubernetes set defaultMode: 0400; if it was readable before, make a new key",
        )

"""A shared folder as a remote: another disk, a network file system, a stick.

Objects are linked into place, so that one is there whole or not at all; the head is compared and replaced under a lock
of the file system (``flock``), which the kernel lets go when a process ends. Folders that a program copies between
machines (Dropbox, Syncthing) have no such lock between the machines: two pushes at once can cross there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from keyhole.core.errors import Conflict, IntegrityError, InvalidRequest, Unreachable
from keyhole.remotes import Found, check_name
from keyhole.repo.snapshots import is_digest

_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | _FLAGS
_MOST = 4_000_000  # objects
_MOST_HEAD = 64 * 1024 * 1024  # bytes of what is replaced
_WAIT = 30.0  # seconds for another push to end


class Folder:
    """Objects in ``objects/`` and the file ``head`` of one folder. No link in it is followed.

    Args:
        path: absolute; it is made by the first ``put``.
    """

    slow = False

    def __init__(self, path: Path) -> None:
        self.path = path

    def get(self, name: str, most: int) -> Found | None:
        """See ``Remote.get``."""
        folder, _, last = check_name(name).rpartition("/")
        try:
            with self._open(folder) as parent:
                return _read(last, parent, most)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failed(error) from None

    def list(self) -> list[str]:
        """See ``Remote.list``."""
        try:
            with self._open("objects") as parent:
                found = os.listdir(parent)  # noqa: PTH208 - of a descriptor
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._failed(error) from None
        if len(found) > _MOST:
            raise IntegrityError(f"{self.path} has more than {_MOST} objects", "this is no remote of ours")
        return sorted(name for name in found if is_digest(name))

    def put(self, name: str, data: bytes, expected: str = "") -> str:
        """See ``Remote.put``."""
        folder, _, last = check_name(name).rpartition("/")
        try:
            self.path.mkdir(exist_ok=True)
            with self._open("") as root:
                if folder:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(folder, dir_fd=root)
                with self._open(folder) as parent, _lock(root) if last == "head" else contextlib.nullcontext():
                    return _put(last, parent, data, expected)
        except OSError as error:
            raise self._failed(error) from None

    def close(self) -> None:
        """Nothing is held open."""

    @contextlib.contextmanager
    def _open(self, folder: str) -> Iterator[int]:
        root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            inner = os.open(folder, _FOLDER, dir_fd=root) if folder else os.dup(root)
        finally:
            os.close(root)
        try:
            yield inner
        finally:
            os.close(inner)

    def _failed(self, error: OSError) -> Exception:
        if error.errno in {errno.ELOOP, errno.EMLINK, errno.ENOTDIR}:
            return IntegrityError(f"something in {self.path} is a link or no folder", "remove it: it is none of ours")
        return Unreachable(f"{self.path}: {error.strerror}", "is it there, and may you read and write it?")


def _read(name: str, parent: int, most: int) -> Found:
    descriptor = os.open(name, os.O_RDONLY | _FLAGS, dir_fd=parent)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > most:
            raise IntegrityError(f"{name} of the remote is longer than {most} bytes, or no file", "take nothing of it")
        data = file.read(most + 1)
    if len(data) > most:
        raise IntegrityError(f"{name} of the remote is longer than {most} bytes", "take nothing of it")
    return Found(data, hashlib.sha256(data).hexdigest())


def _put(name: str, parent: int, data: bytes, expected: str) -> str:
    if _tag(name, parent, known=not expected) != expected:
        raise Conflict("somebody changed it meanwhile", "fetch again")
    fresh = f".{secrets.token_hex(12)}"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o666, dir_fd=parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        if expected or not _linked(fresh, name, parent):
            os.rename(fresh, name, src_dir_fd=parent, dst_dir_fd=parent)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh, dir_fd=parent)
    os.fsync(parent)
    return hashlib.sha256(data).hexdigest()


def _tag(name: str, parent: int, *, known: bool) -> str:
    """The tag of what lies there, empty for nothing; where that is all that counts, nothing is read."""
    try:
        if known:
            os.stat(name, dir_fd=parent, follow_symlinks=False)
            return "something"
        return _read(name, parent, _MOST_HEAD).tag
    except FileNotFoundError:
        return ""


def _linked(fresh: str, name: str, parent: int) -> bool:
    """Give it its name if nothing has that; false where the file system has no links."""
    try:
        os.link(fresh, name, src_dir_fd=parent, dst_dir_fd=parent, follow_symlinks=False)
    except FileExistsError:
        raise Conflict("it is there already", "fetch again") from None
    except OSError as error:
        if error.errno in {errno.EPERM, errno.ENOTSUP, errno.ENOSYS}:
            return False
        raise
    return True


@contextlib.contextmanager
def _lock(root: int) -> Iterator[None]:
    descriptor = os.open("lock", os.O_RDWR | os.O_CREAT | _FLAGS, 0o666, dir_fd=root)
    try:
        until = time.monotonic() + _WAIT
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise Unreachable("another push holds the lock of the remote", "try again") from None
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def make(where: str) -> Folder:
    """The remote at a path. Raises ``InvalidRequest``."""
    path = Path(where)
    if not path.is_absolute():
        raise InvalidRequest("a folder is named by its absolute path", "such as /mnt/team/vault")
    return Folder(path)

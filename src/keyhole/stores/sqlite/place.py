"""The file: whose it may be, how it comes to be, and how a connection to it is set up.

1. File 0600 and new folders 0700 whatever the umask, from the first byte.
2. A file or folder of another user, one that others can write, and a symbolic link are refused.
3. A file that is not ours is neither changed nor replaced. Ours appears at its name complete or not at all.
4. The file is never opened and closed by anything but SQLite while this process has it open: closing any descriptor
   of a file drops all POSIX locks that the process holds on it (https://sqlite.org/howtocorrupt.html, 2.2).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from keyhole.core.errors import Conflict, InvalidRequest, NotFound, StoreUnavailable
from keyhole.stores.sqlite import schema
from keyhole.stores.sqlite.faults import FAULTS, translate

Identity = tuple[int, int]
"""Device and inode: which file it is, whatever its name."""

BUSY_MS = 5000
"""How long a writer waits for another process, in milliseconds."""

READ_BUSY_MS = 1000
"""How long a read waits. Readers do not wait for writers; only for another process that recovers after a crash."""

_CACHE_KIB = 16 * 1024
_WAL_LIMIT = 16 * 1024 * 1024
_MAGIC = b"SQLite format 3\0"
_STALE_SECONDS = 60
_COMPANIONS = ("-wal", "-journal")

_lock = threading.Lock()
_opened: Counter[Identity] = Counter()
_inherited: set[Identity] = set()


def _after_fork() -> None:
    global _lock  # noqa: PLW0603 - a lock that a thread of the parent held would stay locked for ever
    _lock = threading.Lock()
    _inherited.update(_opened)
    _opened.clear()


os.register_at_fork(after_in_child=_after_fork)


def locate(rest: str) -> Path:
    """The absolute path that the location names; nothing is touched.

    Raises:
        InvalidRequest: no path, or one that SQLite would take for something else than a file.
    """
    if not rest or rest.startswith(":") or "\0" in rest:
        raise InvalidRequest("sqlite: needs the path of a file", "for example sqlite:/var/lib/keyhole/vault.db")
    path = Path(os.path.normpath(Path(rest).absolute()))
    if not path.name:
        raise InvalidRequest(f"{path} is a folder, and sqlite: needs the path of a file", "sqlite:/FOLDER/vault.db")
    return path


def identity(path: Path) -> Identity:
    """Which file has this name now.

    Raises:
        StoreUnavailable: none, or it cannot be looked at.
    """
    try:
        status = os.lstat(path)
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be reached: {error.strerror}", "check the disk and the folder") from None
    return status.st_dev, status.st_ino


def named(path: Path) -> Identity | None:
    """As ``identity``; ``None`` where nothing can be seen."""
    try:
        return identity(path)
    except StoreUnavailable:
        return None


def log_of(path: Path) -> Path:
    """The write-ahead log of a file, which is there as long as somebody has it open."""
    return path.with_name(f"{path.name}-wal")


def prepare(path: Path, *, create: bool) -> None:
    """Make sure that a store of ours lies at ``path`` in a safe place.

    Raises:
        NotFound: there is none and ``create`` is false.
        StoreUnavailable: the place is unsafe or the file is not ours.
    """
    if create:
        _make_folder(path.parent)
    _check_folder(path.parent)
    if not os.path.lexists(path):
        if not create:
            raise NotFound(f"there is no store at {path}", "make a vault: keyhole init")
        _create(path, _fill)
    _check_file(path)


def install(path: Path, fill: Callable[[Path], None]) -> None:
    """Make the store at ``path``, where there is none, of what ``fill`` writes into a file.

    Raises:
        Conflict: there is something of that name.
        StoreUnavailable: the place is unsafe, or cannot be written.
    """
    _make_folder(path.parent)
    _check_folder(path.parent)
    if os.path.lexists(path) or not _create(path, fill):
        raise Conflict(f"there is a store at {path} already", "move it away, or name another place with --vault")


def reserve(path: Path) -> None:
    """Make an empty file of mode 0600 where nothing is. Raises ``OSError``."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))


@contextlib.contextmanager
def admitted(path: Path) -> Iterator[Identity]:
    """Around the opening of connections: checks the file's header once and counts the file as open in this process.

    Raises:
        StoreUnavailable: the file is not a store of ours, or was open in the process that this one was forked from.
    """
    with _lock:
        which = identity(path)
        if which in _inherited:
            raise forked()
        if which not in _opened:
            check_header(path)
        _opened[which] += 1
    try:
        yield which
    except BaseException:
        release(which)
        raise


def release(which: Identity) -> None:
    """Count one opening less."""
    with _lock:
        _opened[which] -= 1
        if _opened[which] <= 0:
            del _opened[which]


def forked() -> StoreUnavailable:
    """The refusal to a process that inherited an open store: SQLite's locks do not cross ``fork``."""
    return StoreUnavailable(
        "the store was opened before this process was forked",
        "open it after the fork, or start workers as new programs",
    )


def connect(path: Path, *, writer: bool) -> sqlite3.Connection:
    """A connection in autocommit mode. The file must exist.

    Raises:
        sqlite3.Error: as SQLite reports it.
    """
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode=rw", uri=True, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    try:
        for pragma in (
            f"busy_timeout = {BUSY_MS if writer else READ_BUSY_MS}",
            "trusted_schema = OFF",
            "cell_size_check = ON",
            "secure_delete = ON",
            "temp_store = MEMORY",
            "mmap_size = 0",
            f"cache_size = -{_CACHE_KIB}",
            "synchronous = FULL",
            "fullfsync = ON",
            "checkpoint_fullfsync = ON",
            f"journal_size_limit = {_WAL_LIMIT}",
            f"query_only = {'OFF' if writer else 'ON'}",
        ):
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def _make_folder(folder: Path) -> None:
    missing = []
    while not os.path.lexists(folder):
        missing.append(folder)
        folder = folder.parent
    try:
        for part in reversed(missing):
            part.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StoreUnavailable(f"{missing[0]} cannot be made: {error.strerror}", "choose another folder") from None


def _check_folder(folder: Path) -> None:
    try:
        status = folder.lstat()
    except FileNotFoundError:
        raise NotFound(
            f"there is no folder {folder}", "make a vault: keyhole init, or with a first key: keyhole add NAME"
        ) from None
    except OSError as error:
        raise StoreUnavailable(f"{folder} cannot be reached: {error.strerror}", "check the path") from None
    if stat.S_ISLNK(status.st_mode):
        raise StoreUnavailable(f"{folder} is a symbolic link", f"name the real folder, {folder.resolve()}")
    if not stat.S_ISDIR(status.st_mode):
        raise StoreUnavailable(f"{folder} is not a folder", "name a file inside a folder")
    if status.st_uid not in {os.geteuid(), 0}:
        raise StoreUnavailable(f"{folder} belongs to another user", "keep the store in a folder of your own")
    if status.st_mode & 0o022:
        raise StoreUnavailable(f"others can write to {folder}", f"chmod go-w {folder}, or choose another folder")
    # SQLite would only say that it cannot open the file. Windows has no statvfs and says it at the first write.
    if hasattr(os, "statvfs") and os.statvfs(folder).f_flag & os.ST_RDONLY:
        raise StoreUnavailable(
            f"the file system of {folder} is mounted read-only",
            "mount it for writing; nothing is released without a record in the store",
        )


def _check_file(path: Path) -> None:
    try:
        status = path.lstat()
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be reached: {error.strerror}", "check the path") from None
    if not stat.S_ISREG(status.st_mode):
        raise StoreUnavailable(f"{path} is not a plain file", "name the file itself, not a link to it")
    if status.st_uid != os.geteuid():
        raise StoreUnavailable(f"{path} belongs to another user", "run as its owner")
    if status.st_mode & 0o022:
        raise StoreUnavailable(f"others can write to {path}", "chmod 600 it once you trust its content")
    if status.st_mode & 0o077:
        path.chmod(0o600)
    if status.st_nlink > 1:
        _sweep(path)


def check_header(path: Path) -> None:
    """Raises ``StoreUnavailable`` for a file that is not a store of ours. Not for one that this process has open."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            header = os.pread(descriptor, 100, 0)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be read: {error.strerror}", "check its owner and mode") from None
    if not header.startswith(_MAGIC) or int.from_bytes(header[68:72], "big") != schema.APPLICATION_ID:
        raise StoreUnavailable(f"{path} is not a Keyhole store", "name another file; this one was not touched")


def _create(path: Path, fill: Callable[[Path], None]) -> bool:
    """Whether the store that is there now is the one that was filled."""
    for rest in (path.with_name(path.name + end) for end in _COMPANIONS):
        if os.path.lexists(rest) and not os.path.lexists(path):  # SQLite would write its pages into the new store
            raise StoreUnavailable(f"{rest} is left of a store that is gone", "move it away, or the store back")
    made = True
    # Built under another name and linked into place: a link fails where the name is taken, also by a racing process.
    draft = path.with_name(f".{path.name}.{os.urandom(8).hex()}.new")
    try:
        reserve(draft)
        try:
            fill(draft)
            try:
                os.link(draft, path)
            except FileExistsError:
                made = False
        finally:
            draft.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise StoreUnavailable(
            f"{path} cannot be made: {error.strerror}", "choose a local disk that you can write"
        ) from None
    _sweep(path)
    return made


def _fill(draft: Path) -> None:
    try:
        connection = connect(draft, writer=True)
        try:
            connection.execute(f"PRAGMA application_id = {schema.APPLICATION_ID}")
            schema.migrate(connection)
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        finally:
            connection.close()
    except FAULTS as error:
        raise translate(error) from None
    if mode != "wal":
        raise StoreUnavailable(
            "the file system cannot share memory between processes", "keep the store on a local disk"
        )


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises ``OSError``."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(path: Path) -> None:
    """Remove the drafts of creators that were killed: second names of the store, and old ones that never became it."""
    import glob  # noqa: PLC0415  # only where a store was made

    which = identity(path)
    for draft in path.parent.glob(f".{glob.escape(path.name)}.*.new*"):
        with contextlib.suppress(OSError):
            status = draft.lstat()
            if (status.st_dev, status.st_ino) == which or status.st_mtime < time.time() - _STALE_SECONDS:
                draft.unlink()

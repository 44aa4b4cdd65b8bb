"""The files of a repo vault: read without following a link, and changed all together or not at all.

A change is written beside the vault first, into ``.agent-vault/.local/`` (which is never shared), and becomes true when
its plan is renamed into place. Whatever stops it after that, the next command that takes the lock carries it out; what
was stopped before leaves the vault as it was. Nothing that is written here is in clear.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from keyhole.core.errors import Conflict, IntegrityError, InvalidRequest, NotFound

VAULT = ".agent-vault"
LOCAL = ".local"
_MARKS = ("config.yaml", "manifest.yaml", ".x")
_PLAN = "plan.json"
_PENDING = "pending"
_NUMBER = re.compile(r"[0-9]{1,9}")
_MAX_MESSAGE = 1000  # characters
_MAX_FILE = 32 * 1024 * 1024  # bytes
_MAX_FILES = 200_000
_WAIT = 30.0  # seconds for another command to end
_held: set[Path] = set()
"""Vaults that this process has locked."""
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Change:
    """What one command changes.

    Attributes:
        message: for people, without a value; the commit is named by it.
        files: path below the vault to the new bytes; ``None`` removes the file.
        due: secrets whose values have to be changed at the source because of it.
        keys: agents who need a new key because of it.
    """

    message: str
    files: Mapping[str, bytes | None] = field(default_factory=dict)
    due: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()


class Files(Protocol):
    """The files of a vault at one moment: in a folder, in a commit."""

    def read(self, path: str) -> bytes | None:
        """The bytes of a file; ``None`` when it is not there. Raises ``IntegrityError`` for what is no plain file."""

    def require(self, path: str) -> bytes:
        """The bytes of a file. Raises ``IntegrityError`` when it is not there."""

    def names(self, folder: str) -> list[str]:
        """Names in a folder, sorted; empty when it is not there."""

    def files(self, folder: str, suffix: str) -> list[str]:
        """``group/name`` of the files two levels below a folder that end in a suffix."""

    def paths(self) -> list[str]:
        """All files but those of this machine alone, sorted. Raises ``IntegrityError`` for what is no plain file."""


class Reading(ABC):
    """What follows from ``read`` and ``names``."""

    @abstractmethod
    def read(self, path: str) -> bytes | None:
        """See ``Files.read``."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """See ``Files.names``."""

    @abstractmethod
    def paths(self) -> list[str]:
        """See ``Files.paths``."""

    def require(self, path: str) -> bytes:
        """See ``Files.require``."""
        data = self.read(path)
        if data is None:
            raise IntegrityError(f"{VAULT}/{path} is missing", "restore it from its history")
        return data

    def files(self, folder: str, suffix: str) -> list[str]:
        """See ``Files.files``."""
        return [
            f"{group}/{name.removesuffix(suffix)}"
            for group in self.names(folder)
            if not group.startswith(".")
            for name in self.names(f"{folder}/{group}")
            if name.endswith(suffix) and not name.startswith(".")
        ]


class Tree(Reading):
    """The folder of one vault.

    Args:
        root: the folder that has ``.agent-vault``, such as the work tree of a git repository.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.vault = root / VAULT

    def exists(self) -> bool:
        """Whether there is a vault. A folder of that name in a person's home keeps keys, and is none."""
        if not self.vault.is_dir() or self.vault.is_symlink():
            return False
        return any(os.path.lexists(self.vault / name) for name in _MARKS)

    def read(self, path: str) -> bytes | None:
        """The bytes of a file; ``None`` when it is not there.

        Raises:
            IntegrityError: a link, a folder or something else stands there, or it is too long.
        """
        try:
            descriptor = self._open(path.split("/"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.EMLINK}:
                raise _no_file(path) from None
            raise InvalidRequest(f"{path} cannot be read: {error.strerror}", "see the rights of the folder") from None
        try:
            if not stat.S_ISREG((status := os.fstat(descriptor)).st_mode) or status.st_size > _MAX_FILE:
                raise _no_file(path)
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(_MAX_FILE + 1)
        finally:
            os.close(descriptor)

    def names(self, folder: str) -> list[str]:
        """Names in a folder, sorted; empty when it is not there. Raises ``IntegrityError`` for a link."""
        try:
            descriptor = self._open(folder.split("/"), os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            return []
        except OSError:
            raise _no_file(folder) from None
        try:
            found = os.listdir(descriptor)  # noqa: PTH208 - of a descriptor
        finally:
            os.close(descriptor)
        if len(found) > _MAX_FILES:
            raise IntegrityError(f"{VAULT}/{folder} has more than {_MAX_FILES} files", "this is no vault of ours")
        return sorted(found)

    def paths(self) -> list[str]:
        """All files but those of this machine alone, sorted. Raises ``IntegrityError`` for what is no plain file."""
        found: list[str] = []
        for folder, folders, files, descriptor in os.fwalk(self.vault, onerror=_raise, follow_symlinks=False):
            below = Path(folder).relative_to(self.vault)
            folders[:] = [name for name in folders if below != Path() or name != LOCAL]
            for name in (*folders, *files):
                mode = os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode
                if not (stat.S_ISDIR(mode) if name in folders else stat.S_ISREG(mode)):
                    raise _no_file((below / name).as_posix())
            found += [(below / name).as_posix() for name in files]
            if len(found) > _MAX_FILES:
                raise IntegrityError(f"{VAULT} has more than {_MAX_FILES} files", "this is no vault of ours")
        return sorted(found)

    def _open(self, parts: list[str], flags: int = os.O_RDONLY) -> int:
        """A descriptor, opened folder by folder, so that no link is followed on the way."""
        folder = os.open(self.vault, os.O_RDONLY | os.O_DIRECTORY | _FLAGS)
        try:
            for part in parts[:-1]:
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | _FLAGS, dir_fd=folder)
                os.close(folder)
                folder = below
            return os.open(parts[-1], flags | _FLAGS, dir_fd=folder)
        finally:
            os.close(folder)

    @contextlib.contextmanager
    def lock(self, *, make: bool = False) -> Iterator[None]:
        """Keep other commands of this machine out; what an earlier one left is carried out first.

        Args:
            make: there need be no vault yet.

        Raises:
            NotFound: there is no vault.
            Conflict, PermissionError: another command holds it for too long; nothing may be written there.
        """
        if make:
            self.vault.mkdir(exist_ok=True)
        elif not self.vault.is_dir() or self.vault.is_symlink():
            raise NotFound(f"there is no vault in {self.root}", "keyhole repo init")
        try:
            descriptor = os.open(self._local() / "lock", os.O_RDWR | os.O_CREAT | _FLAGS, 0o600)
        except OSError as error:
            if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
                raise PermissionError(error.errno, error.strerror, error.filename) from None
            raise _no_file(f"{LOCAL}/lock") from None
        try:
            _take(descriptor)
            _held.add(self.vault)
            self._recover()
            yield
        finally:
            _held.discard(self.vault)
            os.close(descriptor)

    def is_planned(self) -> bool:
        """Whether a change is on its way that will be carried out, by whichever command."""
        return os.path.lexists(self.vault / LOCAL / _PLAN)

    def settle(self) -> None:
        """Carry out what a command that was ended had planned, so that nothing half done is read."""
        if self.is_planned():
            self.wait()

    def wait(self) -> None:
        """Let a command end that is changing the vault, or carry out what it has left."""
        if self.vault not in _held:
            with contextlib.suppress(PermissionError), self.lock():
                pass

    def apply(self, change: Change) -> None:
        """Carry a change out; the lock is held. Call ``finish`` once it is committed where it is shared."""
        local = self._local()
        pending = local / _PENDING
        pending.mkdir(mode=0o700, exist_ok=True)
        moves: list[tuple[str, str]] = []
        for number, (path, data) in enumerate(change.files.items()):
            _require_inside(path)
            if data is not None:
                _write(pending / str(number), data)
            moves.append((path, str(number) if data is not None else ""))
        sync_folder(pending)
        _write(local / "plan.new", json.dumps({"message": change.message, "moves": moves}).encode())
        (local / "plan.new").rename(local / _PLAN)
        sync_folder(local)
        self._move(moves)

    def finish(self) -> None:
        """Forget the plan of a change that is where it has to be."""
        local = self._local()
        (local / _PLAN).unlink(missing_ok=True)
        sync_folder(local)

    def left(self) -> Change | None:
        """A change that was carried out here and not finished, such as by a command that was ended before its commit.

        Raises:
            IntegrityError: its plan cannot be read, or is of something that no command plans.
        """
        plan = self._plan()
        return None if plan is None else Change(plan[0], {path: self.read(path) for path, _ in plan[1]})

    def discard(self) -> list[str]:
        """Put a plan aside that cannot be carried out, with what it would have moved; returns the names of both.

        The files stay as they are.
        """
        local = self._local()
        aside = local / f"aside-{time.time_ns()}"
        aside.mkdir(mode=0o700)
        found = [name for name in (_PLAN, _PENDING) if os.path.lexists(local / name)]
        for name in found:
            (local / name).rename(aside / name)
        sync_folder(local)
        return [f"{VAULT}/{LOCAL}/{name}" for name in found]

    def _plan(self) -> tuple[str, list[tuple[str, str]]] | None:
        """The message of the plan, and its moves: to which file, and from which pending one.

        Whoever gave us the folder may have written it, so it moves nothing but pending files, and only into the vault.
        """
        data = self.read(f"{LOCAL}/{_PLAN}")
        if data is None:
            return None
        try:
            plan = json.loads(data)
            moves = [(str(path), str(name)) for path, name in plan["moves"]]
            for path, name in moves:
                _require_inside(path)
                _require_pending(name)
            return str(plan["message"])[:_MAX_MESSAGE], moves
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InvalidRequest):
            where = f"{VAULT}/{LOCAL}/{_PLAN}"
            raise IntegrityError(f"{where} is no plan of a command", "keyhole operator fsck --repair") from None

    def _recover(self) -> None:
        """Carry out what was planned, and clear away what was not planned any more."""
        plan = self._plan()
        if plan is not None:
            self._move(plan[1])
            return
        with contextlib.suppress(FileNotFoundError):
            pending = self._folder([LOCAL, _PENDING])
            try:
                for name in filter(_NUMBER.fullmatch, os.listdir(pending)):  # noqa: PTH208 - of a descriptor
                    if _is_there(pending, name):
                        os.unlink(name, dir_fd=pending)
            finally:
                os.close(pending)

    def _move(self, moves: list[tuple[str, str]]) -> None:
        """Put pending files in their places, and take others away. Doing it again changes nothing more."""
        pending = self._folder([LOCAL, _PENDING], make=True)
        try:
            for path, name in moves:
                _require_inside(path)
                self._put(pending, path, name)
        finally:
            os.close(pending)

    def _put(self, pending: int, path: str, name: str) -> None:
        *folders, last = path.split("/")
        if name and not _is_there(pending, name):
            return
        try:
            folder = self._folder(folders, make=bool(name))
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            if name:
                os.rename(name, last, src_dir_fd=pending, dst_dir_fd=folder)
            else:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(last, dir_fd=folder)
            os.fsync(folder)
        except IsADirectoryError:
            raise _no_file(path) from None
        finally:
            os.close(folder)
        if not name:
            self._clear(folders)

    def _folder(self, parts: list[str], *, make: bool = False) -> int:
        """A descriptor of a folder of the vault. Raises ``IntegrityError`` where a link leads out of it."""
        folder = os.open(self.vault, os.O_RDONLY | os.O_DIRECTORY | _FLAGS)
        for number, part in enumerate(parts, 1):
            try:
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, 0o755, dir_fd=folder)
                        os.fsync(folder)
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | _FLAGS, dir_fd=folder)
            except OSError as error:
                if isinstance(error, FileNotFoundError) and not make:
                    raise
                raise _no_file("/".join(parts[:number])) from None
            finally:
                os.close(folder)
            folder = below
        return folder

    def _clear(self, parts: list[str]) -> None:
        """Remove a folder that has become empty, and those above it."""
        while parts:
            *parts, last = parts
            with contextlib.suppress(FileNotFoundError, IntegrityError):
                folder = self._folder(parts)
                try:
                    os.rmdir(last, dir_fd=folder)
                except OSError:
                    return
                finally:
                    os.close(folder)

    def _local(self) -> Path:
        """The folder of this machine alone; git and other stores are told to pass it over."""
        local = self.vault / LOCAL
        if local.is_symlink():
            raise _no_file(LOCAL)
        local.mkdir(mode=0o700, exist_ok=True)
        if not (local / ".gitignore").exists():
            _write(local / f"ignore.{os.getpid()}", b"*\n")
            (local / f"ignore.{os.getpid()}").rename(local / ".gitignore")
        return local


def _raise(error: OSError) -> None:
    """A folder that cannot be read is not an empty one."""
    raise InvalidRequest(f"{error.filename} cannot be read: {error.strerror}", "see the rights of the folder")


def _take(descriptor: int) -> None:
    until = time.monotonic() + _WAIT
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= until:
                raise Conflict(
                    "another command is changing this vault", "wait for it, or end it; then: keyhole operator fsck"
                ) from None
            time.sleep(0.05)
        else:
            return


def _is_there(folder: int, name: str) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    return False


def _write(path: Path, data: bytes) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _require_inside(path: str) -> None:
    parts = path.split("/")
    if not all(parts) or any(part in {".", "..", LOCAL, ".git"} for part in parts):
        raise InvalidRequest(f"{path[:80]!r} is no file of a vault")


def _require_pending(name: str) -> None:
    if name and not _NUMBER.fullmatch(name):
        raise InvalidRequest(f"{name[:80]!r} is no pending file")


def _no_file(path: str) -> IntegrityError:
    return IntegrityError(f"{VAULT}/{path} is not a plain file or folder", "somebody put something there: remove it")

"""Placeholders in place of values in a file, with an encrypted copy of the original in the vault, and the way back.

The order is what makes it safe: the copy is durable in the vault, then the new content, which holds placeholders
only, is durable beside the file, then it takes the file's place in one step (rename(2)). Whenever it is cut short, the
file is the old one or the new one, and the old one is in the vault before it can be gone.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import platform
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from keyhole.cli.base import Session
from keyhole.cli.import_sources import Source, read_file
from keyhole.cli.import_store import IN_VAULT, Outcome
from keyhole.core.errors import Conflict, IntegrityError, InvalidRequest, KeyholeError, NotFound
from keyhole.core.path import parse_path
from keyhole.importers import Spot, rewritten
from keyhole.importers.collect import segment

FOLDER = "backup"
_CHUNK = 1 << 20  # characters of base64; far below what one text of a request may be
_ATTEMPTS = 100


@dataclass(frozen=True, slots=True)
class Replaced:
    """A file that has placeholders now.

    Attributes:
        path: of the file.
        backup: name of the copy.
        names: of the secrets that are out of the file.
        stay: name to reason, for those whose value is still in it.
        by_run: name to variables, for those that ``run`` has to give: a request is searched for the placeholder, and
            each session has its own.
    """

    path: str
    backup: str
    names: list[str]
    stay: dict[str, str]
    by_run: dict[str, list[str]]

    def as_data(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "path": self.path,
            "backup": self.backup,
            "replaced": self.names,
            "stay": self.stay,
            "by_run": self.by_run,
        }


def replace_values(session: Session, source: Source, outcomes: list[Outcome]) -> Replaced | None:
    """Put placeholders into a file for all that the vault has now; ``None`` where there is nothing to replace.

    Raises:
        InvalidRequest: the file is a link, or somebody else's.
        Conflict: it has changed since it was read.
        KeyholeError: the copy cannot be stored, or the file cannot be written.
    """
    path, status = source.path, source.status
    stay, changes, names = dict[str, str](), list[tuple[Spot, str]](), list[str]()
    for outcome in outcomes:
        found = outcome.proposal.found
        if outcome.state not in IN_VAULT:
            stay[outcome.name] = "it is not in the vault"
        elif found.stays:
            stay[outcome.name] = found.stays
        else:
            names.append(outcome.name)
            changes += [(spot, outcome.placeholder(spot.field)) for spot in outcome.proposal.spots]
    if not changes or path is None or status is None:
        return None
    _require_own(path, status)
    content = rewritten(source.content, changes)
    for outcome in outcomes:
        if outcome.name in names and _holds(content, outcome):
            stay[outcome.name] = "it stands in another place of the file too"
    backup = _keep(session, path, source.content, status, content)
    _put(path, content, status)
    by_run = {o.name: o.variables for o in outcomes if o.name in names and o.searched}
    return Replaced(source.label, backup, names, stay, by_run)


def _require_own(path: Path, status: os.stat_result) -> None:
    if path.is_symlink():
        raise InvalidRequest(f"{path} is a link, and links are not followed here", f"name the file: {path.resolve()}")
    if os.name == "posix" and status.st_uid != os.geteuid() and os.geteuid() != 0:
        raise InvalidRequest(f"{path} belongs to somebody else", "let its owner do it")
    if status.st_nlink > 1:
        raise InvalidRequest(
            f"{path} has another name besides (a hard link), which would keep the values", "remove that name first"
        )


def _holds(content: bytes, outcome: Outcome) -> bool:
    """Is one of the values in the file after all?"""
    fields = {spot.field for spot in outcome.proposal.spots}
    return any(outcome.proposal.fields[name].reveal() in content for name in fields)


def _keep(session: Session, path: Path, content: bytes, status: os.stat_result, written: bytes) -> str:
    """Store a copy of a file in the vault, under a name that is not taken; the name."""
    encoded = base64.b64encode(content).decode()
    chunks = [encoded[start : start + _CHUNK] for start in range(0, len(encoded), _CHUNK)] or [""]
    data = {
        "path": str(path.absolute()),
        "host": platform.node(),
        "mode": f"{stat.S_IMODE(status.st_mode):o}",
        "sha256": hashlib.sha256(content).hexdigest(),
        "written": hashlib.sha256(written).hexdigest(),
        **{f"part-{number:04}": chunk for number, chunk in enumerate(chunks)},
    }
    begin = f"{segment(path.absolute().parent.name)}-{segment(path.name)}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    for attempt in range(_ATTEMPTS):
        name = parse_path(f"{FOLDER}/{begin}{f'-{attempt + 1}' if attempt else ''}")
        try:
            session.client.read(f"secret/metadata/{name}")
        except NotFound:
            session.client.write(f"secret/data/{name}", {"data": data, "options": {"type": "backup", "cas": 0}})
            return name
    raise Conflict("there are too many copies of this file already", f"keyhole list {FOLDER}")


def _put(path: Path, content: bytes, status: os.stat_result, mode: int | None = None) -> None:
    """Let new content take a file's place in one step, with owner, attributes and (unless said) mode of the old one.

    Raises:
        Conflict: the file is not the one any more that ``status`` describes.
        KeyholeError: it cannot be written; then the file is as it was.
    """
    fresh = path.with_name(f".{path.name}.keyhole-new")
    try:
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()  # left by one that was cut short
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                _dress(descriptor, path, status, stat.S_IMODE(status.st_mode) if mode is None else mode)
                os.fsync(descriptor)
            _require_same(path, status)
            fresh.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise
        _make_durable(path.absolute().parent)
    except OSError as error:
        raise KeyholeError(f"{path} cannot be replaced: {error.strerror}", "check its folder's permissions") from None


def _require_same(path: Path, status: os.stat_result) -> None:
    now = path.lstat()
    marks = ("st_dev", "st_ino", "st_size", "st_mtime_ns")
    if any(getattr(now, mark) != getattr(status, mark) for mark in marks):
        raise Conflict(f"{path} has changed since it was read", "do it again")


def _dress(descriptor: int, path: Path, status: os.stat_result, mode: int) -> None:
    """Owner, group, mode and extended attributes of the old file, or no new file at all."""
    if os.name != "posix":
        return
    mine = os.fstat(descriptor)
    if (mine.st_uid, mine.st_gid) != (status.st_uid, status.st_gid):
        os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, mode)
    if hasattr(os, "listxattr"):
        with contextlib.suppress(OSError):  # not every file system has them
            for name in os.listxattr(path):
                os.setxattr(descriptor, name, os.getxattr(path, name))


def _make_durable(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every system lets a folder be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Copy:
    """A file as the vault keeps it.

    Attributes:
        name: of the secret.
        path: where the file was.
        host: the machine where it was.
        mode: permission bits.
        content: of the file.
        sha256: of the content.
        written: digest of what took its place.
    """

    name: str
    path: Path
    host: str
    mode: int
    content: bytes
    sha256: str
    written: str

    def __repr__(self) -> str:
        return f"Copy({self.name!r}, {str(self.path)!r})"


def read_copy(session: Session, name: str) -> Copy:
    """Get a copy out of the vault; needs read on it.

    Raises:
        NotFound: there is none.
        InvalidRequest: that secret is no copy of a file.
        IntegrityError: it is not whole.
    """
    name = parse_path(name if name.startswith(f"{FOLDER}/") else f"{FOLDER}/{name}")
    answer = session.client.read(f"secret/data/{name}")
    data = answer.data.get("data")
    if not answer.found or not isinstance(data, dict):
        raise NotFound(f"the copy {name!r} is deleted", f"keyhole history {name}")
    try:
        parts = [data[key] for key in sorted(data) if key.startswith("part-")]
        content = base64.b64decode("".join(parts), validate=True)
        mode = int(data["mode"], 8) & 0o777
        copy = Copy(name, Path(data["path"]), data["host"], mode, content, data["sha256"], data["written"])
    except (KeyError, TypeError, ValueError):
        raise InvalidRequest(f"the secret {name!r} is no copy of a file", "keyhole import restore") from None
    if hashlib.sha256(content).hexdigest() != copy.sha256:
        raise IntegrityError(f"the copy {name!r} is not whole", f"keyhole history {name}")
    return copy


def put_back(copy: Copy, path: Path, *, over: bool) -> bool:
    """Write a copy to where it was, or elsewhere; false where it is there already.

    The values are in clear in the file again: that is what was asked for.

    Args:
        copy: what to write.
        path: where.
        over: although something else is there now.

    Raises:
        Conflict: something else is there.
        KeyholeError: it cannot be written.
    """
    if path.is_symlink():
        raise InvalidRequest(f"{path} is a link, and links are not followed here", f"--to {path.resolve()}")
    try:
        content, status = read_file(path)
    except NotFound:
        _create(path, copy)
        return True
    digest = hashlib.sha256(content).hexdigest()
    if digest == copy.sha256:
        return False
    if digest != copy.written and not over:
        raise Conflict(
            f"{path} has changed since its values were replaced", "add --replace, or write it elsewhere: --to FILE"
        )
    _put(path, copy.content, status, copy.mode)
    return True


def _create(path: Path, copy: Copy) -> None:
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(path, flags, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(copy.content)
            file.flush()
            if os.name == "posix":
                os.fchmod(descriptor, copy.mode)
            os.fsync(descriptor)
        _make_durable(path.absolute().parent)
    except OSError as error:
        raise KeyholeError(f"{path} cannot be written: {error.strerror}", "write it elsewhere: --to FILE") from None

"""A vault at one moment as objects that any store can keep: files, a listing for each folder, a snapshot, and one head.

An object is named by its SHA-256 and never changes. A listing names the files of one folder, a snapshot the listings of
all folders and the snapshot before it, and ``head`` names the snapshot that counts. So a push uploads what it changed,
and the head is the only thing that two can want to change at once. Nothing of this is believed: what a remote gives is
bounded, compared with its digest, and verified as a vault before a byte of it is used. Pure.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from keyhole.core.errors import IntegrityError, InvalidRequest
from keyhole.core.strict_json import JsonBounds, parse_object
from keyhole.repo.tree import LOCAL, VAULT, Reading, Tree

HEAD = "head"
OBJECTS = "objects"
_FORMAT = "keyhole repo"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_PART = re.compile(r"[A-Za-z0-9._-]{1,240}")
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com[0-9]|lpt[0-9])(?:\..*)?", re.IGNORECASE)
_PRIVATE = (b"AGE-SECRET-KEY-", b"PRIVATE KEY-----", b"AGE-PLUGIN-")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a vault from elsewhere may have.

    Attributes:
        file: bytes of one file.
        files: how many.
        total: bytes of all of them.
        document: bytes of a snapshot or a listing.
        head: bytes of the head.
        depth: parts of a path.
        steps: snapshots between two that are compared.
    """

    file: int = 32 * 1024 * 1024
    files: int = 200_000
    total: int = 1024 * 1024 * 1024
    document: int = 16 * 1024 * 1024
    head: int = 4096
    depth: int = 8
    steps: int = 100_000


BOUNDS = Bounds()


@dataclass(frozen=True, slots=True)
class Entry:
    """One file: SHA-256 in hexadecimal, and size in bytes."""

    digest: str
    size: int

    @classmethod
    def of(cls, data: bytes) -> Entry:
        """The entry of these bytes."""
        return cls(digest_of(data), len(data))


Entries = Mapping[str, Entry]
"""Path below ``.agent-vault`` to what lies there."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A vault at one moment.

    Attributes:
        number: from 1; one more than that of the parent.
        parent: digest of the snapshot before; empty for the first.
        folders: folder below ``.agent-vault`` (empty for itself) to the digest of its listing.
    """

    number: int
    parent: str = ""
    folders: Mapping[str, str] = field(default_factory=dict)


def digest_of(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def is_digest(text: object) -> bool:
    """Whether it can be the name of an object."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def object_name(digest: str) -> str:
    """Where an object lies in a remote."""
    return f"{OBJECTS}/{digest}"


def travels(path: str) -> bool:
    """Whether a file belongs to what is shared: below the vault, no private key, nothing that git would act on."""
    parts = path.split("/")
    if not 1 <= len(parts) <= BOUNDS.depth or not all(map(_is_part, parts)):
        return False
    if any(part.lower().startswith(".git") for part in parts) and path != ".gitignore":
        return False
    name = parts[-1].lower()
    is_key = name.endswith((".pem", ".key")) and name != "public.key"
    return not is_key and (not name.startswith("private.") or name.endswith(".escrow"))


def _is_part(part: str) -> bool:
    if not _PART.fullmatch(part) or part.endswith(".") or part.lower() == LOCAL:
        return False
    return _DEVICES.fullmatch(part) is None


def collect(tree: Tree) -> dict[str, Entry]:
    """What a folder shares now.

    Raises:
        IntegrityError: something in it is no plain file.
        InvalidRequest: one of its files has a private key in clear.
    """
    found = {}
    for path in filter(travels, tree.paths()):
        data = tree.require(path)
        if any(mark in data for mark in _PRIVATE):
            raise InvalidRequest(f"{VAULT}/{path} has a private key in clear", "move it out of the vault")
        found[path] = Entry.of(data)
    return found


def mark_of(entries: Entries) -> str:
    """One digest for all files of a vault."""
    lines = "".join(f"{path}\0{entries[path].digest}\n" for path in sorted(entries))
    return digest_of(lines.encode())


def write_head(snapshot: str) -> bytes:
    """The bytes of a head."""
    return _write("head", {"snapshot": snapshot})


def read_head(data: bytes) -> str:
    """The snapshot that counts. Raises ``IntegrityError``."""
    snapshot = _read("head", data, BOUNDS.head).get("snapshot")
    if not isinstance(snapshot, str) or not is_digest(snapshot):
        raise _broken("head")
    return snapshot


def write_snapshot(entries: Entries, parent: str, number: int) -> tuple[bytes, dict[str, bytes]]:
    """A snapshot, and its listings by their digests. The same vault after the same parent has the same bytes."""
    folders: dict[str, dict[str, list[str | int]]] = {}
    for path, entry in entries.items():
        folder, _, name = path.rpartition("/")
        folders.setdefault(folder, {})[name] = [entry.digest, entry.size]
    listings = {folder: _write("listing", {"files": files}) for folder, files in folders.items()}
    named = {folder: digest_of(data) for folder, data in listings.items()}
    snapshot = _write("snapshot", {"number": number, "parent": parent, "folders": named})
    return snapshot, {digest_of(data): data for data in listings.values()}


def read_snapshot(data: bytes) -> Snapshot:
    """The snapshot of these bytes. Raises ``IntegrityError``."""
    document = _read("snapshot", data, BOUNDS.document)
    number, parent, folders = document.get("number"), document.get("parent"), document.get("folders")
    if type(number) is not int or number < 1 or not isinstance(folders, dict) or not isinstance(parent, str):
        raise _broken("snapshot")
    if (number == 1) != (parent == "") or (parent and not is_digest(parent)):
        raise _broken("snapshot")
    for folder, digest in folders.items():
        if (folder and not travels(f"{folder}/x")) or not is_digest(digest):
            raise _broken("snapshot")
    return Snapshot(number, parent, folders)


def read_listing(data: bytes, folder: str) -> dict[str, Entry]:
    """The files of a folder. Raises ``IntegrityError`` for a path that leads elsewhere, or what is too large."""
    files = _read("listing", data, BOUNDS.document).get("files")
    if not isinstance(files, dict):
        raise _broken("listing")
    found = {}
    for name, about in files.items():
        path = f"{folder}/{name}" if folder else name
        if not isinstance(about, list) or len(about) != 2 or "/" in name:
            raise _broken("listing")
        digest, size = about
        if not is_digest(digest) or type(size) is not int or not 0 <= size <= BOUNDS.file:
            raise _broken("listing")
        if not travels(path):
            raise IntegrityError(f"the remote has a file {path[:80]!r}, which no vault has", "take nothing of it")
        found[path] = Entry(digest, size)
    return found


def check_entries(entries: Entries) -> None:
    """Raises ``IntegrityError`` for a vault that is too large, or has one name twice on some systems."""
    if len(entries) > BOUNDS.files or sum(entry.size for entry in entries.values()) > BOUNDS.total:
        raise IntegrityError(
            f"the remote's vault has more than {BOUNDS.files} files or {BOUNDS.total} bytes", "take nothing of it"
        )
    seen: set[str] = set()
    folders: set[str] = set()
    for path in entries:
        low = path.lower()
        if low in seen:
            raise IntegrityError(f"the remote has the file {path[:80]!r} twice", "take nothing of it")
        seen.add(low)
        parts = low.split("/")
        folders.update("/".join(parts[:count]) for count in range(1, len(parts)))
    if both := seen & folders:
        raise IntegrityError(f"in the remote {min(both)[:80]!r} is a file and a folder", "take nothing of it")


class SnapshotFiles(Reading):
    """The files of a snapshot, fetched when they are wanted.

    Args:
        entries: what there is, checked.
        fetch: gives the objects of entries by digest, each compared with it.
    """

    def __init__(self, entries: Entries, fetch: Callable[[list[Entry]], Mapping[str, bytes]]) -> None:
        self.entries = entries
        self._fetch = fetch
        signed = [entry for path, entry in entries.items() if path.startswith(".x/")]
        self._kept = dict(fetch(signed))  # there are many of them, and all are read

    def read(self, path: str) -> bytes | None:
        """See ``Files.read``."""
        entry = self.entries.get(path)
        if entry is None:
            return None
        if entry.digest not in self._kept:
            self._kept.update(self._fetch([entry]))
        return self._kept[entry.digest]

    def fetch(self, paths: list[str]) -> None:
        """Have these at once, for what is read next."""
        wanted = {entry.digest: entry for path, entry in self.entries.items() if path in set(paths)}
        self._kept.update(self._fetch([each for digest, each in wanted.items() if digest not in self._kept]))

    def names(self, folder: str) -> list[str]:
        """See ``Files.names``."""
        below = f"{folder}/" if folder else ""
        return sorted({path[len(below) :].partition("/")[0] for path in self.entries if path.startswith(below)})

    def paths(self) -> list[str]:
        """See ``Files.paths``."""
        return sorted(self.entries)


def _write(kind: str, content: Mapping[str, Any]) -> bytes:
    document = {"format": f"{_FORMAT} {kind}", "version": 1, **content}
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _read(kind: str, data: bytes, most: int) -> dict[str, Any]:
    if len(data) > most:
        raise IntegrityError(f"the {kind} of the remote is longer than {most} bytes", "take nothing of it")
    try:
        document = parse_object(data, JsonBounds(depth=4, string=2048, items=4 * BOUNDS.files))
    except InvalidRequest:
        raise _broken(kind) from None
    if document.get("format") != f"{_FORMAT} {kind}" or document.get("version") != 1:
        raise _broken(kind)
    return document


def _broken(kind: str) -> IntegrityError:
    return IntegrityError(f"the remote has no {kind} that can be read", "is it a remote of repo vaults? fetch again")

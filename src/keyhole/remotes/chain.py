"""The snapshots of one vault in a remote, each with the one before it, and how another is put on top.

Nothing that a remote gives is believed: every object is compared with its digest and bounded, a head has to go on from
the snapshot that this clone knows, and what the files mean is verified by who opens them as a vault.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from keyhole.core.errors import Conflict, IntegrityError, KeyholeError
from keyhole.remotes import Remote, get_all, put_all
from keyhole.repo.snapshots import (
    BOUNDS,
    HEAD,
    Entries,
    Entry,
    Snapshot,
    SnapshotFiles,
    check_entries,
    digest_of,
    object_name,
    read_head,
    read_listing,
    read_snapshot,
    write_head,
    write_snapshot,
)


@dataclass(frozen=True, slots=True)
class Head:
    """What counts in a remote.

    Attributes:
        snapshot: its digest; empty where nothing was pushed yet.
        tag: for the condition of a push.
    """

    snapshot: str = ""
    tag: str = ""


class Kept:
    """Objects that this machine keeps, so that what it has once fetched is there to be compared with. None is in clear.

    Args:
        folder: of this machine alone.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, digest: str) -> bytes | None:
        """The object; ``None`` for one that is not here whole."""
        with contextlib.suppress(OSError):
            data = (self._folder / digest).read_bytes()
            if digest_of(data) == digest:
                return data
        return None

    def put(self, objects: Mapping[str, bytes]) -> None:
        """Keep these."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for digest, data in objects.items():
            if not (self._folder / digest).exists():
                fresh = self._folder / f".{os.getpid()}"
                fresh.write_bytes(data)
                fresh.rename(self._folder / digest)

    def keep_only(self, digests: Iterable[str]) -> None:
        """Forget all others."""
        wanted = set(digests)
        with contextlib.suppress(FileNotFoundError):
            for path in list(self._folder.iterdir()):
                if path.name not in wanted:
                    path.unlink(missing_ok=True)


class Chain:
    """The snapshots of a vault.

    Args:
        remote: where they lie.
        kept: where this machine keeps what it has fetched.
        name: of the remote, for messages.
    """

    def __init__(self, remote: Remote, kept: Kept, name: str) -> None:
        self._remote = remote
        self._kept = kept
        self._name = name

    def head(self) -> Head:
        """What counts now. Raises ``IntegrityError``, ``Unreachable``, ``PolicyDenied``."""
        found = self._remote.get(HEAD, BOUNDS.head)
        return Head() if found is None else Head(read_head(found.data), found.tag)

    def snapshot(self, digest: str) -> Snapshot:
        """A snapshot. Raises ``IntegrityError`` for one that is missing or not what its name says."""
        return read_snapshot(self._documents([digest])[digest])

    def entries(self, digest: str) -> Entries:
        """The files of a snapshot, by their paths. Raises ``IntegrityError``."""
        folders = self.snapshot(digest).folders
        documents = self._documents(folders.values())
        found: dict[str, Entry] = {}
        for folder, listing in folders.items():
            found |= read_listing(documents[listing], folder)
        check_entries(found)
        return found

    def files(self, digest: str) -> SnapshotFiles:
        """The files of a snapshot, fetched as they are read. Raises ``IntegrityError``."""
        return SnapshotFiles(self.entries(digest), self._objects)

    def require_follows(self, older: str, newer: str) -> None:
        """See that a snapshot goes on from another one. Raises ``IntegrityError`` for history that was rewritten."""
        if older in {"", newer}:
            return
        target, current, digest = self.snapshot(older), self.snapshot(newer), newer
        if not target.number < current.number <= target.number + BOUNDS.steps:
            raise self._rewritten()
        while current.number > target.number:
            digest = current.parent
            below = self.snapshot(digest)
            if below.number != current.number - 1:
                raise self._rewritten()
            current = below
        if digest != older:
            raise self._rewritten()

    def has(self, older: str, newer: str) -> bool:
        """Whether a snapshot is another one, or below it."""
        try:
            self.require_follows(older, newer)
        except IntegrityError:
            return False
        return True

    def add(
        self,
        entries: Entries,
        read: Mapping[str, bytes],
        head: Head,
        note: Callable[[str], object] = lambda digest: digest,
    ) -> str:
        """Put a snapshot on top of the head; returns its digest.

        Args:
            entries: its files.
            read: the bytes of those that the remote may lack, by digest.
            head: on which it is put.
            note: is told its digest just before it counts.

        Raises:
            Conflict: somebody else was faster.
        """
        number = self.snapshot(head.snapshot).number + 1 if head.snapshot else 1
        data, listings = write_snapshot(entries, head.snapshot, number)
        digest = digest_of(data)
        put_all(self._remote, {**read, **listings})
        put_all(self._remote, {digest: data})
        note(digest)
        try:
            self._remote.put(HEAD, write_head(digest), head.tag)
        except Conflict:
            if self.head().snapshot != digest:  # it is ours after all, where an answer was lost and asked for again
                raise Conflict(
                    f"somebody has pushed to {self._name} meanwhile", "keyhole repo pull, then push again"
                ) from None
        self._kept.put({**listings, digest: data})
        return digest

    def keep(self, digests: Iterable[str]) -> None:
        """Keep what is needed to compare with these snapshots later, and nothing else."""
        wanted: set[str] = set()
        for digest in filter(None, digests):
            with contextlib.suppress(KeyholeError):
                folders = self.snapshot(digest).folders
                wanted |= {digest, *folders.values()}
                wanted |= {entry.digest for path, entry in self.entries(digest).items() if _is_compared(path)}
        self._kept.keep_only(wanted)

    def _documents(self, digests: Iterable[str]) -> dict[str, bytes]:
        return self._fetch(dict.fromkeys(digests, BOUNDS.document))

    def _objects(self, entries: list[Entry]) -> dict[str, bytes]:
        found = self._fetch({entry.digest: entry.size for entry in entries})
        for entry in entries:
            if len(found[entry.digest]) != entry.size:
                raise IntegrityError(f"an object of {self._name} has not the size that it should", "fetch again")
        return found

    def _fetch(self, wanted: Mapping[str, int]) -> dict[str, bytes]:
        here = {digest: data for digest in wanted if (data := self._kept.get(digest)) is not None}
        fetched = get_all(self._remote, {digest: most for digest, most in wanted.items() if digest not in here})
        for digest, data in fetched.items():
            if digest_of(data) != digest:
                raise IntegrityError(
                    f"{self._name} has {object_name(digest)[:24]}… with other bytes than its name says",
                    "somebody changed it there: take nothing of it, and see who can write to the remote",
                )
        if missing := wanted.keys() - here.keys() - fetched.keys():
            raise IntegrityError(
                f"{self._name} lacks {len(missing)} objects that its head needs",
                "see who can write to the remote; a clone that has them can push again to a new one",
            )
        self._kept.put(fetched)
        return here | fetched

    def _rewritten(self) -> IntegrityError:
        return IntegrityError(
            f"the history of {self._name} was rewritten: its head does not go on from what this clone has last seen",
            "an old state is being served, or somebody began anew: ask who can write to the remote",
        )


def _is_compared(path: str) -> bool:
    return not path.startswith("secrets/")

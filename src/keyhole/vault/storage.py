"""What an engine sees of the store: paths in clear, values in clear, one mount of one org, nothing else.

Underneath, every path segment is encrypted (so the store learns neither names nor their order), every value is sealed
with its own data key, and the associated data binds it to org, mount, key and revision.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from keyhole.core.errors import Conflict, IntegrityError
from keyhole.crypto.keyring import Keyring, Where
from keyhole.stores import Batch, Check, Delete, Entry, Put, Store
from keyhole.vault.changes import noted, since

_PATH_CACHE = 4096
_EPOCH_RETRIES = 50
_PAGE = 1000
_SCANNED_AT_ONCE = 200
_AFTER_FOLDER = "\x7f"  # greater than every byte that a key may have after the folder's slash
_new = tuple.__new__  # what a class of tuples does itself, without its function in Python around it
Paths = list[str]  # ``Storage.list`` hides the builtin inside the class body


class Standing(Protocol):
    """What storage needs of the vault's keys besides a keyring. See ``keyhole.vault.keys.Keys``."""

    def stands_on(self, org_id: str) -> Check:
        """Holds as long as the keyring of an org is the one that is known here."""

    async def renew(self, org_id: str, stood_on: Check) -> bool:
        """Whether the keyring is another one than a batch stood on; then the new one is known."""

    async def newer(self, org_id: str, ring: Keyring) -> bool:
        """Whether the keyring is another one than this; then the new one is known."""


Along = Callable[[Batch], Awaitable[bool]]
"""Makes a change together with something else; whether it did."""


class Item(NamedTuple):
    """One stored value in clear. ``data`` is ``None`` where nothing lies; ``revision`` is what a write must expect."""

    data: bytes | None
    revision: int


class Scanned(NamedTuple):
    """One entry that a scan came by: its store key, and what lies there unless it was seen at this revision before."""

    key: str
    revision: int
    path: str = ""
    data: bytes | None = None


class Write(NamedTuple):
    """Store ``data`` at ``path`` if it is still at revision ``expected``; ``due`` makes it findable by time."""

    path: str
    data: bytes
    expected: int
    due: float | None = None


class Change:
    """Writes that hold together or not at all."""

    __slots__ = ("checks", "deletes", "writes")

    def __init__(
        self,
        writes: list[Write] | None = None,
        deletes: list[tuple[str, int]] | None = None,
        checks: list[tuple[str, int]] | None = None,
    ) -> None:
        self.writes = [] if writes is None else writes
        self.deletes = [] if deletes is None else deletes
        self.checks = [] if checks is None else checks


class Storage:
    """The storage of one mount.

    Args:
        store: where the bytes lie.
        keyring: of the org.
        org_id: partition and associated data.
        mount: id of the mount; stays when the mount moves.
        reserve: awaited before sealing, with the number of values; keeps the count of uses of the current key.
        keys: say what a batch that is sealed now has to stand on.
        epochs: keys whose revisions stand for what is compiled of this mount, such as the org's configuration.
        noted: the one of them that says what was changed lately; empty for none.

    Attributes:
        heads: as ``engines.StorageView.heads``.
    """

    def __init__(
        self,
        store: Store,
        keyring: Callable[[], Keyring],
        org_id: str,
        mount: str,
        reserve: Callable[[int], Awaitable[None]],
        keys: Standing,
        epochs: Sequence[str] = (),
        noted: str = "",
    ) -> None:
        self._store = store
        self._keyring = keyring
        self._org = org_id
        self._mount = mount
        self._reserve = reserve
        self._standing = keys
        self._epochs = epochs
        self._noted = noted
        self._keys: dict[str, str] = {}
        self.heads: dict[bytes, Mapping[str, Any]] = {}

    async def get(self, *paths: str) -> list[Item]:
        """The values at these paths, read in one snapshot. Raises ``IntegrityError`` for one that does not open."""
        keys = [self.key(path) for path in paths]
        while True:
            keyring = self._keyring()  # as of before: what is read is never older than this, and may be newer
            entries = await self._store.get(keys)
            try:
                return [self._open(keyring, key, entry) for key, entry in zip(keys, entries, strict=True)]
            except IntegrityError:
                if not await self._standing.newer(self._org, keyring):
                    raise

    async def revisions(self, *paths: str) -> Sequence[int]:
        """The revisions of the entries at these paths, of which none is opened; 0 where nothing ever was."""
        return [entry.revision for entry in await self._store.get([self.key(path) for path in paths])]

    async def get_one(self, path: str) -> Item:
        """The value at one path."""
        key = self.key(path)
        while True:
            keyring = self._keyring()
            [entry] = await self._store.get([key])
            try:
                return self._open(keyring, key, entry)
            except IntegrityError:
                if not await self._standing.newer(self._org, keyring):
                    raise

    async def _scanned(self, keys: Sequence[str], seen: Mapping[str, int]) -> Sequence[Scanned]:
        while True:
            keyring = self._keyring()
            entries = await self._store.get(keys)
            try:
                return [
                    Scanned(key, entry.revision)
                    if seen.get(key) == entry.revision
                    else Scanned(key, entry.revision, self.path(key), self._open(keyring, key, entry).data)
                    for key, entry in zip(keys, entries, strict=True)
                    if entry.value is not None
                ]
            except IntegrityError:
                if not await self._standing.newer(self._org, keyring):
                    raise

    def _open(self, keyring: Keyring, key: str, entry: Entry) -> Item:
        value, revision = entry
        if value is None:
            return Item(None, revision)
        where = _new(Where, (self._org, self._mount, key, revision))
        return _new(Item, (keyring.open(value, where), revision))

    async def list(self, prefix: str = "", *, recursive: bool = False) -> Paths:
        """Names directly below ``prefix`` (folders end in ``/``), or all paths below it; sorted."""
        base = f"{self.key(prefix)}/" if prefix else f"{self._org}/{self._mount}/"
        names: Paths = []
        after = ""
        while True:
            page = await self._store.list(base, after=after, limit=_PAGE, delimiter="" if recursive else "/")
            names += (self._decrypt(prefix, key.removeprefix(base)) for key in page)
            if len(page) < _PAGE:
                return sorted(names)
            after = page[-1] + _AFTER_FOLDER if page[-1].endswith("/") else page[-1]

    async def epochs(self) -> Sequence[int]:
        """The revisions that stand for what is compiled of this mount."""
        return [entry.revision for entry in await self._store.get(self._epochs)]

    async def changed(self, seen: int) -> tuple[int, Sequence[Scanned]] | None:
        """What was changed since the epoch that notes it was at a revision, as it is now, and its revision now.

        An entry that is gone has no data. ``None`` where it is not known what was changed: then all has to be read.
        """
        while True:
            keyring = self._keyring()
            [epoch] = await self._store.get([self._noted])
            names = since(self._note(epoch), seen, epoch.revision)
            if names is None:
                return None
            keys = [f"{self._org}/{self._mount}/{name}" for name in names]
            now, *entries = await self._store.get([self._noted, *keys])
            if now.revision != epoch.revision:
                continue
            try:
                items = [self._open(keyring, key, entry) for key, entry in zip(keys, entries, strict=True)]
            except IntegrityError:
                if not await self._standing.newer(self._org, keyring):
                    raise
                continue
            paths = map(self.path, keys)
            return now.revision, [
                Scanned(key, item.revision, path, item.data) for key, path, item in zip(keys, paths, items, strict=True)
            ]

    async def scan(self, seen: Mapping[str, int]) -> AsyncIterator[Sequence[Scanned]]:
        """All entries, in parts that are each read in one snapshot.

        Args:
            seen: revisions by store key. An entry that is still at its revision is not opened: most of the work.
        """
        below, after = f"{self._org}/{self._mount}/", ""
        while True:
            page = await self._store.list(below, after=after, limit=_SCANNED_AT_ONCE, delimiter="")
            yield await self._scanned(page, seen)
            if len(page) < _SCANNED_AT_ONCE:
                return
            after = page[-1]

    def still(self, path: str, revision: int) -> Check:
        """What a change of another mount can stand on: that this path is still at a revision."""
        return Check(self.key(path), revision)

    async def commit(self, change: Change, *stands_on: Check, along: Along | None = None) -> None:
        """Make the change durable. Raises ``Conflict`` when something it expects is no longer so.

        Args:
            change: what.
            stands_on: holds for other mounts.
            along: tried first, once: it makes the change together with something else. If it does not, the change is
                made alone.
        """
        await self._reserve(len(change.writes) + bool(self._noted))
        for _ in range(_EPOCH_RETRIES):
            before = await self._store.get(self._epochs) if self._epochs else ()
            # Nothing may wait between these: what is sealed stands on the keyring that sealed it.
            ring = self._standing.stands_on(self._org)
            bumps = [self._bump(change, key, entry) for key, entry in zip(self._epochs, before, strict=True)]
            batch = self._batch(change, *bumps, checks=(ring, *stands_on))
            if along is not None:
                first, along = along, None
                if await first(batch):
                    return
                continue
            try:
                await self._store.commit(batch)
            except Conflict:
                if await self._standing.renew(self._org, ring):
                    continue
                if not bumps or await self.epochs() == [bump.expected for bump in bumps]:
                    raise
            else:
                return
        raise Conflict("the configuration is being changed by many at once", "try again")

    async def seal_apart(self, data: bytes, label: str) -> bytes:
        """Data sealed like an entry of this mount, for somebody else to keep; it opens here only, by the same label."""
        await self._reserve(1)
        return self._keyring().seal(data, self._apart(label))

    def open_apart(self, blob: bytes, label: str) -> bytes:
        """What ``seal_apart`` sealed. Raises ``IntegrityError`` for anything else."""
        return self._keyring().open(blob, self._apart(label))

    def _apart(self, label: str) -> Where:
        return Where(self._org, self._mount, label, 0)  # no entry of the store has revision 0

    async def change(
        self,
        writes: Sequence[tuple[str, bytes, int] | tuple[str, bytes, int, float | None]] = (),
        deletes: Sequence[tuple[str, int]] = (),
        checks: Sequence[tuple[str, int]] = (),
    ) -> None:
        """``commit`` in plain tuples, as engines use it."""
        await self.commit(Change([Write(*write) for write in writes], [*deletes], [*checks]))

    def key(self, path: str) -> str:
        """The store key of a path."""
        key = self._keys.get(path)
        if key is None:
            if len(self._keys) >= _PATH_CACHE:
                self._keys.clear()
            folder, below, name = path.rpartition("/")
            # Folders are found again among the keys: what is new in one costs one encryption.
            above, parent = f"{self._org}/{self._mount}", self._mount
            if below:
                above, parent = self.key(folder), f"{parent}/{folder}"
            key = self._keys[path] = f"{above}/{self._keyring().name_key.encrypt(name, parent)}"
        return key

    def path(self, key: str) -> str:
        """The path of a store key of this mount."""
        return self._decrypt("", key.removeprefix(f"{self._org}/{self._mount}/"))

    def _decrypt(self, prefix: str, tokens: str) -> str:
        name_key = self._keyring().name_key
        parent = f"{self._mount}/{prefix}" if prefix else self._mount
        segments = []
        for token in tokens.removesuffix("/").split("/"):
            segments.append(name_key.decrypt(token, parent))
            parent = f"{parent}/{segments[-1]}"
        return "/".join(segments) + ("/" if tokens.endswith("/") else "")

    def _batch(self, change: Change, *extra: Put, checks: Iterable[Check] = ()) -> Batch:
        return Batch(
            puts=[*self._puts(change.writes), *extra],
            deletes=[Delete(self.key(path), expected) for path, expected in change.deletes],
            checks=[*(Check(self.key(path), expected) for path, expected in change.checks), *checks],
        )

    def _bump(self, change: Change, key: str, entry: Entry) -> Put:
        """Another revision of an epoch, with a note of what is changed where it keeps one."""
        value = b""
        if key == self._noted:
            paths = [write.path for write in change.writes] + [path for path, _ in change.deletes]
            below = f"{self._org}/{self._mount}/"
            value = noted(self._note(entry), entry.revision + 1, [self.key(path).removeprefix(below) for path in paths])
        if value:
            value = self._keyring().seal(value, self._of_epoch(entry.revision + 1))
        return Put(key, value, entry.revision)

    def _note(self, entry: Entry) -> bytes:
        """What an epoch notes; nothing where it does not open, as before a keyring that is newer is known."""
        if not entry.value:
            return b""
        try:
            return self._keyring().open(entry.value, self._of_epoch(entry.revision))
        except IntegrityError:
            return b""

    def _of_epoch(self, revision: int) -> Where:
        return Where(self._org, self._noted.split("/")[1], self._noted, revision)

    def _puts(self, writes: Sequence[Write]) -> Iterable[Put]:
        keyring = self._keyring()
        for write in writes:
            key = self.key(write.path)
            where = Where(self._org, self._mount, key, write.expected + 1)
            yield Put(key, keyring.seal(write.data, where), write.expected, write.due)


class Nowhere(Storage):
    """The storage of an org that does not exist: nothing lies there, at the cost of looking, and nothing stays."""

    async def get(self, *paths: str) -> list[Item]:
        """Nothing."""
        await self._store.get([self.key(path) for path in paths])
        return [Item(None, 0) for _ in paths]

    async def get_one(self, path: str) -> Item:
        """Nothing."""
        [item] = await self.get(path)
        return item

    async def list(self, prefix: str = "", *, recursive: bool = False) -> Paths:
        """Nothing."""
        await self._store.list(f"{self._org}/{self._mount}/{prefix}", delimiter="" if recursive else "/")
        return []

    async def commit(self, change: Change, *stands_on: Check, along: Along | None = None) -> None:
        """Forgets it."""

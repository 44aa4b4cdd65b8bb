"""Shelf: where the bytes lie. A store keeps opaque entries and journals; it knows no noun of the domain.

    store = await open_store("sqlite:/var/lib/keyhole/vault.db", create=True)
    await store.commit(Batch(puts=[Put("p0/config", b"...", expected=0)]))
    [entry] = await store.get(["p0/config"])       # Entry(value=b"...", revision=1)

Promises of every member:

1. ``commit`` is all or nothing, and what it acknowledged survives a crash or power loss (``memory`` excepted).
2. A put, delete or check that names another revision than the stored one fails the whole batch with ``Conflict``.
   Batches that a member groups into one transaction still fail singly.
3. The revision of a key grows by one with each put or delete and never restarts: a deletion leaves a tombstone.
4. ``get`` reads all its keys in one snapshot.
5. ``generation`` changes whenever any entry changed, in this process or another one on the same store, and not when
   only journals grew.
6. Journal rows are appended in order without gaps by their writer; a row that exists is never replaced.
7. Failure of the medium (full, read-only, gone) is ``StoreUnavailable``; damaged content is ``IntegrityError``.
"""

import importlib
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol

from keyhole.core.errors import InvalidRequest

MEMBERS = ("memory", "postgres", "sqlite")
_ALIASES = {"postgresql": "postgres"}


class Entry(NamedTuple):
    """One stored value. ``value`` is ``None`` for a key that was deleted (revision > 0) or never was (revision 0)."""

    value: bytes | None
    revision: int


class Put(NamedTuple):
    """Store ``value`` at revision ``expected + 1``; ``due`` (seconds since the epoch) makes ``due()`` find it.

    With ``keep_due`` the entry, which has to be live, stays due when it is.
    """

    key: str
    value: bytes
    expected: int
    due: float | None = None
    keep_due: bool = False


class Delete(NamedTuple):
    """Leave a tombstone at revision ``expected + 1``."""

    key: str
    expected: int


class Check(NamedTuple):
    """The batch only holds if this key is still at this revision."""

    key: str
    expected: int


class JournalRow(NamedTuple):
    """One journal record as stored.

    Attributes:
        writer: slot of the writer, 0 and up.
        sequence: 1 and up without gaps per writer.
        time: nanoseconds since the epoch.
        partition: whose record it is.
        body: sealed record.
        digest: link of the writer's chain.
        signature: over the digest; present on the last row of a commit, else empty.
    """

    writer: int
    sequence: int
    time: int
    partition: str
    body: bytes
    digest: bytes
    signature: bytes = b""


class Batch(NamedTuple):
    """What one ``commit`` does, all or nothing."""

    puts: Sequence[Put] = ()
    deletes: Sequence[Delete] = ()
    checks: Sequence[Check] = ()
    appends: Sequence[JournalRow] = ()


# ``Store.list`` hides the builtin inside the class body.
Keys = list[str]
Entries = list[Entry]
Rows = list[JournalRow]


class Store(Protocol):
    """The contract. Keys are ASCII without NUL, at most 2,048 bytes, and begin with an opaque partition."""

    async def get(self, keys: Sequence[str]) -> Entries:
        """The entries of these keys, in order, in one snapshot."""

    async def list(self, prefix: str, *, after: str = "", limit: int = 1000, delimiter: str = "") -> Keys:
        """Live keys below ``prefix`` greater than ``after``, in byte order, at most ``limit``.

        With a delimiter, keys that contain it after the prefix are folded into one name ending in it, as in S3.
        """

    async def commit(self, batch: Batch) -> None:
        """Apply a batch durably. Raises ``Conflict`` or ``StoreUnavailable``, and then nothing of it happened.

        Over a network the answer may be lost and not be found out in time; ``StoreUnavailable`` then says so.

        A store may have ``submit(batch)`` besides: it begins the same at once, and its future ends as this does.
        """

    async def scan(self, writer: int, *, after: int = 0, limit: int = 1000) -> Rows:
        """Journal rows of one writer with a sequence greater than ``after``, ascending."""

    async def heads(self) -> dict[int, int]:
        """The last sequence of every writer."""

    async def due(self, now: float, limit: int = 100) -> Keys:
        """Live keys whose ``due`` is not after ``now``, earliest first."""

    async def generation(self) -> int:
        """A number that is different after any entry changed. Cheap: asked for on every request."""

    def latest(self) -> int | None:
        """What ``generation`` would answer, when that is known at once; ``None`` when it has to be asked."""

    def watch(self) -> AsyncIterator[int]:
        """Yields the generation each time it is seen to have changed; other processes are noticed within a second."""

    async def now(self) -> float:
        """The store's own clock, seconds since the epoch."""

    async def close(self) -> None:
        """Finish what was accepted, then release the medium. Idempotent.

        A store may have ``shared`` besides, and true: others than this user of this machine can write there.
        """


async def open_store(location: str, *, create: bool = False) -> Store:
    """Open the store at ``name:rest``: ``sqlite:/path/vault.db``, ``postgres://user@host/db`` or ``memory:``.

    Raises:
        InvalidRequest: the name is not on this shelf.
        NotFound: there is no store and ``create`` is false.
        StoreUnavailable: it is there and cannot be used.
    """
    name, _, rest = location.partition(":")
    name = _ALIASES.get(name, name)
    if name not in MEMBERS:
        raise InvalidRequest(f"there is no store named {name!r}", f"use one of: {', '.join(MEMBERS)}")
    member = importlib.import_module(f"keyhole.stores.{name}")
    store: Store = await member.open_store(rest, create=create)
    return store

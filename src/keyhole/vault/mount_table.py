"""The mount tables of orgs as they are stored: one entry an org, part of its configuration.

So a mount is there, moved or gone on every node with the next request, and two that would lie within each other cannot
be made at once. An org that has never changed its mounts has no entry and the standard ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from keyhole import engines
from keyhole.core.errors import Conflict, InvalidRequest
from keyhole.engines import Engine
from keyhole.vault.mounts import AUTH, Mount, Mounts, unset
from keyhole.vault.storage import Change, Storage, Write

if TYPE_CHECKING:
    from keyhole.auth import Guesses
    from keyhole.vault.orgs import Orgs

MOUNT = "mounts"
MOST = 500  # mounts of an org
_KEY = "table"
_MOVES = 64  # of the latest, that can be asked for
_AT_ONCE = 1.0  # what is left of a disabled mount is due for removal
_RETRIES = 20
Result = TypeVar("Result")


class Entry(NamedTuple):
    """One mount that somebody made, or may disable; see ``Mount`` for the fields."""

    path: str
    id: str
    type: str
    accessor: str
    description: str
    options: Mapping[str, str]
    config: Mapping[str, Any]
    local: bool = False
    seal_wrap: bool = False


class Table:
    """The stored table of an org.

    Attributes:
        entries: its mounts but for the fixed ones.
        tuned: what differs of fixed mounts, by path: ``description`` and ``config``.
        going: mounts that were disabled and are not removed yet; nothing answers there any more.
        upgrading: ids of mounts whose data are being brought into another form; they answer nothing until that is done.
        moves: the latest moves, as ``sys/remount/status`` answers them.
    """

    def __init__(
        self,
        entries: list[Entry],
        tuned: dict[str, dict[str, Any]] | None = None,
        going: list[Entry] | None = None,
        moves: list[dict[str, str]] | None = None,
        upgrading: list[str] | None = None,
    ) -> None:
        self.entries = entries
        self.tuned = {} if tuned is None else tuned
        self.going = [] if going is None else going
        self.moves = [] if moves is None else moves
        self.upgrading = [] if upgrading is None else upgrading

    def at(self, path: str) -> Entry | None:
        """The entry with exactly this path."""
        return next((entry for entry in self.entries if entry.path == path), None)

    def put(self, entry: Entry) -> None:
        """Add an entry, or put it in the place of the one with its id."""
        self.entries = [*(each for each in self.entries if each.id != entry.id), entry]

    def disable(self, entry: Entry) -> None:
        """Nothing answers there from now on."""
        self.entries = [each for each in self.entries if each.id != entry.id]
        self.going.append(entry)
        self.upgrading = [each for each in self.upgrading if each != entry.id]

    def forget(self, mount_id: str) -> None:
        """All of a disabled mount is removed."""
        self.going = [each for each in self.going if each.id != mount_id]

    def upgraded(self, mount_id: str) -> None:
        """All data of a mount have their new form."""
        self.upgrading = [each for each in self.upgrading if each != mount_id]

    def note_move(self, source: str, target: str) -> str:
        """Remember a move; returns its id."""
        move = {"id": str(uuid.uuid4()), "source_mount": source, "target_mount": target}
        self.moves = [*self.moves, move][-_MOVES:]
        return move["id"]


class MountTables:
    """The mounts of all orgs.

    Args:
        orgs: have the storage.

    Attributes:
        fixed: the mounts that every org has for good.
    """

    def __init__(self, orgs: Orgs) -> None:
        self._orgs = orgs
        self._engines: dict[str, dict[str, Engine]] = {}
        self.fixed: list[Mount] = []

    @cached_property
    def guesses(self) -> Guesses:
        """Counts failed logins, of all login methods together."""
        from keyhole.auth import Guesses  # noqa: PLC0415  # as below

        return Guesses()

    async def load(self, org_id: str, before: Mounts | None = None) -> Mounts:
        """The mounts of an org as of now: the same object as ``before`` when nothing has changed."""
        item = await self._storage(org_id).get_one(_KEY)
        if before is not None and before.revision == item.revision:
            return before
        table = _decode(org_id, item.data)
        if made := self._engines.get(org_id):
            live = {_instance(entry) for entry in (*table.entries, *table.going)}
            self._engines[org_id] = {key: engine for key, engine in made.items() if key in live}
        return self._mounts(org_id, table, item.revision)

    async def read(self, org_id: str) -> Table:
        """The stored table."""
        return _decode(org_id, (await self._storage(org_id).get_one(_KEY)).data)

    async def change(self, org_id: str, edit: Callable[[Table, Mounts], Result]) -> Result:
        """Change the table of an org, on what is there when it is written.

        Args:
            org_id: of the org.
            edit: changes the table that it is given, and may be called again on a newer one; may raise.

        Raises:
            Conflict: many are changing it at once.
        """
        storage = self._storage(org_id)
        for _ in range(_RETRIES):
            item = await storage.get_one(_KEY)
            table = _decode(org_id, item.data)
            result = edit(table, self._mounts(org_id, table, item.revision))
            write = Write(_KEY, _encode(table), item.revision, _AT_ONCE if table.going or table.upgrading else None)
            try:
                await storage.commit(Change([write]))
            except Conflict:
                continue
            return result
        raise Conflict("the mounts are being changed by many at once", "try again")

    def standard(self, org_name: str) -> Mounts:
        """The mounts of an org that has no table."""
        return self._mounts(org_name, _decode(org_name, None), 0)

    def _storage(self, org_id: str) -> Storage:
        return self._orgs.storage(org_id, MOUNT, configures=True)

    def _mounts(self, org_id: str, table: Table, revision: int) -> Mounts:
        fixed = []
        for mount in self.fixed:
            prefix = "auth_" if mount.path.startswith(AUTH) else ""
            accessor, shown = _derived(org_id, mount.id, prefix + mount.type)
            said = {"config": unset(mount.path), **table.tuned.get(mount.path, {})}
            fixed.append(
                Mount(
                    path=mount.path,
                    id=mount.id,
                    made=mount.made,
                    type=mount.type,
                    description=said.get("description", mount.description),
                    accessor=accessor,
                    uuid=shown,
                    options=mount.options,
                    config=said["config"],
                    local=mount.local,
                    seal_wrap=mount.seal_wrap,
                    fixed=True,
                )
            )
        made = [self._mount(org_id, entry, upgrading=entry.id in table.upgrading) for entry in table.entries]
        return Mounts([*fixed, *made], revision, [self._mount(org_id, entry) for entry in table.going])

    def _mount(self, org_id: str, entry: Entry, *, upgrading: bool = False) -> Mount:
        return Mount(
            path=entry.path,
            id=entry.id,
            made=partial(engines.load_upgrading, entry.type) if upgrading else partial(self._engine, org_id, entry),
            type=entry.type,
            description=entry.description,
            accessor=entry.accessor,
            uuid=entry.id if "-" in entry.id else _derived(org_id, entry.id, "")[1],
            options=entry.options,
            config=entry.config,
            local=entry.local,
            seal_wrap=entry.seal_wrap,
        )

    def _engine(self, org_id: str, entry: Entry) -> Engine:
        """The engine of a mount; it stays the same while the mount is there, with what it keeps in memory."""
        made = self._engines.setdefault(org_id, {})
        key = _instance(entry)
        if key not in made:
            made[key] = self.make_engine(entry.path, entry.type, entry.options)
        return made[key]

    def make_engine(self, path: str, kind: str, options: Mapping[str, str]) -> Engine:
        """An engine for a mount at a path. Raises ``InvalidRequest`` for an unknown type, or for an option."""
        if not path.startswith(AUTH):
            return engines.load(kind, options)
        from keyhole import auth  # noqa: PLC0415  # the owner of a local vault does not log in

        return auth.load(kind, self.guesses)


def new_entry(path: str, kind: str, taken: Mounts, **said: Any) -> Entry:
    """A new mount; ``said`` are the other fields. Raises ``InvalidRequest`` when the path is not free."""
    taken.require_free(path)
    accessors = {mount.accessor for mount in taken}
    if len(accessors) >= MOST:
        raise InvalidRequest(f"an org has at most {MOST} mounts", "disable one that is not used")
    prefix = "auth_" if path.startswith(AUTH) else ""
    while (accessor := f"{prefix}{kind}_{os.urandom(4).hex()}") in accessors:
        pass
    return Entry(path=path, id=str(uuid.uuid4()), type=kind, accessor=accessor, **said)


def _instance(entry: Entry) -> str:
    return f"{entry.id} {entry.options.get('version', '')}"


def _derived(org_id: str, mount_id: str, kind: str) -> tuple[str, str]:
    """Accessor and UUID of a mount that an org has without a record: its own, and the same on every node."""
    digest = hashlib.sha256(f"{org_id}/{mount_id}".encode()).digest()
    return f"{kind}_{digest[:4].hex()}", str(uuid.UUID(bytes=digest[4:20], version=4))


def _standard(org_id: str) -> Entry:
    return Entry(
        path="secret/",
        id="kv",
        type="kv",
        accessor=_derived(org_id, "kv", "kv")[0],
        description="versioned secrets",
        options={"version": "2"},
        config=unset("secret/"),
    )


def _decode(org_id: str, data: bytes | None) -> Table:
    if data is None:
        return Table([_standard(org_id)])
    stored = json.loads(data)
    return Table(
        [Entry(**entry) for entry in stored["entries"]],
        stored["tuned"],
        [Entry(**entry) for entry in stored["going"]],
        stored["moves"],
        stored.get("upgrading", []),
    )


def _encode(table: Table) -> bytes:
    data = {
        "entries": [entry._asdict() for entry in table.entries],
        "tuned": table.tuned,
        "going": [entry._asdict() for entry in table.going],
        "moves": table.moves,
        "upgrading": table.upgrading,
    }
    return json.dumps(data).encode()

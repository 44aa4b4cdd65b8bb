"""Orgs: flat, isolated by their own keys and their own partition of the store."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from keyhole.core import EMPTY
from keyhole.core.errors import Conflict, InvalidRequest, NotFound
from keyhole.core.identity import ROOT_ORG
from keyhole.stores import Batch, Delete, Put, Store
from keyhole.vault.keys import SYSTEM, Keys, new_id, ring_key
from keyhole.vault.storage import Change, Nowhere, Storage, Write

EGRESS = ("deny", "allow", "log")
TRIPWIRE = ("stop", "revoke", "off")
MOUNT = "orgs"
IDENTITIES = "entities"
SERVICES = "services"
NO_ORG = "nobody"  # stands for the id of an org that does not exist
_PAGE = 500
_AT_ONCE = 1.0  # an org that is leaving is due for removal


class Org(NamedTuple):
    """One tenant.

    Attributes:
        id: opaque; partition of the store and part of all associated data.
        name: what people write.
        egress: what happens to a call to a host without a service: ``deny``, ``allow`` or ``log``.
        created: seconds since the epoch.
        tripwire: what happens to a request that carries what must not leave: it is stopped (``stop``), its token is
            revoked besides (``revoke``), or nobody looks (``off``).
        metadata: texts by name, for people.
        leaving: it was deleted; nobody gets in any more, and what it holds is being removed.
    """

    id: str
    name: str
    egress: str
    created: float
    tripwire: str = "stop"
    metadata: Mapping[str, str] = EMPTY
    leaving: bool = False


class Orgs:
    """The directory of orgs, and the storage of each of their mounts."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._keys = keys
        self._storages: dict[tuple[str, str], Storage] = {}
        self._known: dict[str, Org] = {}
        self._directory = self._open(SYSTEM, MOUNT, [self.epoch_key(SYSTEM)])

    def epoch_key(self, org_id: str) -> str:
        """Store key whose revision stands for the configuration of an org."""
        return f"{org_id}/epoch"

    def people_key(self, org_id: str) -> str:
        """Store key whose revision stands for the identities of an org. They change with logins, so they have one."""
        return f"{org_id}/people"

    def services_key(self, org_id: str) -> str:
        """Store key whose revision stands for the services of an org. They are many, and most changes are of others."""
        return f"{org_id}/bindings"

    def identities(self, org_id: str) -> Storage:
        """The storage of an org's entities and groups."""
        storage = self._storages.get((org_id, IDENTITIES))
        if storage is None:
            storage = self._storages[org_id, IDENTITIES] = self._open(org_id, IDENTITIES, [self.people_key(org_id)])
        return storage

    def storage(self, org_id: str, mount: str, *, configures: bool = False) -> Storage:
        """The storage of one mount of an org. ``configures``: a change of it changes what is compiled for the org."""
        storage = self._storages.get((org_id, mount))
        if storage is None:
            epochs, noted = [self.epoch_key(org_id)] if configures else [], ""
            if mount == SERVICES:
                epochs.append(noted := self.services_key(org_id))
            storage = self._storages[org_id, mount] = self._open(org_id, mount, epochs, noted)
        return storage

    async def id_of(self, name: str) -> str:
        """The id of the org of this name. Raises ``NotFound``."""
        item = await self._directory.get_one(f"name/{name}")
        if item.data is None:
            raise NotFound(f"there is no org {name!r}", "keyhole org list")
        return item.data.decode()

    async def root(self, *, egress: str, now: float) -> Org:
        """The org root, which is made where it is not there."""
        try:
            return await self.by_name(ROOT_ORG)
        except NotFound:  # a new vault, or one whose making was cut off after its keys were written
            return await self.create(ROOT_ORG, egress=egress, now=now)

    async def by_name(self, name: str) -> Org:
        """The org of this name, with its keyring loaded. Raises ``NotFound``."""
        return await self.by_id(await self.id_of(name))

    async def by_id(self, org_id: str) -> Org:
        """The org of this id, with its keyring loaded. Raises ``NotFound``."""
        try:
            org, _ = await self._read(org_id)
            await self._keys.load_ring(org_id)
        except NotFound:
            self._known.pop(org_id, None)
            raise
        self._known[org_id] = org
        return org

    async def _read(self, org_id: str) -> tuple[Org, int]:
        item = await self._directory.get_one(f"id/{org_id}")
        if item.data is None:
            raise NotFound("there is no such org", "keyhole org list")
        return Org(id=org_id, **json.loads(item.data)), item.revision

    def known(self, org_id: str) -> Org | None:
        """The org if it was loaded in this process."""
        return self._known.get(org_id)

    async def names(self) -> list[str]:
        """Names of all orgs."""
        return await self._directory.list("name")

    async def all(self) -> list[Org]:
        """All orgs, by name."""
        paths = [f"name/{name}" for name in await self.names()]
        ids = [item.data.decode() for item in await self._directory.get(*paths) if item.data is not None]
        items = await self._directory.get(*(f"id/{org_id}" for org_id in ids))
        pairs = zip(ids, items, strict=True)
        return [Org(id=org_id, **json.loads(item.data)) for org_id, item in pairs if item.data is not None]

    async def create(self, name: str, *, egress: str, now: float, metadata: Mapping[str, str] | None = None) -> Org:
        """Make an org with its own keys. Raises ``Conflict`` when the name is taken."""
        if egress not in EGRESS:
            raise InvalidRequest(f"egress is one of {', '.join(EGRESS)}", "keyhole org set --egress deny")
        taken = await self._directory.get_one(f"name/{name}")
        if taken.data is not None:
            raise Conflict(f"there is an org {name!r} already", "keyhole org list")
        org = Org(new_id(), name, egress, now, metadata=metadata or {})
        # The keyring first: an org that is listed always has its keys.
        await self._keys.new_ring(org.id)
        await self._directory.commit(
            Change(
                [
                    Write(f"name/{name}", org.id.encode(), taken.revision),
                    Write(f"id/{org.id}", _encode(org), 0),
                ]
            )
        )
        self._known[org.id] = org
        return org

    async def configure(self, org: Org, *, egress: str = "", tripwire: str = "") -> Org:
        """Change settings of an org; an empty one stays. Raises ``InvalidRequest`` for one that does not exist."""
        egress, tripwire = egress or org.egress, tripwire or org.tripwire
        if egress not in EGRESS:
            raise InvalidRequest(f"egress is one of {', '.join(EGRESS)}", "keyhole org set --egress deny")
        if tripwire not in TRIPWIRE:
            raise InvalidRequest(f"tripwire is one of {', '.join(TRIPWIRE)}", "keyhole org set --tripwire stop")
        return await self._change(org.id, egress=egress, tripwire=tripwire)

    async def describe(self, org: Org, metadata: Mapping[str, str]) -> Org:
        """Other texts about an org."""
        return await self._change(org.id, metadata=metadata)

    async def _change(self, org_id: str, **fields: Any) -> Org:
        org, revision = await self._read(org_id)
        changed = org._replace(**fields)
        await self._directory.commit(Change([Write(f"id/{org_id}", _encode(changed), revision)]))
        await self.touch(org_id)
        self._known[org_id] = changed
        return changed

    async def touch(self, org_id: str) -> None:
        """Make every node compile the org's configuration anew."""
        await self._open(org_id, "epoch", [self.epoch_key(org_id)]).commit(Change())

    async def leave(self, org: Org) -> None:
        """Begin to remove an org: its name is free, and nobody gets in. It is due for removal until ``destroy``."""
        if org.name == ROOT_ORG:
            raise InvalidRequest("the org root cannot be deleted", "the others: keyhole org list")
        name, about, leaving = await self._directory.get(f"name/{org.name}", f"id/{org.id}", f"leaving/{org.id}")
        writes = [
            Write(f"id/{org.id}", _encode(org._replace(leaving=True)), about.revision),
            Write(f"leaving/{org.id}", b"", leaving.revision, _AT_ONCE),
        ]
        await self._directory.commit(Change(writes, deletes=[(f"name/{org.name}", name.revision)]))
        await self.touch(org.id)

    def leaving(self, key: str) -> str:
        """The id of the org that is to be removed, from the store key of an entry that is due; empty for others."""
        kind, _, org_id = self._directory.path(key).partition("/")
        return org_id if kind == "leaving" else ""

    async def destroy(self, org_id: str) -> None:
        """Remove an org that is leaving: its keys, which ends all it holds; then the rest.

        Rows of the journal stay and can be verified; with the keys gone nobody can read what they say.
        """
        await self._bury([ring_key(org_id), self.epoch_key(org_id), self.people_key(org_id)])
        await self._bury([self._directory.key(f"id/{org_id}")])
        await self.purge(org_id)
        await self._bury(await self._store.list(f"sys/uses/{org_id}/"))
        await self._bury([self._directory.key(f"leaving/{org_id}")])
        self._known.pop(org_id, None)

    async def purge(self, org_id: str, mount: str = "") -> None:
        """Remove what is left of an org that was deleted, or of one mount of an org."""
        below = f"{org_id}/{mount}/" if mount else f"{org_id}/"
        while keys := await self._store.list(below, limit=_PAGE):
            await self._bury(keys)
        self._storages.pop((org_id, mount), None)

    async def _bury(self, keys: list[str]) -> None:
        while True:
            entries = await self._store.get(keys)
            pairs = zip(keys, entries, strict=True)
            deletes = [Delete(key, entry.revision) for key, entry in pairs if entry.value is not None]
            with contextlib.suppress(Conflict):  # another node removes the same, or a last write came between
                return await self._store.commit(Batch(deletes=deletes))

    async def rotate(self, org_id: str) -> int:
        """A new term of an org's key; returns it. Every node takes it up with its next request."""
        epoch = self.epoch_key(org_id)
        [entry] = await self._store.get([epoch])
        return await self._keys.rotate(org_id, Put(epoch, b"", entry.revision))

    def _open(self, org_id: str, mount: str, epochs: Sequence[str], noted: str = "") -> Storage:
        async def reserve(count: int) -> None:
            await self._keys.reserve(org_id, count)

        if org_id == NO_ORG:
            return Nowhere(self._store, lambda: self._keys.ring(SYSTEM), org_id, mount, reserve, self._keys)
        return Storage(self._store, lambda: self._keys.ring(org_id), org_id, mount, reserve, self._keys, epochs, noted)


def _encode(org: Org) -> bytes:
    data: dict[str, Any] = {"name": org.name, "egress": org.egress, "created": org.created, "tripwire": org.tripwire}
    if org.metadata:
        data["metadata"] = dict(org.metadata)
    if org.leaving:
        data["leaving"] = True
    return json.dumps(data).encode()

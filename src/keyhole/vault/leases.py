"""Leases as stored: what was made for a token for a time, so that it can be taken back whatever happens.

An entry lies in one of two places of the org's mount ``leases``, and moves from one to the other in one commit.

- ``l/<request path>/<mark>``: given out. It is due at its end, so the store's index of due entries finds it.
- ``q/<mark>``: on the way. One that is being made lies here from before anything is made, and is due once nobody can
  be making it any more; one that is being taken back is due when the next try is.

``t/<token>/<mark>`` names the lease for who ends the token. A new lease stands on its token being alive, and a token is
disabled before its leases are listed, so none is made behind the back of a revocation.
"""

from __future__ import annotations

import contextlib
import json
import operator
import string
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from keyhole.core.errors import Conflict, InvalidRequest, Unauthenticated
from keyhole.core.identity import Caller
from keyhole.core.lease import Lease, LeaseState, compute_term
from keyhole.core.path import parse_path
from keyhole.stores import Check
from keyhole.vault.compiled import OrgState
from keyhole.vault.lease_bars import MOUNT as BARS
from keyhole.vault.lease_bars import Bars
from keyhole.vault.lease_places import Place
from keyhole.vault.storage import Change, Storage, Write
from keyhole.vault.tokens import MOUNT as TOKENS

if TYPE_CHECKING:
    from keyhole.vault.vault import Vault

MOUNT = "leases"
ALPHABET = string.ascii_letters + string.digits
_RETRIES = 20
_PAGE = 500  # leases that are read at a time
_UNCOUNTED = contextlib.nullcontext()
_QUEUED = frozenset({LeaseState.PENDING, LeaseState.REVOKING, LeaseState.IRREVOCABLE})
_STORED = tuple(name for name in Lease._fields if name not in {"revision", "warning"})
_values = operator.attrgetter(*_STORED)
_text = json.JSONEncoder(separators=(",", ":")).encode
LAST_USE = "Secret cannot be returned; token had one use left, so leased credentials were immediately revoked."


class Leases:
    """The leases of all orgs.

    Args:
        vault: whose they are. Its tokens say whether the one for which something is leased is alive.

    Attributes:
        bars: what was revoked as a whole lately.
    """

    def __init__(self, vault: Vault) -> None:
        self.bars = Bars(partial(vault.storage, mount=BARS, configures=True))
        self._storage = vault.storage
        self._tokens = vault.tokens

    def storage(self, org_id: str) -> Storage:
        """Where the leases of an org lie."""
        return self._storage(org_id, MOUNT)

    async def begin(
        self,
        caller: Caller,
        lease: Lease,
        now: float,
        place: Place | None = None,
        stands: Callable[[], Awaitable[Check]] | None = None,
    ) -> Lease:
        """Note durably that something is about to be made.

        Args:
            caller: for whom; it ends with its token.
            lease: pending, as ``new_lease`` makes it.
            now: seconds since the epoch.
            place: in the count of the quota that counts for it.
            stands: what has to hold when it is noted, besides that the token is alive; asked again when it does not.

        Raises:
            LeaseLimit: there are as many as may be.
            Unauthenticated: the token was revoked meanwhile.
            InvalidRequest: the token had this one use only.
        """
        change = Change([_queued(lease, lease.until)])
        if lease.token:
            change.writes.append(Write(_index(lease), lease.id.encode(), 0))
        storage = self.storage(caller.org_id)
        async with place.lock if place is not None else _UNCOUNTED:
            for _ in range(_RETRIES):
                stands_on = [await self._alive(caller, now)] if lease.token else []
                stands_on += [await stands()] if stands is not None else []
                try:
                    counted = [await place.take()] if place is not None else []
                    await storage.commit(Change([*change.writes, *counted]), *stands_on)
                except Conflict:
                    continue  # the token was renewed or used meanwhile, or revoked, or another took a place: look again
                return lease._replace(revision=1)
        raise Conflict("the token is being changed by many at once", "try again")

    async def _alive(self, caller: Caller, now: float) -> Check:
        storage = self._storage(caller.org_id, TOKENS)
        token = await self._tokens.get(storage, caller.holder)
        if token is not None and token.uses < 0 and not (token.expires and token.expires <= now):
            raise InvalidRequest(LAST_USE, "use a token that is good for more requests")
        if token is None or not token.live(now):
            raise Unauthenticated("permission denied", "the token was revoked meanwhile")
        return storage.still(f"t/{token.id}", token.revision)

    async def token_lives(self, caller: Caller, now: float) -> bool:
        """Whether a caller's token is still good."""
        token = await self._tokens.get(self._storage(caller.org_id, TOKENS), caller.holder)
        return token is not None and token.live(now)

    async def has_token(self, org_id: str, lease: Lease) -> bool:
        """Whether there is the token for which it was made, expired or not."""
        return await self._tokens.get(self._storage(org_id, TOKENS), lease.token) is not None

    async def activate(self, org_id: str, lease: Lease) -> Lease:
        """Give it out. Raises ``Conflict`` when it is to be taken back already."""
        active = lease._replace(state=LeaseState.ACTIVE, until=0.0, revision=0, queue=lease.revision + 1)
        await self.storage(org_id).commit(Change([as_stored(active)], deletes=[(f"q/{lease.mark}", lease.revision)]))
        return active._replace(revision=1)

    async def get(self, org_id: str, lease_id: str) -> Lease | None:
        """A lease that was given out, expired or not."""
        item = await self.storage(org_id).get_one(f"l/{lease_id}")
        return decode(item.data, item.revision) if item.data is not None else None

    async def queued(self, org_id: str, mark: str) -> Lease | None:
        """A lease that is on the way, by the last segment of its id."""
        item = await self.storage(org_id).get_one(f"q/{mark}")
        return decode(item.data, item.revision) if item.data is not None else None

    async def at(self, org_id: str, paths: Sequence[str]) -> list[Lease]:
        """The leases of these entries that are there. Raises ``IntegrityError`` when one of them was changed."""
        items = await self.storage(org_id).get(*paths) if paths else []
        return [decode(item.data, item.revision) for item in items if item.data is not None]

    async def find(self, org_id: str, lease_id: str) -> Lease | None:
        """A lease in any state."""
        # In one snapshot: it moves from one place to the other.
        places = await self.storage(org_id).get(f"l/{lease_id}", f"q/{lease_id.rpartition('/')[2]}")
        found = [decode(item.data, item.revision) for item in places if item.data is not None]
        return next((lease for lease in found if lease.id == lease_id), None)

    async def all_queued(self, org_id: str) -> list[Lease]:
        """Those that are on the way: being made, being taken back, irrevocable."""
        storage = self.storage(org_id)
        marks = await storage.list("q")
        items = await storage.get(*(f"q/{mark}" for mark in marks)) if marks else []
        return [decode(item.data, item.revision) for item in items if item.data is not None]

    async def below(self, org_id: str, prefix: str) -> list[str]:
        """Ids of those that were given out below a path; of all for the empty one."""
        base = f"l/{prefix}" if prefix else "l"
        return [
            f"{prefix}/{rest}" if prefix else rest for rest in await self.storage(org_id).list(base, recursive=True)
        ]

    async def every(self, org_id: str) -> list[Lease]:
        """All of an org, in every state.

        Those on the way are looked at first: meanwhile one may come to be among those that were given out, and is
        found there, while whatever leaves those is on its way out.
        """
        found = {lease.mark: lease for lease in await self.all_queued(org_id)}
        ids = await self.below(org_id, "")
        for start in range(0, len(ids), _PAGE):
            given = await self.at(org_id, [f"l/{lease_id}" for lease_id in ids[start : start + _PAGE]])
            found |= {lease.mark: lease for lease in given}
        return list(found.values())

    async def names(self, org_id: str, prefix: str) -> list[str]:
        """Names directly below a path; folders end in a slash."""
        return await self.storage(org_id).list(f"l/{prefix}" if prefix else "l")

    async def of_token(self, org_id: str, token_id: str) -> list[str]:
        """Ids of all that were made for a token, in any state."""
        storage = self.storage(org_id)
        marks = await storage.list(f"t/{token_id}")
        items = await storage.get(*(f"t/{token_id}/{mark}" for mark in marks)) if marks else []
        return [item.data.decode() for item in items if item.data is not None]

    async def renew(self, org_id: str, lease: Lease, ttl: int, now: float) -> Lease:
        """Store a longer life. Raises ``Conflict`` when it was renewed or taken back meanwhile."""
        renewed = lease._replace(expires=now + ttl, ttl=ttl, renewed=now)
        await self.storage(org_id).commit(Change([as_stored(renewed)]))
        return renewed._replace(revision=lease.revision + 1)

    async def restore(self, org_id: str, lease: Lease, before: Lease) -> None:
        """Undo a renewal that its engine refused. Raises ``Conflict`` when something else happened to it meanwhile."""
        await self.storage(org_id).commit(Change([as_stored(before._replace(revision=lease.revision))]))

    async def withdraw(self, org_id: str, lease: Lease, due: float, **changes: Any) -> Lease:
        """Take it out of use: from now on it can only be taken back, at ``due``.

        Raises:
            Conflict: something else happened to it meanwhile.
        """
        [withdrawn] = await self.withdraw_all(org_id, [lease], due, **changes)
        return withdrawn

    async def withdraw_all(self, org_id: str, leases: Sequence[Lease], due: float, **changes: Any) -> list[Lease]:
        """``withdraw`` several, all or none."""
        change, after = Change(), []
        for lease in leases:
            lost = lease.state is LeaseState.IRREVOCABLE
            fields = {"state": lease.state if lost else LeaseState.REVOKING, **changes}
            expected = lease.revision if lease.state in _QUEUED else lease.queue
            if lease.state is LeaseState.ACTIVE:
                change.deletes.append((f"l/{lease.id}", lease.revision))
            withdrawn = lease._replace(**fields, revision=expected)
            change.writes.append(_queued(withdrawn, due))
            after.append(withdrawn._replace(revision=expected + 1))
        await self.storage(org_id).commit(change)
        return after

    async def requeue(self, org_id: str, lease: Lease, due: float, place: Place | None = None) -> None:
        """Put one back into the queue that was made after it had been taken back. Raises ``Conflict``."""
        storage = self.storage(org_id)
        queue, index = await storage.get(f"q/{lease.mark}", _index(lease))
        late = lease._replace(state=LeaseState.REVOKING, revision=queue.revision)
        change = Change([_queued(late, due)])
        if lease.token:
            change.writes.append(Write(_index(lease), lease.id.encode(), index.revision))
        if place is not None:
            change.writes.append(await place.take(whatever=True))
        await storage.commit(change)

    async def remove(self, org_id: str, lease: Lease, place: Place | None = None) -> None:
        """Forget one that was taken back. Raises ``Conflict`` when somebody else is at it."""
        storage = self.storage(org_id)
        async with place.lock if place is not None else _UNCOUNTED:
            for attempt in range(_RETRIES):
                deletes = [(f"q/{lease.mark}", lease.revision)]
                if lease.token and (index := await storage.get_one(_index(lease))).data is not None:
                    deletes.append((_index(lease), index.revision))
                counted = await place.give_back() if place is not None else None
                try:
                    await storage.commit(Change([counted] if counted else [], deletes))
                except Conflict:
                    there = await storage.get_one(f"q/{lease.mark}")
                    if counted is None or there.revision != lease.revision or attempt == _RETRIES - 1:
                        raise  # else another lease of the same quota began or ended: count again
                else:
                    return

    async def remove_all(self, org_id: str, leases: Sequence[Lease]) -> None:
        """Forget several for which no quota counts, all or none. Raises ``Conflict``."""
        storage = self.storage(org_id)
        named = [_index(lease) for lease in leases if lease.token]
        found = zip(named, await storage.get(*named), strict=True) if named else ()
        indexes = [(path, item.revision) for path, item in found if item.data is not None]
        await storage.commit(Change(deletes=[*((f"q/{lease.mark}", lease.revision) for lease in leases), *indexes]))


def new_lease(
    caller: Caller,
    path: str,
    mount: str,
    *,
    ttl: int,
    default_ttl: int,
    max_ttl: int,
    renewable: bool,
    internal: Mapping[str, Any],
    now: float,
    until: float,
    target: str = "",
) -> Lease:
    """A lease of something that is about to be made; see ``Lease`` for the fields.

    Raises:
        InvalidRequest: the path is too long for the name of a lease.
    """
    if caller.until:
        left = max(1, int(caller.until - now))
        max_ttl = min(max_ttl, left) if max_ttl else left
    term = compute_term(requested=ttl, default=default_ttl, maximum=max_ttl)
    import secrets  # noqa: PLC0415  # a command that leases nothing starts without it

    mark = "".join(secrets.choice(ALPHABET) for _ in range(24))
    return Lease(
        id=parse_path(f"{path}/{mark}"),
        issued=now,
        expires=now + term.ttl,
        ttl=term.ttl,
        default_ttl=ttl or default_ttl,
        max_ttl=max_ttl,
        renewable=renewable,
        internal=internal,
        mount=mount,
        target=target,
        token=caller.holder,
        caller=caller.name,
        accessor=caller.accessor,
        until=until,
        warning=term.warning,
    )


async def tidy(leases: Leases, state: OrgState, end: Callable[[OrgState, list[str]], Awaitable[Any]]) -> int:
    """End leases whose token is gone, and remove names of leases that are gone; returns how many there were.

    Neither comes about while the store keeps its promises.
    """
    org_id, found = state.org.id, 0
    storage = leases.storage(org_id)
    for name in await storage.list("t", recursive=True):
        item = await storage.get_one(f"t/{name}")
        if item.data is None:
            continue
        lease = await leases.find(org_id, item.data.decode())
        if lease is None:
            found += 1
            await storage.commit(Change(deletes=[(f"t/{name}", item.revision)]))
        elif not await leases.has_token(org_id, lease):
            found += 1
            await end(state, [lease.id])
    return found


def _index(lease: Lease) -> str:
    return f"t/{lease.token}/{lease.mark}"


def as_stored(lease: Lease) -> Write:
    """The entry of one that is given out."""
    return Write(f"l/{lease.id}", _encode(lease), lease.revision, lease.expires)


def _queued(lease: Lease, due: float) -> Write:
    return Write(f"q/{lease.mark}", _encode(lease), lease.revision, due)


def _encode(lease: Lease) -> bytes:
    return _text(dict(zip(_STORED, _values(lease), strict=True))).encode()


def decode(data: bytes, revision: int) -> Lease:
    """The lease of an entry."""
    stored = json.loads(data)
    stored["state"] = LeaseState(stored["state"])
    return Lease(revision=revision, **stored)

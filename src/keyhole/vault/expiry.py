"""The end of leases: what was leased is taken back at its source, whatever fails on the way.

Whoever takes one back claims it first by writing its next due time into the store, so that several nodes do not work
at the same lease, and one whose claimant died is found again. What cannot be taken back is tried again later, and after
some tries called irrevocable: kept, listed, alarmed, and tried again once a day, or when its target is back.

Each target has a line of its own with a bounded number of tries at the same time, and each try has a time limit, so
that one that does not answer delays nobody else's leases.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from keyhole.core.errors import (
    Conflict,
    InternalError,
    KeyholeError,
    NotFound,
    TargetAway,
    UpstreamTimeout,
    UpstreamUnreachable,
    fault_place,
)
from keyhole.core.identity import Caller
from keyhole.core.lease import Lease, LeaseState
from keyhole.core.record import Phase, Record
from keyhole.engines import RevokeAll
from keyhole.vault.compiled import OrgState
from keyhole.vault.keys import new_request_id
from keyhole.vault.lease_lines import Job, LeaseLimits, Line, Tried, batches, chance
from keyhole.vault.mounts import Mount

if TYPE_CHECKING:
    from keyhole.net.tasks import Tasks
    from keyhole.vault.vault import Vault

T = TypeVar("T")
_log = logging.getLogger("keyhole.leases")
_CHUNK = 50  # leases of one commit
_NOW = 1.0  # due before everything else
_AWAY = (TargetAway, UpstreamUnreachable, UpstreamTimeout)


class Expiry:
    """Takes leases back.

    Args:
        vault: whose leases they are.
        limits: bounds; set them before the first lease ends.

    Attributes:
        background: somebody sweeps from time to time, so nobody has to wait for what can be done later.
        counts: how many were taken back (``revoked``), tries that failed (``failed``), became ``irrevocable``.
        taken: how many were taken back, by org.
    """

    def __init__(self, vault: Vault, limits: LeaseLimits | None = None) -> None:
        self.limits = limits or LeaseLimits()
        self.background = False
        self.counts = {"revoked": 0, "failed": 0, "irrevocable": 0}
        self.taken: dict[str, int] = {}
        self._vault = vault
        self._lines: dict[tuple[str, str, str], Line] = {}
        self._running: dict[str, Job] = {}
        self._kept: Tasks | None = None
        self._once: set[str] = set()
        self._crowded = False
        self._freed = asyncio.Event()

    def begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Have work done by itself; what is not done when the vault is closed is stopped."""
        if self._kept is None:
            from keyhole.net.tasks import Tasks  # noqa: PLC0415  # most commands begin nothing

            self._kept = Tasks()
        return self._kept.begin(work)

    def begin_once(self, key: str, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """As ``begin``, unless work of this key is under way."""
        if key not in self._once:
            self._once.add(key)
            self.begin(make()).add_done_callback(lambda _: self._once.discard(key))

    async def drain(self) -> None:
        """Wait until nothing is under way."""
        if self._kept is not None:
            await self._kept.settle()

    async def rest(self, seconds: float) -> None:
        """Wait that long, or until there is room again for what did not fit."""
        crowded, self._crowded = self._crowded, False
        if not crowded:
            await asyncio.sleep(seconds)
            return
        await asyncio.sleep(0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._freed.wait()

    async def close(self) -> None:
        """Stop; what was claimed is due again later."""
        if self._kept is not None:
            await self._kept.end()

    async def end(
        self, state: OrgState, ids: Iterable[str], *, wait: bool = False, force: bool = False, made: bool = False
    ) -> int:
        """Take leases back: durably out of use when this returns, and at their source then or soon after.

        Args:
            state: of their org.
            ids: what is not among the leases is passed over.
            wait: return when each was tried at its source.
            force: forget also those that cannot be taken back.
            made: nobody is making them any more. Without it those that may still be are out of use too, and are taken
                back when they are made.

        Returns:
            How many there were.

        Raises:
            KeyholeError: with ``wait``, the first failure; that lease is tried again later.
        """
        errors: list[KeyholeError] = []
        count, chunk = 0, list[Lease]()
        here = wait or force or not self.background
        for lease_id in ids:
            lease = await self._vault.leases.find(state.org.id, lease_id)
            if lease is None:
                continue
            count += 1
            if not made and lease.until > self._vault.clock.now():
                out = await self._withdrawn(state, [lease], lease.until)
                chunk += [each for each in out if not each.until]  # those that were given out at this very moment
            else:
                chunk.append(lease)
            if len(chunk) == _CHUNK:
                errors += await self._end(state, chunk, here=here, force=force)
                chunk = []
        errors += await self._end(state, chunk, here=here, force=force)
        if errors and wait:
            raise errors[0]
        return count

    async def _end(self, state: OrgState, leases: list[Lease], *, here: bool, force: bool) -> list[KeyholeError]:
        now = self._vault.clock.now()
        under_way = {lease.mark: self._running[lease.mark] for lease in leases if lease.mark in self._running}
        idle = [lease for lease in leases if lease.mark not in self._running]
        if force and under_way:
            await asyncio.wait(under_way.values())
            again = [await self._vault.leases.find(state.org.id, lease.id) for lease in leases if lease not in idle]
            idle += [lease for lease in again if lease is not None]
            under_way = {}
        if not here:
            room = [lease for lease in idle if self._room(state, lease, now) > 0]
            await self._withdrawn(state, [lease for lease in idle if lease not in room], _NOW)
            self._start(state, await self._withdrawn(state, room, now + self.limits.claim))
            return []
        claimed = await self._withdrawn(state, idle, now + self.limits.claim)
        under_way |= self._start(state, claimed, force=force)
        if under_way:
            await asyncio.wait(under_way.values())  # which does not end them when whoever waits has gone
        tried = [(mark, job.result()) for mark, job in under_way.items() if not job.cancelled()]
        return [error for mark, errors in tried if (error := errors.get(mark)) is not None]

    async def _withdrawn(self, state: OrgState, leases: Sequence[Lease], due: float) -> list[Lease]:
        """These, out of use and due then. What somebody else has changed meanwhile is read again."""
        if not leases:
            return []
        store = self._vault.leases
        with contextlib.suppress(Conflict):
            return await store.withdraw_all(state.org.id, leases, due)
        found = []
        for lease in leases:
            current: Lease | None = lease
            while current is not None:
                try:
                    found.append(await store.withdraw(state.org.id, current, due))
                    break
                except Conflict:
                    current = await store.find(state.org.id, lease.id)
        return found

    async def take(self, state: OrgState, keys: Sequence[str]) -> int:
        """Take back what the store found to be due; of how many that has begun.

        Raises:
            IntegrityError: an entry was changed.
        """
        now = self._vault.clock.now()
        waiting: dict[tuple[str, str], list[Lease]] = {}
        for start in range(0, len(keys), _CHUNK):
            found = await self._due(state, keys[start : start + _CHUNK], now)
            for lease in found:
                waiting.setdefault((lease.mount, lease.target), []).append(lease)
            if found and all(self._must_wait(state, lease, waiting, now) for lease in found):
                self._crowded = True  # what follows is looked at when there is room again
                break
        self._freed.clear()
        begun = 0
        for leases in waiting.values():
            line, room = self._line(state, leases[0], now), self._room(state, leases[0], now)
            begun += len(self._start(state, await self._claimed(state, leases[:room], now + self.limits.claim)))
            if len(leases) > room:
                self._crowded = True
                if line.is_stuck(now, self.limits):
                    # They step back, so that others' become visible to the store's index behind them.
                    line.away = True
                    later = now + self.limits.claim * chance()
                    await self._claimed(state, leases[room:], later, error="others wait for the same target")
        return begun

    def go_on(self) -> None:
        """More is due than was looked at: do not wait for the next sweep."""
        self._crowded = True
        self._freed.set()

    def _must_wait(
        self, state: OrgState, lease: Lease, waiting: Mapping[tuple[str, str], list[Lease]], now: float
    ) -> bool:
        full = len(waiting[lease.mount, lease.target]) > self._room(state, lease, now)
        return full and not self._line(state, lease, now).is_stuck(now, self.limits)

    async def _due(self, state: OrgState, keys: Sequence[str], now: float) -> list[Lease]:
        storage = self._vault.leases.storage(state.org.id)
        paths = [path for path in map(storage.path, keys) if path.rpartition("/")[2] not in self._running]
        found = await self._vault.leases.at(state.org.id, paths)
        return [lease for lease in found if lease.state is not LeaseState.ACTIVE or lease.expires <= now]

    async def _claimed(self, state: OrgState, leases: Sequence[Lease], due: float, **changes: Any) -> list[Lease]:
        """Those of these that nobody has changed, out of use and due then."""
        claimed = []
        for start in range(0, len(leases), _CHUNK):
            chunk = leases[start : start + _CHUNK]
            try:
                claimed += await self._vault.leases.withdraw_all(state.org.id, chunk, due, **changes)
            except Conflict:
                for lease in chunk:
                    with contextlib.suppress(Conflict):  # another node has it, or it was renewed
                        claimed.append(await self._vault.leases.withdraw(state.org.id, lease, due, **changes))
        return claimed

    def _room(self, state: OrgState, lease: Lease, now: float) -> int:
        """How many more leases may be claimed of the line of this one."""
        return max(0, self.limits.line - self._line(state, lease, now).length)

    def _line(self, state: OrgState, lease: Lease, now: float) -> Line:
        key = (state.org.id, lease.mount, lease.target)
        if key not in self._lines:
            self._lines[key] = Line(self.limits.jobs, now)
        return self._lines[key]

    def _start(self, state: OrgState, leases: Sequence[Lease], *, force: bool = False) -> dict[str, Job]:
        """Begin to take back what was claimed; each lease's try by its last segment."""
        lines: dict[tuple[str, str], list[Lease]] = {}
        for lease in leases:
            lines.setdefault((lease.mount, lease.target), []).append(lease)
        started: dict[str, Job] = {}
        for (mount_id, _), of_line in lines.items():
            mount = mount_of(self._vault, state, mount_id)
            most = self.limits.batch if mount is not None and mount.engine.revoke_all is not None else 1
            for batch in batches(of_line, most):
                started |= self._start_one(state, batch, force=force)
        return started

    def _start_one(self, state: OrgState, batch: list[Lease], *, force: bool) -> dict[str, Job]:
        line = self._line(state, batch[0], now := self._vault.clock.now())
        if not line.length:
            line.moved = now
        line.length += len(batch)
        job = self.begin(self._in_turn(state, batch, line, force=force))
        started = {lease.mark: job for lease in batch}
        self._running |= started

        def done(_job: Job) -> None:
            for mark in started:
                if self._running.get(mark) is job:  # somebody may have asked for it once more meanwhile
                    del self._running[mark]
            line.length -= len(batch)
            if line.length <= self.limits.line // 2:
                self._freed.set()

        job.add_done_callback(done)
        return started

    async def _in_turn(self, state: OrgState, batch: list[Lease], line: Line, *, force: bool) -> Tried:
        async with line.turns:
            errors = await self._revoke(state, batch)
            tried = {lease.mark: error for lease, error in zip(batch, errors, strict=True)}
            for lease in batch:
                self._record(state, lease, tried[lease.mark], force=force)
            done = [lease for lease in batch if tried[lease.mark] is None]
            forgotten = [lease for lease in batch if force or tried[lease.mark] is None]
            self.counts["revoked"] += len(done)
            self.taken[state.org.id] = self.taken.get(state.org.id, 0) + len(done)
            tried |= dict.fromkeys((lease.mark for lease in forgotten), None) | await self._forget(state, forgotten)
        if done:
            line.moved = self._vault.clock.now()
        if any(line.relieve(lease.mark) for lease in forgotten) and not done:
            await self._rally(state, forgotten[0])  # another one has to be the scout
        again = [self._try_again(state, lease, tried, line) for lease in batch if lease not in forgotten]
        lost = [lease for lease in await asyncio.gather(*again) if lease is not None]
        if lost:
            await self._alarm(state, lost)
        if done and (line.away or any(lease.attempts for lease in done)) and line.may_rally(line.moved):
            await self._rally(state, done[0])
        return tried

    def _record(self, state: OrgState, lease: Lease, error: KeyholeError | None, *, force: bool) -> None:
        record = Record(
            phase=Phase.EVENT,
            id=new_request_id(),
            caller=lease.caller,
            accessor=lease.accessor,
            operation="revoke-lease",
            lease=lease.id,
            result="ok" if error is None else f"forgotten: {error.code}" if force else error.code,
        )
        self._vault.journal.outcome(record.encode(), state.org.id)

    async def _forget(self, state: OrgState, leases: list[Lease]) -> Tried:
        """Remove what was taken back; what the store refuses is due again after its claim."""
        store, latest = self._vault.leases, self._vault.compiled.last(state.org.id) or state
        failed: Tried = {}
        try:
            kinds = {(each.path, each.caller) for each in leases}
            places = {kind: await self._vault.quotas.place(latest, *kind) for kind in kinds}
            if leases and not any(places.values()):
                with contextlib.suppress(Conflict):
                    await store.remove_all(state.org.id, leases)
                    return failed
        except KeyholeError as failure:
            return {lease.mark: failure for lease in leases}
        for lease in leases:
            try:
                await store.remove(state.org.id, lease, places[lease.path, lease.caller])
            except Conflict:  # another node took over after our claim, or somebody asked for it once more
                continue
            except KeyholeError as failure:
                failed[lease.mark] = failure
        return failed

    async def _revoke(self, state: OrgState, leases: list[Lease]) -> list[KeyholeError | None]:
        """One try, of all of one batch; why each failed."""
        mount = mount_of(self._vault, state, leases[0].mount)
        if mount is None:
            gone = NotFound("the mount that made it is gone", "forget the lease: PUT sys/leases/revoke-force/ID")
            return [gone for _ in leases]
        engine = mount.engine
        if engine.revoke is None:
            return [None for _ in leases]
        nobody = Caller(state.org.name, state.org.id, leases[0].caller, "", "full", (), await self.nobody_acl(state))
        context = self._vault.context(state, nobody, mount)
        if len(leases) == 1 or engine.revoke_all is None:
            return [await self.bounded(engine.revoke(context, lease)) for lease in leases]
        errors: list[KeyholeError | None] = []

        async def revoke_all(together: RevokeAll) -> None:
            errors.extend(await together(context, leases))

        error = await self.bounded(revoke_all(engine.revoke_all))
        return errors if error is None else [error for _ in leases]

    async def _rally(self, state: OrgState, lease: Lease) -> None:
        """The target of a lease has answered: what has waited for it is due now."""
        waiting = [
            each
            for each in await self._vault.leases.all_queued(state.org.id)
            if (each.mount, each.target) == (lease.mount, lease.target) and each.error
        ]
        await self._claimed(state, [each for each in waiting if each.mark not in self._running], _NOW)

    async def nobody_acl(self, state: OrgState) -> Any:
        """An access list that gives nothing."""
        return await self._vault.compiled.acl(state, ())

    async def bounded(self, doing: Coroutine[Any, Any, None] | Any) -> KeyholeError | None:
        """Let an engine do something within the time limit; the failure if it failed."""
        try:
            async with asyncio.timeout(self.limits.attempt):
                await doing
        except KeyholeError as error:
            return error
        except TimeoutError:
            return UpstreamTimeout("the target did not answer in time", "is it reachable?")
        except Exception as error:  # noqa: BLE001 - a fault of an engine must not end the leases of the others
            _log.error("internal error: %s", fault_place(error))
            return InternalError("the engine failed", "see the server's log")
        return None

    async def _try_again(self, state: OrgState, lease: Lease, tried: Tried, line: Line) -> Lease | None:
        """Note when it is tried again. What the store refuses is due again after its claim.

        Returns:
            The lease when it has become irrevocable now.
        """
        if (error := tried[lease.mark]) is None:
            return None
        self.counts["failed"] += 1
        line.away = line.away or isinstance(error, _AWAY)
        was = lease.state is LeaseState.IRREVOCABLE
        failed = lease._replace(attempts=lease.attempts + 1, error=error.reason)
        lost = was or failed.attempts >= self.limits.tries
        due = self._vault.clock.now() + line.next_wait(failed, self.limits, lost=lost)
        now = LeaseState.IRREVOCABLE if lost else LeaseState.REVOKING
        try:
            await self._vault.leases.withdraw(state.org.id, failed, due, state=now)
        except Conflict:  # another node took over after our claim, or somebody asked for it once more
            return None
        except KeyholeError as failure:
            tried[lease.mark] = failure
            return None
        return failed if lost and not was else None

    async def _alarm(self, state: OrgState, lost: list[Lease]) -> None:
        """Say that these, of one try, are irrevocable."""
        self.counts["irrevocable"] += len(lost)
        first, more = lost[0], len(lost) - 1
        who = Caller(state.org.name, state.org.id, first.caller, "", "full", (), await self.nobody_acl(state))
        which = f"{first.id} and {more} more of its kind" if more else first.id
        what = f"the lease {which} could not be revoked {first.attempts} times: {first.error}"
        await self._vault.alarm(state, who, new_request_id(), "", what)


def mount_of(vault: Vault, state: OrgState, mount_id: str) -> Mount | None:
    """The mount of this id; ``None`` when it is gone."""
    latest = vault.compiled.last(state.org.id) or state
    return latest.mounts.by_id(mount_id)

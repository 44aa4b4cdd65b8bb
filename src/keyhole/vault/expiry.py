"""The end of leases: what was leased is taken back at its source, whatever fails on the way.

Whoever takes one back claims it first by writing its next due time into the store, so that several nodes do not work
at the same lease, and one whose claimant died is found again. What cannot be taken back is tried again later and later,
and after some tries called irrevocable: kept, listed, alarmed, and tried again once a day.

Each mount has a line of its own with a bounded number of tries at the same time, and each try has a time limit, so that
a target that does not answer delays nobody else's leases.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from keyhole.core.errors import Conflict, InternalError, InvalidRequest, KeyholeError, NotFound, fault_place
from keyhole.core.identity import Caller
from keyhole.core.lease import Lease, LeaseState
from keyhole.core.record import Phase, Record
from keyhole.vault.compiled import OrgState
from keyhole.vault.keys import new_request_id
from keyhole.vault.mounts import Mount

if TYPE_CHECKING:
    from keyhole.vault.vault import Vault

_log = logging.getLogger("keyhole.leases")
_CHUNK = 50  # leases of one commit
_NOW = 1.0  # due before everything else
_JITTER = 0.5


@dataclass(frozen=True, slots=True)
class LeaseLimits:
    """Bounds on taking leases back. Seconds, unless it says otherwise.

    Attributes:
        making: how long something leased may take to be made; what was not given out by then is taken back.
        attempt: how long one try may take.
        claim: for how long no other node tries; more than the tries in a full line take that succeed.
        first_retry: wait after the first failed try, doubled with each further one, half more or less by chance.
        tries: failed ones after which a lease is irrevocable; a number.
        slow_retry: wait between tries of an irrevocable one.
        stuck: a line in which nothing was taken back for so long lets others pass.
        jobs: tries at the same time, of one mount; a number.
        line: leases of one mount that are claimed and wait for their try; a number.
    """

    making: float = 30.0
    attempt: float = 30.0
    claim: float = 90.0
    first_retry: float = 10.0
    tries: int = 6
    slow_retry: float = 86_400.0
    stuck: float = 5.0
    jobs: int = 32
    line: int = 256


class _Line:
    """The leases of one mount that are being taken back."""

    __slots__ = ("length", "moved", "turns")

    def __init__(self, turns: int, now: float) -> None:
        self.length = 0
        self.moved = now
        self.turns = asyncio.Semaphore(turns)


Job = asyncio.Task[KeyholeError | None]


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
        self._lines: dict[tuple[str, str], _Line] = {}
        self._running: dict[str, Job] = {}
        self._kept: set[asyncio.Task[Any]] = set()
        self._crowded = False
        self._freed = asyncio.Event()

    def keep(self, job: asyncio.Task[Any]) -> None:
        """Hold on to a task until it ends."""
        self._kept.add(job)
        job.add_done_callback(self._kept.discard)

    async def drain(self) -> None:
        """Wait until nothing is under way."""
        while self._kept:
            await asyncio.wait(self._kept)

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
        kept = list(self._kept)
        for job in kept:
            job.cancel()
        await asyncio.gather(*kept, return_exceptions=True)

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
            if made or lease.until <= self._vault.clock.now():
                chunk.append(lease)
            else:
                await self._withdrawn(state, [lease], lease.until)
            if len(chunk) == _CHUNK:
                errors += await self._end(state, chunk, here=here, force=force)
                chunk = []
        errors += await self._end(state, chunk, here=here, force=force)
        if errors and wait:
            raise errors[0]
        return count

    async def _end(self, state: OrgState, leases: list[Lease], *, here: bool, force: bool) -> list[KeyholeError]:
        now = self._vault.clock.now()
        under_way = [self._running[lease.mark] for lease in leases if lease.mark in self._running]
        idle = [lease for lease in leases if lease.mark not in self._running]
        if force and under_way:
            await asyncio.wait(under_way)
            again = [await self._vault.leases.find(state.org.id, lease.id) for lease in leases if lease not in idle]
            idle += [lease for lease in again if lease is not None]
            under_way = []
        if not here:
            room = [lease for lease in idle if self._room(state, lease.mount, now)]
            await self._withdrawn(state, [lease for lease in idle if lease not in room], _NOW)
            for lease in await self._withdrawn(state, room, now + self.limits.claim):
                self._start(state, lease)
            return []
        claimed = await self._withdrawn(state, idle, now + self.limits.claim)
        under_way += [self._start(state, lease, force=force) for lease in claimed]
        if under_way:
            await asyncio.wait(under_way)  # which does not end them when whoever waits has gone
        return [error for job in under_way if not job.cancelled() and (error := job.result()) is not None]

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

    async def take(self, state: OrgState, keys: Sequence[str]) -> None:
        """Take back what the store found to be due. Raises ``IntegrityError`` for an entry that was changed."""
        now = self._vault.clock.now()
        waiting: dict[str, list[Lease]] = {}
        for start in range(0, len(keys), _CHUNK):
            found = await self._due(state, keys[start : start + _CHUNK], now)
            for lease in found:
                waiting.setdefault(lease.mount, []).append(lease)
            if found and all(self._must_wait(state, lease.mount, waiting, now) for lease in found):
                self._crowded = True  # what follows is looked at when there is room again
                break
        self._freed.clear()
        for mount, leases in waiting.items():
            room = self._room(state, mount, now)
            for lease in await self._claimed(state, leases[:room], now + self.limits.claim):
                self._start(state, lease)
            if len(leases) > room:
                self._crowded = True
                if self._is_stuck(state, mount, now):
                    # They step back, so that others' become visible to the store's index behind them.
                    await self._claimed(state, leases[room:], now + self.limits.claim * _chance())

    def _must_wait(self, state: OrgState, mount: str, waiting: Mapping[str, list[Lease]], now: float) -> bool:
        full = len(waiting[mount]) > self._room(state, mount, now)
        return full and not self._is_stuck(state, mount, now)

    def _is_stuck(self, state: OrgState, mount: str, now: float) -> bool:
        line = self._line(state, mount, now)
        return line.length > 0 and now - line.moved >= self.limits.stuck

    async def _due(self, state: OrgState, keys: Sequence[str], now: float) -> list[Lease]:
        storage = self._vault.leases.storage(state.org.id)
        paths = [path for path in map(storage.path, keys) if path.rpartition("/")[2] not in self._running]
        found = await self._vault.leases.at(state.org.id, paths)
        return [lease for lease in found if lease.state is not LeaseState.ACTIVE or lease.expires <= now]

    async def _claimed(self, state: OrgState, leases: Sequence[Lease], due: float) -> list[Lease]:
        """Those of these that nobody has changed, out of use and due then."""
        claimed = []
        for start in range(0, len(leases), _CHUNK):
            chunk = leases[start : start + _CHUNK]
            try:
                claimed += await self._vault.leases.withdraw_all(state.org.id, chunk, due)
            except Conflict:
                for lease in chunk:
                    with contextlib.suppress(Conflict):  # another node has it, or it was renewed
                        claimed.append(await self._vault.leases.withdraw(state.org.id, lease, due))
        return claimed

    def _room(self, state: OrgState, mount: str, now: float) -> int:
        """How many more leases of a mount may be claimed."""
        return self.limits.line - self._line(state, mount, now).length

    def _line(self, state: OrgState, mount: str, now: float) -> _Line:
        key = (state.org.id, mount)
        if key not in self._lines:
            self._lines[key] = _Line(self.limits.jobs, now)
        return self._lines[key]

    def _start(self, state: OrgState, lease: Lease, *, force: bool = False) -> Job:
        line = self._line(state, lease.mount, self._vault.clock.now())
        if not line.length:
            line.moved = self._vault.clock.now()
        line.length += 1
        job = asyncio.get_running_loop().create_task(self._in_turn(state, lease, line, force=force))
        self._running[lease.mark] = job
        self.keep(job)

        def done(_job: Job) -> None:
            del self._running[lease.mark]
            line.length -= 1
            if line.length <= self.limits.line // 2:
                self._freed.set()

        job.add_done_callback(done)
        return job

    async def _in_turn(self, state: OrgState, lease: Lease, line: _Line, *, force: bool) -> KeyholeError | None:
        async with line.turns:
            error = await self._finish(state, lease, force=force)
        if error is None:
            line.moved = self._vault.clock.now()
        return error

    async def _finish(self, state: OrgState, lease: Lease, *, force: bool) -> KeyholeError | None:
        """One try, with its record; the failure if it failed."""
        try:
            error = await self._revoke(state, lease)
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
            if error is None or force:
                self.counts["revoked"] += error is None
                self.taken[state.org.id] = self.taken.get(state.org.id, 0) + (error is None)
                latest = self._vault.compiled.last(state.org.id) or state
                await self._vault.leases.remove(state.org.id, lease, await self._vault.quotas.place(latest, lease.path))
                return None
            self.counts["failed"] += 1
            await self._try_again(state, lease, error)
        except Conflict:  # another node took over after our claim, or somebody asked for it once more
            return error
        except KeyholeError as failure:  # of the store: it is due again after its claim
            return failure
        return error

    async def _revoke(self, state: OrgState, lease: Lease) -> KeyholeError | None:
        mount = mount_of(self._vault, state, lease.mount)
        if mount is None:
            return NotFound("the mount that made it is gone", "forget the lease: PUT sys/leases/revoke-force/ID")
        if mount.engine.revoke is None:
            return None
        nobody = Caller(state.org.name, state.org.id, lease.caller, "", "full", (), await self.nobody_acl(state))
        context = self._vault.context(state, nobody, mount)
        return await self._bounded(mount.engine.revoke(context, lease))

    async def nobody_acl(self, state: OrgState) -> Any:
        """An access list that gives nothing."""
        return await self._vault.compiled.acl(state, ())

    async def _bounded(self, doing: Coroutine[Any, Any, None] | Any) -> KeyholeError | None:
        """Let an engine do something within the time limit; the failure if it failed."""
        try:
            async with asyncio.timeout(self.limits.attempt):
                await doing
        except KeyholeError as error:
            return error
        except TimeoutError:
            return InternalError("the target did not answer in time", "is it reachable?")
        except Exception as error:  # noqa: BLE001 - a fault of an engine must not end the leases of the others
            _log.error("internal error: %s", fault_place(error))
            return InternalError("the engine failed", "see the server's log")
        return None

    async def _try_again(self, state: OrgState, lease: Lease, error: KeyholeError) -> None:
        limits, attempts = self.limits, lease.attempts + 1
        was = lease.state is LeaseState.IRREVOCABLE
        lost = was or attempts >= limits.tries
        wait = limits.slow_retry if lost else limits.first_retry * 2**lease.attempts
        await self._vault.leases.withdraw(
            state.org.id,
            lease,
            self._vault.clock.now() + wait * _chance(),
            state=LeaseState.IRREVOCABLE if lost else LeaseState.REVOKING,
            attempts=attempts,
            error=error.reason,
        )
        if lost and not was:
            self.counts["irrevocable"] += 1
            who = Caller(state.org.name, state.org.id, lease.caller, "", "full", (), await self.nobody_acl(state))
            what = f"the lease {lease.id} could not be revoked {attempts} times: {error.reason}"
            await self._vault.alarm(state, who, new_request_id(), "", what)

    async def renew(self, state: OrgState, lease_id: str, increment: int) -> Lease:
        """Extend a lease, first where we note it and then at its source.

        Args:
            state: of its org.
            lease_id: whole.
            increment: seconds from now; 0 for as much as it was given first.

        Raises:
            InvalidRequest: there is none, or it cannot be renewed.
            KeyholeError: the source refused; it ends when it would have.
        """
        store = self._vault.leases
        while True:
            now = self._vault.clock.now()
            lease = await store.get(state.org.id, lease_id)
            if lease is None or lease.expires <= now:
                raise InvalidRequest("lease not found", "it is unknown, or it has ended: ask for a new one")
            term = lease.term(increment, now)
            try:
                renewed = await store.renew(state.org.id, lease, term.ttl, now)
                break
            except Conflict:
                continue
        mount = mount_of(self._vault, state, lease.mount)
        if mount is not None and mount.engine.renew is not None:
            nobody = Caller(state.org.name, state.org.id, lease.caller, "", "full", (), await self.nobody_acl(state))
            context = self._vault.context(state, nobody, mount)
            error = await self._bounded(mount.engine.renew(context, renewed, term.ttl))
            if error is not None:
                with contextlib.suppress(Conflict):
                    await store.restore(state.org.id, renewed, lease)
                raise error
        return replace(renewed, warning=term.warning)


def mount_of(vault: Vault, state: OrgState, mount_id: str) -> Mount | None:
    """The mount of this id; ``None`` when it is gone."""
    latest = vault.compiled.last(state.org.id) or state
    return latest.mounts.by_id(mount_id)


def _chance() -> float:
    """Half more or less."""
    return random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - spreads retries, protects nothing

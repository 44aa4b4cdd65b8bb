"""Who takes how much of this process: calls under way, bodies held, sessions, certificates. The one place that counts.

Every request comes here once, as soon as it is known who asks: the proxy's calls and the API's requests alike. It is
refused when its org or its agent has its share already, and waits its turn while many others of its org are being
judged. Whatever it took is given back when it ends, however it ends.

Refusals are counted, and the counts are records of the org's journal: a record for each would be a flood of its own.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from keyhole.core.bucket import Bucket
from keyhole.core.cidr import network
from keyhole.core.errors import RateLimited
from keyhole.core.fair import ASKING
from keyhole.core.record import Phase, Record
from keyhole.core.shares import ShareLimits, part_of
from keyhole.vault.admission import Admission
from keyhole.vault.keys import new_request_id
from keyhole.vault.starting import Starting

if TYPE_CHECKING:
    from keyhole.core.identity import Caller
    from keyhole.core.message import Seat
    from keyhole.vault.compiled import OrgState
    from keyhole.vault.vault import Vault

_INTERVAL = 30.0  # seconds between two records of how many were refused
_BUCKETS = 20_000  # rates that are remembered; the one that was used least lately is forgotten first
_COUNTED = 1_000  # agents whose refusals are counted by name between two records
_LATER = "let some end first, or ask an operator for a larger share"
_SLOWER = "call less often, or ask an operator for a higher rate"
_KNOWN_HOSTS = "use hosts that were used before, or wait"


class _Used:
    """What an agent, an org or all take now."""

    __slots__ = ("calls", "held", "sessions")

    def __init__(self) -> None:
        self.calls = self.held = self.sessions = 0


class _Tenant:
    """An org."""

    __slots__ = ("agents", "all", "calls", "id", "parts", "seats", "starting")

    def __init__(self, org_id: str, name: str, limits: ShareLimits) -> None:
        self.id = org_id
        self.parts = limits.parts(name)
        self.calls = tuple(part_of(limits.calls, part) for part in self.parts)
        self.all = _Used()
        self.agents: dict[str, _Used] = {}
        self.seats: dict[int, tuple[int, int]] = {}  # by what their listener holds
        self.starting = Starting(limits)

    def of(self, agent: str) -> _Used:
        """What an agent takes now."""
        used = self.agents.get(agent)
        if used is None:
            used = self.agents[agent] = _Used()
        return used

    def of_seats(self, seat: Seat) -> tuple[int, int]:
        """How many connections it, and an agent of it, may have at the listener of one."""
        whole, own = (part_of(seat.capacity, part) for part in self.parts)
        return self.seats.setdefault(seat.capacity, (whole, own))

    def tidy(self, agent: str) -> None:
        """Forget an agent that takes nothing."""
        used = self.agents.get(agent)
        if used is not None and not (used.calls or used.held or used.sessions):
            del self.agents[agent]


class Held:
    """Bytes that are held for one request."""

    __slots__ = ("_agent", "_bytes", "_shares", "_tenant")

    def __init__(self, shares: Shares, tenant: _Tenant, agent: str) -> None:
        self._shares = shares
        self._tenant = tenant
        self._agent = agent
        self._bytes = 0

    def take(self, size: int) -> None:
        """Hold so many more. Raises ``RateLimited`` when there is no room for them."""
        self._shares.take_bytes(self._tenant, self._agent, size)
        self._bytes += size

    def release(self) -> None:
        """None of them is held any more."""
        if self._bytes:
            size, self._bytes = self._bytes, 0
            self._shares.give_bytes(self._tenant, self._agent, size)


class Turn(Held):
    """One call or request under way, and what is held for it."""

    __slots__ = ("_ended", "_then", "_work")

    def __init__(self, shares: Shares, tenant: _Tenant, agent: str) -> None:
        self._shares = shares
        self._tenant = tenant
        self._agent = agent
        self._bytes = 0
        self._ended = False
        self._work: asyncio.Future[Any] | None = None
        self._then: tuple[Callable[[], None], ...] = ()

    def started(self) -> None:
        """It has been judged, and goes on by itself: another one may start. Said again, nothing happens."""
        self._tenant.starting.leave(self)

    def then(self, act: Callable[[], None]) -> None:
        """Do this too at its end."""
        self._then = (*self._then, act)

    def outlast(self, work: asyncio.Future[Any]) -> None:
        """It ends no sooner than this, which goes on when its caller has gone."""
        self._work = work

    def end(self) -> None:
        """It has ended. Said again, nothing happens."""
        if self._work is not None and not self._work.done():
            self._work.add_done_callback(lambda _: self.end())
        elif not self._ended:
            self._ended = True
            self.release()
            self._shares.ended(self._tenant, self._agent)
            self._tenant.starting.leave(self)
            for act in self._then:
                act()


class Shares:
    """Counts for all orgs of a vault.

    Args:
        vault: whose journal the records go to.

    Attributes:
        limits: bounds; set them before the first request.
        refused: how often something was refused, by what there was too much of.
        admission: has what costs the processor begin in turn.
    """

    def __init__(self, vault: Vault) -> None:
        self.limits = ShareLimits()
        self.refused: Counter[str] = Counter()
        self.admission = Admission()
        self._vault = vault
        self._tenants: dict[str, _Tenant] = {}
        self._all = _Used()
        self._buckets: OrderedDict[tuple[str, str, str], Bucket] = OrderedDict()
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def seat(self, seat: Seat | None, state: OrgState, caller: Caller) -> None:
        """Count a client's connection for who has proved to be behind it. Raises ``RateLimited``."""
        if seat is None or seat.whose == (state.org.id, caller.name):
            return
        tenant = self._tenant(state)
        whole, own = most = tenant.of_seats(seat)
        full = seat.prove(tenant.id, caller.name, most)
        if full:
            count, whose = (own, "this agent") if full == "agent" else (whole, "this org")
            raise self._refusal(tenant, caller.name, "connections", f"{whose} has {count} connections open", _LATER)

    def at_once(self, seat: Seat | None, state: OrgState, caller: Caller) -> bool:
        """Whether something may be done now that ends before anybody else has a turn; then the seat is theirs.

        Where it may not, it has to ``begin`` and to ``seat``: it waits for its turn, or is refused and counted.
        """
        tenant, agent, limits = self._tenants.get(state.org.id) or self._tenant(state), caller.name, self.limits
        used, (whole, own) = tenant.agents.get(agent), tenant.calls
        if tenant.all.calls >= whole or self._all.calls >= limits.calls or limits.rates or not tenant.starting.open:
            return False
        if used is not None and used.calls >= own:
            return False
        if seat is not None and seat.prove(tenant.id, agent, tenant.seats.get(seat.capacity) or tenant.of_seats(seat)):
            return False
        return self.admission.enter((tenant.id, agent))

    async def begin(
        self, state: OrgState, caller: Caller, queueing: Callable[[], AbstractContextManager[None]] = nullcontext
    ) -> Turn:
        """Count a call or a request, which waits for its turn where more come than can be judged at once.

        Args:
            state: of the org that it counts for.
            caller: who asks.
            queueing: entered for as long as it waits.

        Raises:
            RateLimited: its org or its agent has its share, or too many wait.
        """
        tenant, agent, limits = self._tenants.get(state.org.id) or self._tenant(state), caller.name, self.limits
        if ASKING.get() != (whose := (tenant.id, agent)):
            ASKING.set(whose)
        if not self.admission.enter(whose):
            with queueing():
                await self._admitted(tenant, agent)
        used, together, everything = tenant.agents.get(agent) or tenant.of(agent), tenant.all, self._all
        whole, own = tenant.calls
        if used.calls >= own or together.calls >= whole or everything.calls >= limits.calls or limits.rates:
            try:
                taken = (used.calls, together.calls, everything.calls)
                self._require_room(tenant, agent, "calls", "calls under way", taken, limits.calls)
                self._take_rates(tenant, agent)
            except RateLimited:
                tenant.tidy(agent)
                raise
        used.calls += 1
        together.calls += 1
        everything.calls += 1
        if not tenant.starting.enter(turn := Turn(self, tenant, agent)):
            try:
                with queueing():
                    await tenant.starting.wait(agent, turn)
            except BaseException as error:
                turn.end()
                if isinstance(error, RateLimited):
                    self._count(tenant, agent, "turns")
                raise
        return turn

    async def admit(self, state: OrgState, caller: Caller) -> None:
        """Have who opens a session wait for their turn, as ``begin`` does. Raises ``RateLimited``: too many wait."""
        tenant, whose = self._tenant(state), (state.org.id, caller.name)
        ASKING.set(whose)
        if not self.admission.enter(whose):
            await self._admitted(tenant, caller.name)

    async def _admitted(self, tenant: _Tenant, agent: str) -> None:
        try:
            await self.admission.wait((tenant.id, agent))
        except RateLimited:
            self._count(tenant, agent, "turns")
            raise

    async def meet(self, remote: str, org: str = "", agent: str = "") -> None:
        """Have somebody who is not known yet wait for the turn of their address, and there of the org that they name.

        Args:
            remote: the address.
            org: id of the org.
            agent: who they were until something in the store changed; they wait as that one, beside whom they are
                nobody else.

        Raises:
            RateLimited: too many wait.
        """
        whose = (org, agent) if agent else _at(remote, org)
        if not self.admission.enter(whose):
            try:
                await self.admission.wait(whose)
            except RateLimited:
                self.note("turns")
                raise

    def may_go_on(self, seat: Seat | None, remote: str) -> bool:
        """Whether who is behind a connection, else its address, may go on at once; if not, ``go_on``."""
        return self.admission.enter((seat.whose if seat is not None else None) or _at(remote))

    async def go_on(self, seat: Seat | None = None, remote: str = "") -> None:
        """Have the running task wait for its turn to go on, such as with a handshake of TLS.

        It waits for whom it works, else for who is behind the connection, else for the address.
        """
        whose = ASKING.get()
        if not whose[0]:
            whose = (seat.whose if seat is not None else None) or _at(remote)
        await self.admission.pause(whose)

    def holding(self, state: OrgState, caller: Caller) -> Held:
        """What is held for a request that has not begun yet."""
        return Held(self, self._tenant(state), caller.name)

    def session(self, state: OrgState, caller: Caller, total: int) -> Callable[[], None]:
        """Count a session with a database, of so many that there may be; what is called at its end, however often.

        Raises:
            RateLimited: its org or its agent has its share.
        """
        tenant, agent = self._tenant(state), caller.name
        used = tenant.of(agent)
        taken = (used.sessions, tenant.all.sessions, self._all.sessions)
        try:
            self._require_room(tenant, agent, "sessions", "sessions with databases", taken, total)
        except RateLimited:
            tenant.tidy(agent)
            raise
        counted = [used, tenant.all, self._all]
        for each in counted:
            each.sessions += 1

        def end() -> None:
            while counted:
                counted.pop().sessions -= 1
            tenant.tidy(agent)

        return end

    def take_certificate(self, state: OrgState, caller: Caller) -> None:
        """Count a certificate that has to be made. Raises ``RateLimited``."""
        tenant, agent = self._tenant(state), caller.name
        whole, own = (part_of(self.limits.certificates, part) for part in tenant.parts)
        for name, whose, most in ((agent, "this agent", own), ("", "this org", whole)):
            wait = self._wait_for(tenant, "certificates", name, (most, 60), most)
            if wait:
                reason = f"{whose} gets certificates for {most} new hosts a minute"
                raise self._refusal(tenant, agent, "certificates", reason, _KNOWN_HOSTS, wait)

    def note(self, what: str) -> None:
        """Count a refusal of nobody in particular."""
        self.refused[what] += 1

    def flush(self) -> None:
        """Record now what was only counted."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        counts, self._counts = self._counts, Counter()
        elapsed = int((self._vault.clock.now() - self._since) * 1000)
        for (org_id, agent, what), count in counts.items():
            if not self._vault.keys.has_ring(org_id):  # the org was deleted
                continue
            record = Record(
                phase=Phase.REFUSED,
                id=new_request_id(),
                caller=agent,
                rule=f"share of {what}",
                result=RateLimited.code,
                count=count,
                milliseconds=elapsed,
            )
            self._vault.journal.outcome(record.encode(), org_id)

    def close(self) -> None:
        """Record what was counted; what is counted from now on has no journal any more to be recorded in."""
        self._closed = True
        self.flush()

    # What turns call.

    def take_bytes(self, tenant: _Tenant, agent: str, size: int) -> None:
        """Count bytes that are held. Raises ``RateLimited``."""
        used = tenant.of(agent)
        most, more = self.limits.held, size - 1
        taken = (used.held + more, tenant.all.held + more, self._all.held + more)
        try:
            self._require_room(tenant, agent, "memory", "bytes of bodies in memory", taken, most)
        except RateLimited:
            tenant.tidy(agent)
            raise
        for each in (used, tenant.all, self._all):
            each.held += size

    def give_bytes(self, tenant: _Tenant, agent: str, size: int) -> None:
        """They are held no longer."""
        for each in (tenant.of(agent), tenant.all, self._all):
            each.held -= size
        tenant.tidy(agent)

    def ended(self, tenant: _Tenant, agent: str) -> None:
        """A call or request has ended."""
        used = tenant.of(agent)
        used.calls -= 1
        tenant.all.calls -= 1
        self._all.calls -= 1
        if not used.calls:
            tenant.tidy(agent)

    # Counting.

    def _tenant(self, state: OrgState) -> _Tenant:
        tenant = self._tenants.get(state.org.id)
        if tenant is None:
            tenant = self._tenants[state.org.id] = _Tenant(state.org.id, state.org.name, self.limits)
        return tenant

    def _require_room(
        self, tenant: _Tenant, agent: str, what: str, words: str, taken: tuple[int, int, int], total: int
    ) -> None:
        """Raise what refuses one more, if there is no room for it."""
        whole, own = tenant.parts
        if taken[0] >= (most := part_of(total, own)):
            raise self._refusal(tenant, agent, what, f"this agent has its share of {most} {words}", _LATER)
        if taken[1] >= (most := part_of(total, whole)):
            raise self._refusal(tenant, agent, what, f"this org has its share of {most} {words}", _LATER)
        if taken[2] >= total:
            raise self._refusal(tenant, agent, what, f"the server has all of its {total} {words}", "try again later")

    def _take_rates(self, tenant: _Tenant, agent: str) -> None:
        limits = self.limits
        for name, whose, rate in ((agent, "this agent", limits.agent_rate), ("", "this org", limits.org_rate)):
            if not rate:
                continue
            thousandths = (max(1, round(rate * 1000)), 1000)
            wait = self._wait_for(tenant, "rate", name, thousandths, max(1, round(rate)))
            if wait:
                raise self._refusal(tenant, agent, "rate", f"{whose} may ask {rate:g} times a second", _SLOWER, wait)

    def _wait_for(self, tenant: _Tenant, what: str, agent: str, rate: tuple[int, int], burst: int) -> int:
        """Seconds until there is room in a rate, so many in so many seconds; 0 where there was, and it is taken."""
        key, now = (tenant.id, agent, what), self._vault.clock.now()
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = self._buckets[key] = Bucket(float(burst), now)
            if len(self._buckets) > _BUCKETS:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(key)
        return bucket.take(*rate, burst, now)

    def _refusal(
        self, tenant: _Tenant, agent: str, what: str, reason: str, hint: str, retry_after: int = 1
    ) -> RateLimited:
        """The refusal, which is counted."""
        self._count(tenant, agent, what)
        return RateLimited(reason, hint, retry_after=retry_after)

    def _count(self, tenant: _Tenant, agent: str, what: str) -> None:
        self.refused[what] += 1
        key = (tenant.id, agent, what)
        if key not in self._counts and len(self._counts) >= _COUNTED:
            key = (tenant.id, "", what)
        self._counts[key] += 1
        if self._timer is None and not self._closed:
            self._since = self._vault.clock.now()
            self._timer = asyncio.get_running_loop().call_later(_INTERVAL, self.flush)


def _at(remote: str, org: str = "") -> tuple[str, str]:
    """Who waits while nobody knows who asks: an address, and the org that is named."""
    return f"at {network(remote)}" if remote else "", org

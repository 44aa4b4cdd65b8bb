"""Quotas of an org: how often one address may ask, and how many leases there may be, for all paths or some.

Of several that fit a request one counts: that of the exact path, then of the longest glob, then of the mount, then of
all paths; one for a role before one without. Counts of requests are kept by each server, as in Vault: with several
each grants the rate; the workers of one count together. What was refused is counted, and the counts are records of the
org's journal.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
from collections.abc import Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from keyhole.core.cidr import network
from keyhole.core.errors import KeyholeError, RateLimited
from keyhole.core.identity import Caller
from keyhole.core.path import parse_path
from keyhole.core.record import Phase, Record, clip
from keyhole.core.request import Reply, Request
from keyhole.core.tally import LocalTallies, Tallies
from keyhole.vault.keys import new_request_id
from keyhole.vault.mounts import AUTH
from keyhole.vault.orgs import NO_ORG

if TYPE_CHECKING:
    from keyhole.vault.compiled import OrgState
    from keyhole.vault.lease_places import Place, Places
    from keyhole.vault.storage import Storage
    from keyhole.vault.vault import Vault

MOUNT = "quotas"
RATE, LEASES = "rate-limit", "lease-count"
EXEMPT = (
    "sys/generate-recovery-token/attempt",
    "sys/generate-recovery-token/update",
    "sys/generate-root/attempt",
    "sys/generate-root/update",
    "sys/health",
    "sys/seal-status",
    "sys/unseal",
)
_COMPILED = "quotas"
_NOBODY = "nobody"
_ADDRESSES = 10_000  # of one quota; the one that asked least lately is forgotten first
_INTERVAL = 30.0  # seconds between two records of how many were refused


class Quota(NamedTuple):
    """One rule.

    Attributes:
        name: within its kind.
        path: empty for all, a mount with its slash, a path, or one that ends in ``*``.
        role: counts only for logins that name this role; empty for all.
        rate: requests of one address in an interval.
        interval: seconds.
        block_interval: seconds for which an address that asked too often is refused altogether; 0 for none.
        max_leases: leases that there may be at a time.
        per_agent: not of all together, but of each agent or other caller.
    """

    name: str
    path: str = ""
    role: str = ""
    rate: float = 0.0
    interval: int = 1
    block_interval: int = 0
    max_leases: int = 0
    per_agent: bool = False

    def fits(self, path: str, role: str) -> tuple[int, ...]:
        """How specific it is for a request; empty when it is not for it."""
        if self.role and self.role != role:
            return ()
        rank = bool(self.role)
        if not self.path:
            return (1, 0, rank)
        if self.path.endswith("*"):
            return (3, len(self.path), rank) if path.startswith(self.path[:-1]) else ()
        if self.path.endswith("/"):
            return (2, len(self.path), rank) if path.startswith(self.path) else ()
        return (4, len(self.path), rank) if path == self.path else ()


class Settings(NamedTuple):
    """What holds for all quotas of an org.

    Attributes:
        exempt: paths that are never counted; one that ends in ``*`` is for all that begin so.
        log: every refusal is a record of its own.
        headers: answers say how much is left.
    """

    exempt: tuple[str, ...] = EXEMPT
    log: bool = False
    headers: bool = False

    def spares(self, path: str) -> bool:
        """Whether a path is never counted."""
        return any(path == one or (one.endswith("*") and path.startswith(one[:-1])) for one in self.exempt)


class Rules(NamedTuple):
    """All quotas of an org, compiled with the rest of its configuration.

    ``digest`` is another one when another quota counts for some lease.
    """

    rates: tuple[Quota, ...] = ()
    leases: tuple[Quota, ...] = ()
    settings: Settings = Settings()
    digest: str = ""


def best(quotas: tuple[Quota, ...], path: str, role: str = "") -> Quota | None:
    """The one that counts for a request."""
    found = max(quotas, key=lambda quota: quota.fits(path, role), default=None)
    return found if found is not None and found.fits(path, role) else None


class _Window(NamedTuple):
    ends: float
    used: int
    blocked: bool


class _Count:
    def __init__(
        self,
        quota: Quota,
        windows: Tallies,
        refused: int = 0,
    ) -> None:
        self.quota = quota
        self.windows = windows
        self.refused = refused


class Quotas:
    """The quotas of all orgs, and what this process has counted.

    Attributes:
        told: request id to headers of its answer.
        tallies: where requests are counted, if processes share that; each quota has its own otherwise.
    """

    def __init__(self, vault: Vault) -> None:
        self.told: dict[str, dict[str, str]] = {}
        self._vault = vault
        self.tallies: Tallies | None = None
        self._counts: dict[tuple[str, str], _Count] = {}
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @cached_property
    def _places(self) -> Places:
        from keyhole.vault.lease_places import Places  # noqa: PLC0415  # few vaults have such quotas

        return Places(self._vault.clock.now)

    def storage(self, org_id: str) -> Storage:
        """Where the quotas of an org lie; they are part of its configuration."""
        return self._vault.storage(org_id, MOUNT, configures=True)

    def concern(self, state: OrgState) -> bool:
        """Whether an org has any, as far as is known."""
        known = state.derived.get(_COMPILED)
        if type(known) is Rules and not known.rates and not known.leases:
            return False
        return state.org.id != NO_ORG

    async def rules(self, state: OrgState) -> Rules:
        """The quotas of an org."""
        known = state.derived.get(_COMPILED)
        if isinstance(known, Rules):
            return known
        storage = self.storage(state.org.id)
        found: dict[str, list[Quota]] = {RATE: [], LEASES: []}
        settings = Settings()
        for path in await storage.list(recursive=True):
            item = await storage.get_one(path)
            if item.data is not None:
                data, kind = json.loads(item.data), path.partition("/")[0]
                if kind in found:
                    found[kind].append(Quota(**data))
                else:
                    settings = Settings(tuple(data["exempt"]), data["log"], data["headers"])
        counted = json.dumps(sorted((quota.name, quota.path, quota.per_agent) for quota in found[LEASES]))
        digest = hashlib.sha256(counted.encode()).hexdigest()[:32]
        state.derived[_COMPILED] = rules = Rules(tuple(found[RATE]), tuple(found[LEASES]), settings, digest)
        return rules

    async def admit(self, state: OrgState, request: Request, used: str = "") -> None:
        """Count a request, or the use of the service at a path.

        Raises:
            RateLimited: its address has asked too often.
        """
        rules = await self.rules(state)
        if not rules.rates:
            return
        try:
            path = parse_path(used or request.path)
        except KeyholeError:
            path = clip(request.path)
        quota = best(rules.rates, path, await self._role(state, request, path, rules))
        if quota is None or rules.settings.spares(path):
            return
        window, allowed = self._take(state.org.id, quota, network(request.remote) if request.remote else "")
        left = max(1, math.ceil(window.ends - self._vault.clock.now()))
        headers = {
            "x-ratelimit-limit": str(_whole(quota)),
            "x-ratelimit-remaining": str(max(0, _whole(quota) - window.used)),
            "x-ratelimit-reset": str(left),
        }
        if rules.settings.headers and not used:
            self.told[request.id] = headers
        if not allowed:
            error = RateLimited(
                f'request path "{path}": rate limit quota exceeded', f"wait {left} seconds", retry_after=left
            )
            self._count_refusal(state.org.id, quota)
            if rules.settings.log:
                await self._vault.journal.intend(self._record(quota, 1, request.remote, path), state.org.id)
            raise error

    async def _role(self, state: OrgState, request: Request, path: str, rules: Rules) -> str:
        """The role that a login names; empty for none, and where no quota asks for it."""
        if not path.startswith(AUTH) or not any(quota.role for quota in rules.rates):
            return ""
        mount = state.mounts.find(f"{path}/")
        if mount is not None and mount.engine.role_of is not None:
            nobody = Caller(state.org.name, state.org.id, "", "", "full", (), await self._vault.compiled.acl(state, ()))
            return await mount.engine.role_of(self._vault.context(state, nobody, mount), request.data)
        role = request.data.get("role")
        return role if isinstance(role, str) else ""

    async def place(self, state: OrgState, path: str, caller: str) -> Place | None:
        """The count in which a caller's lease of a request path has its place; ``None`` where no quota counts."""
        if not self.concern(state):
            return None
        rules = await self.rules(state)
        quota = best(rules.leases, path)
        if quota is None:
            return None
        whose = (caller or _NOBODY) if quota.per_agent else ""
        storage, count = self._vault.leases.storage(state.org.id), partial(self.leases_of, state, quota, whose)
        name = f"{quota.name}/{whose}" if whose else quota.name
        return self._places.at(storage, state.org.id, rules.digest, name, quota.max_leases, count)

    async def leases_of(self, state: OrgState, quota: Quota, caller: str = "") -> int:
        """How many leases there are for which a quota counts, of one caller if it is named, with those being made."""
        rules, leases, org_id = await self.rules(state), self._vault.leases, state.org.id
        if caller:
            every = [lease for lease in await leases.every(org_id) if (lease.caller or _NOBODY) == caller]
            return sum(best(rules.leases, lease.path) == quota for lease in every)
        # A lease may move between the two places meanwhile, either way, and is counted once wherever it is met.
        paths = {lease.id for lease in await leases.all_queued(org_id)}
        paths.update(await leases.below(org_id, ""))
        paths.update([lease.id for lease in await leases.all_queued(org_id)])
        return sum(best(rules.leases, path.rpartition("/")[0]) == quota for path in paths)

    def mark(self, request: Request, answer: Reply | KeyholeError) -> None:
        """Give an answer or a refusal the headers of its quota."""
        answer.headers = self.told.pop(request.id, {})

    def flush(self) -> None:
        """Record now what was only counted."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for (org_id, _), count in self._counts.items():
            refused, count.refused = count.refused, 0
            if refused:
                self._vault.journal.outcome(self._record(count.quota, refused).encode(), org_id)

    def _take(self, org_id: str, quota: Quota, address: str) -> tuple[_Window, bool]:
        count = self._counts.get((org_id, quota.name))
        if count is None or count.quota != quota:
            windows = self.tallies if self.tallies is not None else LocalTallies(_ADDRESSES)
            count = self._counts[org_id, quota.name] = _Count(quota, windows)
        now = self._vault.clock.now()
        with count.windows.held("quotas", f"{org_id}\0{quota}\0{address}") as cell:
            if cell[0] <= now:
                cell[:] = now + quota.interval, 0, 0
            _, used, blocked = cell
            allowed = not blocked and used < _whole(quota)
            if allowed:
                cell[1] += 1
            elif quota.block_interval and not blocked:
                cell[0], cell[2] = now + quota.block_interval, 1
            return _Window(cell[0], int(cell[1]), bool(cell[2])), allowed

    def _count_refusal(self, org_id: str, quota: Quota) -> None:
        self._counts[org_id, quota.name].refused += 1
        if self._timer is None:
            self._since = self._vault.clock.now()
            self._timer = asyncio.get_running_loop().call_later(_INTERVAL, self.flush)

    def _record(self, quota: Quota, count: int, remote: str = "", path: str = "") -> Record:
        elapsed = int((self._vault.clock.now() - self._since) * 1000) if count > 1 else 0
        return Record(
            phase=Phase.REFUSED,
            id=new_request_id(),
            path=path,
            rule=f"sys/quotas/{RATE}/{quota.name}",
            result=RateLimited.code,
            remote=remote,
            count=count,
            milliseconds=elapsed,
        )


def _whole(quota: Quota) -> int:
    """Requests of one window."""
    return max(1, round(quota.rate))


def encode(quota: Quota) -> bytes:
    """A quota as it is stored."""
    return json.dumps(quota._asdict()).encode()


def encode_settings(settings: Mapping[str, Any]) -> bytes:
    """The settings as they are stored."""
    return json.dumps(settings).encode()

"""An engine that makes things which have to be taken back, in a place that the tests can break."""

import asyncio

from keyhole.core.errors import TargetFailed, UpstreamUnreachable
from keyhole.core.request import Operation, Reply
from keyhole.engines import Engine, Route
from keyhole.vault.mounts import Mount


class Lab:
    """The place: ``alive`` are the names of what was made and not taken back."""

    def __init__(self, path="lab/", *, pattern="creds/{name}", ttl=3600, max_ttl=7200, renewable=True):
        self.path = path
        self.ttl, self.max_ttl, self.renewable = ttl, max_ttl, renewable
        self.alive = {}
        self.taken = []
        self.down = False
        self.refuses = False
        self.silent = None
        self.fail_after_making = None
        self.meanwhile = None
        self.engine = Engine(
            "lab",
            (
                Route(
                    pattern,
                    {Operation.READ: self.make, Operation.CREATE: self.make},
                    help="Makes something.",
                    source="",
                ),
                Route("forget", {Operation.CREATE: self.nothing}, help="Does nothing."),
            ),
            revoke=self.revoke,
            renew=self.renew,
        )

    def mount(self, vault):
        """Put it at its path, in every org."""
        inner = vault.vault
        inner.fix_mounts([*inner.tables.fixed, Mount(self.path, self.path.rstrip("/"), self.engine, "lab")])
        return self

    async def make(self, context, call):
        lease = await context.leases.begin(
            ttl=self.ttl, max_ttl=self.max_ttl, renewable=self.renewable, internal={"role": call.params["name"]}
        )
        if self.meanwhile is not None:
            await self.meanwhile()
        self.alive[lease.mark] = lease.expires
        if self.fail_after_making is not None:
            raise self.fail_after_making
        return Reply({"username": f"v-{lease.mark}"}, lease=lease)

    async def nothing(self, _context, _call):
        return None

    async def revoke(self, _context, lease):
        if self.silent is not None:
            await self.silent.wait()
        if self.down:
            raise UpstreamUnreachable("the lab does not answer", "is it up?")
        if self.refuses:
            raise TargetFailed("the lab keeps it", "ask the lab")
        assert lease.internal["role"]
        self.taken.append(lease.mark)
        self.alive.pop(lease.mark, None)

    async def renew(self, _context, lease, ttl):
        if self.down:
            raise UpstreamUnreachable("the lab does not answer", "is it up?")
        self.alive[lease.mark] = lease.expires
        assert ttl == lease.ttl

    async def until_empty(self):
        async with asyncio.timeout(60):
            while self.alive:  # noqa: ASYNC110 - nothing announces the end of a lease
                await asyncio.sleep(0.01)

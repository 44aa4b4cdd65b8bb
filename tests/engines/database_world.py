"""A vault with the engine ``database`` over the real PostgreSQL of the tests."""

import database_server
from engines.mounting import mount
from engines.transit_world import clear
from keyhole.testing import FrozenClock
from vault.world import play

_MADE = "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'"
_GRANTED = 'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{{name}}"; GRANT USAGE ON SCHEMA public TO "{{name}}"'
CREATION = [f"{_MADE}; {_GRANTED}"]
CONFIG = {
    "plugin_name": "postgresql-database-plugin",
    "allowed_roles": "*",
    "username": database_server.ADMIN,
    "password": database_server.PASSWORD,
}


class World:
    def __init__(self, vault, clock):
        self.vault, self.clock = vault, clock

    async def write(self, path, *, token=None, **data):
        return (await self.vault.ask("update", f"database/{path}", data, token=token)).data

    async def read(self, path, *, token=None):
        return clear((await self.vault.ask("read", f"database/{path}", token=token)).data)

    async def config(self, name="pg", **changes):
        return await self.write(f"config/{name}", **{"connection_url": database_server.started(), **CONFIG, **changes})

    async def role(self, name="r", **changes):
        await self.write(f"roles/{name}", **{"db_name": "pg", "creation_statements": CREATION, **changes})

    async def creds(self, name="r", *, token=None):
        """Lease, user name and password."""
        reply = await self.vault.ask("read", f"database/creds/{name}", token=token)
        data = clear(reply.data)
        return reply.lease, data["username"], data["password"]

    async def revoke(self, lease, **more):
        await self.vault.ask("update", "sys/leases/revoke", {"lease_id": lease.id, "sync": True, **more})

    async def renew(self, lease, increment=0):
        return await self.vault.ask("update", "sys/leases/renew", {"lease_id": lease.id, "increment": increment})

    async def sweep(self):
        await self.vault.node.sweep()


def with_world(scenario, **options):
    """Run ``scenario(world)`` with a mount ``database`` that knows no database yet."""
    clock = FrozenClock()

    async def wrapped(vault):
        from keyhole.net.ask import Asker

        vault.vault.net = Asker()
        await mount(vault, "database", "database")
        await scenario(World(vault, clock))

    play(wrapped, clock=clock, **options)


def with_database(scenario, **options):
    """Run ``scenario(world)`` with a connection ``pg`` and a role ``r``."""

    async def wrapped(world):
        await world.config()
        await world.role(default_ttl="1h", max_ttl="2h")
        await scenario(world)

    database_server.reset_root()
    with_world(wrapped, **options)

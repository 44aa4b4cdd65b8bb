"""A vault with the engine ``oauth`` and a connection ``crm`` to the provider of the tests."""

import json
from urllib.parse import parse_qs, urlsplit

import oauth_provider
from engines.mounting import mount, storage_of
from keyhole.core.value import Secret
from keyhole.net.ask import Asker
from keyhole.testing import FrozenClock
from vault.world import play

REDIRECT = "http://127.0.0.1:1/callback"


class World:
    """Attributes: the vault, its clock, and the provider."""

    def __init__(self, vault, clock, provider):
        self.vault, self.clock, self.provider = vault, clock, provider

    async def write(self, path, *, token=None, **data):
        return await self.vault.ask("update", f"oauth/{path}", data, token=token)

    async def read(self, path, *, token=None):
        data = (await self.vault.ask("read", f"oauth/{path}", token=token)).data
        return {name: json.loads(v.reveal()) if isinstance(v, Secret) else v for name, v in data.items()}

    async def access(self, name="crm", *, token=None):
        return (await self.read(f"token/{name}", token=token))["access_token"]

    async def connection(self, name="crm", **changes):
        return await self.write(f"connections/{name}", **self.provider.settings(**changes))

    async def imported(self, name="crm", **changes):
        """A connection with a refresh token that was got elsewhere."""
        refresh = self.provider.consent()
        await self.connection(name, grant="refresh_token", refresh_token=refresh, **changes)
        return refresh

    async def begin(self, name="crm", *, redirect=REDIRECT, token=None, **more):
        return (await self.write(f"connections/{name}/authorize", token=token, redirect_uri=redirect, **more)).data

    async def consented(self, name="crm"):
        """Through the browser, from beginning to end."""
        begun = await self.begin(name)
        return await self.write("callback", url=self.provider.agree(begun["authorization_url"]))

    async def status(self, name="crm"):
        return await self.read(f"connections/{name}")

    async def stored(self, name="crm"):
        item = await (await storage_of(self.vault, "oauth")).get_one(f"t/{name}")
        return json.loads(item.data) if item.data is not None else None

    async def sweep(self):
        await self.vault.node.sweep()


def answered(url):
    """The parameters of the address that a browser came back to."""
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def with_provider(scenario, **options):
    """Run ``scenario(world)``."""
    clock = options.pop("clock", None) or FrozenClock()

    with oauth_provider.running() as provider:

        async def wrapped(vault):
            vault.vault.net = Asker()
            await mount(vault, "oauth", "oauth")
            await scenario(World(vault, clock, provider))

        play(wrapped, clock=clock, **options)

"""What the tests of the vault share: scenarios over an open vault, and a look at its journal."""

import asyncio
import contextlib

from keyhole.core.errors import KeyholeError
from keyhole.core.request import Operation, Request
from keyhole.testing import MemorySeal, OpenVault, open_vault
from keyhole.vault.audit import open_row

CANARY = "canary-7f3a1c9e55d24b"
SERVICE = {"hosts": ["api.example.com"], "secret": "stripe/api-key", "inject": {"kind": "bearer"}}


def play(scenario, **options):
    """Run ``scenario(vault)`` on a vault of its own."""

    async def main():
        async with open_vault(**options) as vault:
            return await scenario(vault)

    return asyncio.run(main())


class Place:
    """A vault in a file that can be closed and opened again, also as several nodes."""

    def __init__(self, folder):
        self.file = folder / "private" / "vault.db"
        self.location = f"sqlite:{self.file}"
        self.seal = MemorySeal()

    def open(self, **options):
        return open_vault(self.location, seal=self.seal, **options)

    def play(self, scenario, **options):
        return play(scenario, location=self.location, seal=self.seal, **options)


def mounts_of(vault):
    """The mounts of the org root, once something was asked there."""
    return vault.vault.compiled.last(vault.vault.root_org).mounts


async def rows(vault):
    """All rows of the journal, by writer and sequence."""
    await vault.vault.journal.drain()
    store = vault.node.store
    return [row for writer in sorted(await store.heads()) for row in await store.scan(writer, limit=100_000)]


async def journal(vault):
    """All records as ``(org id, record)``."""
    keys = vault.vault.keys
    return [(row.partition, open_row(keys.ring(row.partition), row)) for row in await rows(vault)]


@contextlib.asynccontextmanager
async def recorded(vault):
    """The records that the block makes, in a list that is full when it ends."""
    before = len(await rows(vault))
    found = []
    yield found
    found += [record for _, record in (await journal(vault))[before:]]


async def refusal(awaitable):
    """The error that it raises; ``None`` when it raises none."""
    try:
        await awaitable
    except KeyholeError as error:
        return error
    return None


async def use(vault, path, token, **data):
    """Ask for the use of a service, as the road does."""
    data = {"service": path.removeprefix("services/"), **data}
    return await vault.node.handle(Request(token.encode(), Operation.USE, path, data))


async def agent(vault, name="coder", *, services=(), token=None, **fields):
    """A token of a new agent that may use these services."""
    await vault.ask("update", f"agents/{name}", token=token)
    for service in services:
        await vault.ask("update", f"agents/{name}/services/{service}", token=token)
    return (await vault.ask("update", f"agents/{name}/token", fields, token=token)).data["token"]


async def policy_token(vault, text, *, token=None, **fields):
    """A token with one policy of this text."""
    await vault.ask("update", "sys/policies/acl/given", {"policy": text}, token=token)
    return await child(vault, policies=["given"], token=token, **fields)


async def child(vault, *, token=None, path="auth/token/create", **fields):
    """A token made by another one (the root token unless said)."""
    return (await vault.ask("update", path, fields, token=token)).auth["client_token"]


async def stripe(vault, token=None):
    """A secret with the canary, and a service that binds it."""
    await vault.ask("update", "secret/data/stripe/api-key", {"data": {"value": CANARY}}, token=token)
    await vault.ask("update", "services/stripe", SERVICE, token=token)


async def org(vault, name):
    """The root token of a new org."""
    return (await vault.ask("update", f"sys/namespaces/{name}")).data["root_token"]


__all__ = ["CANARY", "SERVICE", "OpenVault", "Place", "agent", "child", "journal", "org", "play", "policy_token"]
__all__ += ["recorded", "refusal", "rows", "stripe", "use"]

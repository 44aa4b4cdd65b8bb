"""A repo vault as a mount of a local vault, which opens it with the owner's key."""

import asyncio

from keyhole.repo import keys
from keyhole.testing import open_vault


def with_key(kind, tmp_path, monkeypatch):
    """A folder of this kind with one secret, whose owner's key is in a file."""
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path / "server"))
    world = kind.create(tmp_path)
    world.set("stripe/key")
    world.key_file = tmp_path / "owner.key"
    keys.write(world.key_file, world.owner)
    return world


def play(world, scenario):
    """``scenario(vault)`` where the folder is mounted at ``team/``."""

    async def main():
        async with open_vault() as vault:
            await vault.ask("update", "sys/mounts/team", {"type": "repo"})
            config = {"path": str(world.root), "key_file": str(world.key_file)}
            await vault.ask("update", "team/config", config)
            await scenario(vault)

    asyncio.run(main())

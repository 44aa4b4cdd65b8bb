"""What the tests of transit share: requests over an open vault, with the values that a client would see."""

import base64
import json

from keyhole.core.value import Secret


def b64(data):
    return base64.b64encode(data if isinstance(data, bytes) else data.encode()).decode()


def clear(value):
    """A reply as its receiver sees it."""
    if isinstance(value, Secret):
        return json.loads(value.reveal())
    if isinstance(value, dict):
        return {name: clear(inner) for name, inner in value.items()}
    return [clear(inner) for inner in value] if isinstance(value, list) else value


async def mounted(vault):
    """A new mount ``transit/``."""
    await vault.ask("update", "sys/mounts/transit", {"type": "transit"})
    return Transit(vault)


class Transit:
    """``await transit("encrypt/k", plaintext=…)`` writes; ``read``, ``delete`` and ``list`` do what they say."""

    def __init__(self, vault, **who):
        self.vault, self.who = vault, who

    async def _ask(self, operation, path, data):
        return clear((await self.vault.ask(operation, f"transit/{path}", data, **self.who)).data)

    async def __call__(self, path, **data):
        return await self._ask("update", path, data)

    async def read(self, path):
        return await self._ask("read", path, {})

    async def delete(self, path):
        return await self._ask("delete", path, {})

    async def encrypt(self, name, plaintext, **data):
        return (await self(f"encrypt/{name}", plaintext=b64(plaintext), **data))["ciphertext"]

    async def decrypt(self, name, ciphertext, **data):
        return base64.b64decode((await self(f"decrypt/{name}", ciphertext=ciphertext, **data))["plaintext"])

    async def names(self):
        return await self._ask("list", "keys/", {})

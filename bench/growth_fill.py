"""Fills the vault of a case: ``python -m bench.growth_fill FOLDER SECRETS SERVICES AGENTS LEASES``.

Secrets, services and leases are written as their engines would have written them, many in one commit; agents are made
by the door, each with a grant and a token. The root token comes on standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from itertools import islice

from bench.lease_fill import fill as fill_leases
from keyhole import app
from keyhole.config import Config
from keyhole.core.request import Operation, Request
from keyhole.engines.kv.document import Document
from keyhole.vault.node import Node
from keyhole.vault.vault import Vault

_Entry = tuple[str, bytes, int]
_CHUNK = 500
_AT_ONCE = 64
_FOLDERS = 1000


def secret_path(number: int) -> str:
    """Where the secret of this number lies."""
    return f"f{number % _FOLDERS:03}/s{number:07}"


def _secrets(count: int, now: float) -> Iterator[_Entry]:
    version = {"created": now, "deleted": 0, "destroyed": False}
    for number in range(count):
        document = Document(now, now, current=1, versions={"1": version}, data={"value": f"{number:064}"}, rotated=now)
        yield f"k/{secret_path(number)}", document.encode(), 0


def _services(count: int) -> Iterator[_Entry]:
    for number in range(count):
        service = {
            "hosts": [f"api{number:05}.example.com"],
            "schemes": ["https"],
            "methods": [],
            "paths": ["/v1/**"],
            "deny_paths": [],
            "secret": f"{secret_path(0)}#value",
            "inject": {"kind": "bearer"},
        }
        yield f"svc{number:05}", json.dumps(service).encode(), 0


def chunks(entries: Iterator[_Entry]) -> Iterator[list[_Entry]]:
    """All entries, as many at a time as one commit takes."""
    while chunk := list(islice(entries, _CHUNK)):
        yield chunk


async def _write(vault: Vault, token: bytes, mount: str, entries: Iterator[_Entry]) -> None:
    for chunk in chunks(entries):
        state, caller = await vault.authenticate(token)  # anew: keys may rotate with what was sealed
        await vault.context(state, caller, state.mounts.at(mount)).storage.change(chunk)


async def _agents(node: Node, token: bytes, count: int, services: int) -> None:
    waiting = iter(range(count))

    async def worker() -> None:
        for number in waiting:
            agent = f"agents/agent{number:05}"
            for path in (agent, f"{agent}/services/svc{number % services:05}", f"{agent}/token"):
                await node.handle(Request(token, Operation.UPDATE, path, {}))

    await asyncio.gather(*(worker() for _ in range(_AT_ONCE)))


async def run(folder: str, secrets: int, services: int, agents: int, leases: int, token: bytes) -> None:
    """As a second server on the same store."""
    keyhole = await app.assemble(Config(vault=f"sqlite:{folder}/vault.db"))
    await keyhole.node.unseal()
    vault = keyhole.node.open_vault()
    await _write(vault, token, "secret/", _secrets(secrets, vault.clock.now()))
    await _write(vault, token, "services/", _services(services))
    await _agents(keyhole.node, token, agents, services)
    await fill_leases(vault, token, leases, vault.clock.now() + 36_000, 3600)
    await keyhole.close()


if __name__ == "__main__":
    where, *counts = sys.argv[1:]
    asyncio.run(run(where, *map(int, counts), sys.stdin.readline().strip().encode()))

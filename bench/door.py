"""Audited reads through the door of one process, 64 at once, each intent durable before its value is released."""

from __future__ import annotations

import asyncio
import json
import sys
import time

from keyhole import app
from keyhole.config import Config
from keyhole.core.request import Operation, Request
from keyhole.core.value import Secret

AT_ONCE = 64
QUIET = 1.1  # seconds after which the door counts those who made the vault as gone


async def run(folder: str, seconds: float) -> dict[str, float]:
    """Reads a second from a new SQLite vault in a folder, and microseconds of processor time for one."""
    keyhole = await app.assemble(Config(vault=f"sqlite:{folder}/vault.db"), create=True)
    token = (await keyhole.node.init("passphrase", Secret("a passphrase for a vault of benchmarks"))).encode()
    path, data = "secret/data/bench/api-key", {"data": {"value": "v" * 40}}
    await keyhole.node.handle(Request(token, Operation.UPDATE, path, data))
    await asyncio.sleep(QUIET)
    done = 0
    stop = time.perf_counter() + seconds

    async def reader() -> None:
        nonlocal done
        while time.perf_counter() < stop:
            reply = await keyhole.node.handle(Request(token, Operation.READ, path))
            assert reply.data is not None
            done += 1

    begin, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(reader() for _ in range(AT_ONCE)))
    took, used = time.perf_counter() - begin, time.process_time() - used
    await keyhole.close()
    return {"rate": done / took, "cpu": used / done * 1e6, "used": used / took}


if __name__ == "__main__":
    arguments = (sys.argv[1], float(sys.argv[2]))
    try:
        import uvloop
    except ImportError:
        print(json.dumps(asyncio.run(run(*arguments))))
    else:
        print(json.dumps(uvloop.run(run(*arguments))))

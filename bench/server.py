"""A Keyhole server on a new SQLite vault; says as JSON where it listens. Used by ``bench.subjects``."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import asdict, replace

from keyhole import app
from keyhole.config import load
from keyhole.core.value import Secret


async def run(folder: str) -> None:
    config = replace(
        load(), vault=f"sqlite:{folder}/vault.db", data=folder, listen="127.0.0.1:0", proxy_listen="127.0.0.1:0"
    )
    passphrase = Secret(os.environ.pop("BENCH_PASSPHRASE"))
    keyhole = await app.assemble(config, create=True)
    token = await keyhole.node.init("passphrase", passphrase)
    await keyhole.close()

    def say(started: app.Started) -> None:
        print(json.dumps({**asdict(started), "root_token": token}), flush=True)

    await app.serve(config, passphrase=passphrase, on_ready=say)


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(run(sys.argv[1]))
    else:
        uvloop.run(run(sys.argv[1]))

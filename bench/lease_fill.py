"""Fills the vault of a case with leases of one-time passwords: ``python -m bench.lease_fill FOLDER COUNT END SPREAD``.

They are written as the engine and the door would have written them, many in one commit. The root token comes on
standard input. They end in the SPREAD seconds before END, which is seconds since the epoch.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import sys

from keyhole import app
from keyhole.config import Config
from keyhole.core.lease import Lease, LeaseState
from keyhole.vault import leases as stored
from keyhole.vault.storage import Change, Write
from keyhole.vault.vault import Vault

_CHUNK = 200


async def run(folder: str, count: int, end: float, spread: float, token: bytes) -> None:
    """As a second server on the same store."""
    keyhole = await app.assemble(Config(vault=f"sqlite:{folder}/vault.db"))
    await keyhole.node.unseal()
    await fill(keyhole.node.open_vault(), token, count, end, spread)
    await keyhole.close()


async def fill(vault: Vault, token: bytes, count: int, end: float, spread: float) -> None:
    """Write the leases into an open vault that has the engine."""
    state, caller = await vault.authenticate(token)
    mount = state.mounts.at("ssh/")
    storage, now = vault.storage(caller.org_id, mount.id), vault.clock.now()

    def lease(number: int) -> Lease:
        made = stored.new_lease(
            caller,
            "ssh/creds/ops",
            mount.id,
            ttl=36_000,
            default_ttl=36_000,
            max_ttl=36_000,
            renewable=False,
            internal={"otp": hashlib.sha256(secrets.token_bytes(20)).hexdigest()},
            now=now,
            until=0.0,
        )
        return made._replace(state=LeaseState.ACTIVE, expires=end - spread * number / count)

    for start in range(0, count, _CHUNK):
        chunk = [lease(number) for number in range(start, min(start + _CHUNK, count))]
        change = Change()
        for each in chunk:
            index = Write(f"t/{each.token}/{each.mark}", each.id.encode(), 0)
            change.writes += [stored.as_stored(each), index]
        await vault.leases.storage(caller.org_id).commit(change)
        entry = {"role": "ops", "user": "ubuntu", "ip": "10.0.0.7", "expires": end}
        data = json.dumps(entry).encode()
        await storage.change([(f"o/{each.internal['otp']}", data, 0) for each in chunk])


if __name__ == "__main__":
    where, many, ends, within = sys.argv[1:]
    asyncio.run(run(where, int(many), float(ends), float(within), sys.stdin.readline().strip().encode()))

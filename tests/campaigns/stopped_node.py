"""Stop a node amid making or taking back a user, for longer than its claims last, and let it go on afterwards.

    python tests/campaigns/stopped_node.py --rounds 40 --seed 1

The node is a process of its own on the same store as this one, and asks a real PostgreSQL by way of a gate, which holds
up one of its messages or the answer to it. There it gets SIGSTOP. This process takes over what the other one had
claimed; then the message goes on, and the other process with it. What it finds is no longer its own: nothing that it
makes is given out or stays, and what it takes back is taken back once.
"""

import argparse
import asyncio
import json
import random
import signal
import sys
import tempfile
from pathlib import Path

from keyhole.core.errors import KeyholeError
from keyhole.net.ask import Asker
from keyhole.testing import open_vault
from keyhole.vault.lease_lines import LeaseLimits

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import database_server
from campaigns import kill_vault
from database_gate import Gate
from engines.database_world import CREATION
from engines.mounting import mount

LIMITS = LeaseLimits(making=1.0, claim=1.0)
ROLE = "stopped"
STEPS = 12
PATIENCE = 60


def opened(location):
    return open_vault(location, seal=kill_vault.seal_of(location))


def tune(vault):
    vault.vault.net = Asker()
    vault.vault.expiry.limits = LIMITS


async def work(location, action, lease):
    """The node that is stopped: one request, and what came of it on stdout."""
    async with opened(location) as vault:
        tune(vault)
        print("ready", flush=True)
        try:
            if action == "issue":
                said = (await vault.ask("read", f"database/creds/{ROLE}")).lease.id
            else:
                await vault.ask("update", "sys/leases/revoke", {"lease_id": lease, "sync": True})
                said = "revoked"
        except KeyholeError as error:
            said = f"refused: {error.code}"
        await vault.vault.expiry.drain()
        print(json.dumps(said), flush=True)


def users():
    return {name for name in database_server.users() if f"-{ROLE}-" in name}


async def left(vault):
    """Leases in any state."""
    return await vault.vault.leases.every(vault.vault.root_org)


async def until(condition):
    async with asyncio.timeout(PATIENCE):
        while not await condition():  # noqa: ASYNC110 - the other process announces nothing
            await asyncio.sleep(0.02)


async def play_round(vault, location, gate, action, step):
    """What the stopped node said in the end."""
    lease = (await vault.ask("read", f"database/creds/{ROLE}")).lease.id if action == "revoke" else ""
    command = [sys.executable, __file__, "--worker", location, "--action", action, "--lease", lease]
    gate.hold(step // 2, answer=bool(step % 2))
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert await process.stdout.readline() == b"ready\n"
    said = asyncio.create_task(process.stdout.readline())
    while not (gate.reached.is_set() or said.done()):  # noqa: ASYNC110 - a thread sets it
        await asyncio.sleep(0.01)
    stopped = gate.reached.is_set()
    if stopped:
        process.send_signal(signal.SIGSTOP)

        async def taken_over():
            await vault.node.sweep()
            return not await left(vault)

        # What this node asks goes by the same gate, of which one message only is held up.
        await until(taken_over)
        gate.pass_on()
        process.send_signal(signal.SIGCONT)
    answer = json.loads(await said)
    await process.wait()
    if stopped and action == "issue":
        assert answer.startswith("refused"), f"a stopped node gave out {answer}"
    if answer.startswith(f"database/creds/{ROLE}/"):
        await vault.ask("update", "sys/leases/revoke", {"lease_id": answer, "sync": True})
    await vault.node.sweep()
    assert not users(), "a user was left behind"
    assert not await left(vault), "a lease was left behind"
    return answer if stopped else f"{answer}, not stopped"


async def campaign(folder, rounds, seed, *, report=print):
    """Run all rounds; raises ``AssertionError`` at the first broken promise. How often the node was stopped."""
    database_server.reset_root()
    location, rng, gate, stopped = f"sqlite:{folder}/private/vault.db", random.Random(seed), Gate(), 0
    steps = [(action, step) for action in ("issue", "revoke") for step in range(2 * STEPS)]
    try:
        async with opened(location) as vault:
            tune(vault)
            await mount(vault, "database", "database")
            config = {"plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "connection_url": gate.url}
            login = {"username": database_server.ADMIN, "password": database_server.PASSWORD}
            await vault.ask("update", "database/config/pg", {**config, **login})
            role = {"db_name": "pg", "creation_statements": CREATION, "default_ttl": "1h"}
            await vault.ask("update", f"database/roles/{ROLE}", role)
            for number in range(1, rounds + 1):
                action, step = steps.pop(rng.randrange(len(steps))) if steps else (rng.choice(["issue", "revoke"]), 9)
                said = await play_round(vault, location, gate, action, step)
                stopped += "not stopped" not in said
                report(f"round {number}: {action} stopped at step {step}: {said}; nothing is left")
    finally:
        gate.close()
    return stopped


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--action", help=argparse.SUPPRESS)
    parser.add_argument("--lease", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        asyncio.run(work(options.worker, options.action, options.lease))
        return
    with tempfile.TemporaryDirectory(prefix="keyhole-campaign-") as folder:
        asyncio.run(campaign(folder, options.rounds, options.seed))


if __name__ == "__main__":
    main()

"""Kill a process while it seals everything again under a new key, and hold the vault to its word each time.

    python tests/campaigns/kill_rewrap.py --rounds 200 --secrets 5000 --seed 1

A process makes a new term of the org's key and rewraps. After ``kill -9`` at any point every secret is readable with
its value, tokens are due when they were, and the next process goes on; the one that is not killed ends with one term.
"""

import argparse
import asyncio
import os
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from campaigns import kill_store
from campaigns.kill_vault import opened

BATCH = 100


def value_of(number):
    return f"value-{number}-" + "x" * (number % 50)


async def prepare(location, secrets):
    async with opened(location) as vault:
        for start in range(0, secrets, BATCH):
            await asyncio.gather(
                *(
                    vault.ask("update", f"secret/data/team/s{number}", {"data": {"value": value_of(number)}})
                    for number in range(start, min(start + BATCH, secrets))
                )
            )
        await vault.ask("update", "auth/token/create", {"ttl": "1h"})


async def work(location):
    async with opened(location) as vault:
        os.write(1, b"rotate\n")
        await vault.ask("update", "sys/rotate")
        os.write(1, b"rewrap\n")
        await vault.ask("update", "sys/rewrap")
        os.write(1, b"done\n")


async def state(location, secrets):
    """The terms that are left, and what is due; every secret has its value."""
    async with opened(location) as vault:
        for start in range(0, secrets, BATCH):
            numbers = range(start, min(start + BATCH, secrets))
            found = await asyncio.gather(*(vault.get(f"secret/data/team/s{number}") for number in numbers))
            for number, data in zip(numbers, found, strict=True):
                assert data["data"] == {"value": value_of(number)}, f"secret {number} is not what it was"
        terms = vault.vault.keys.ring(vault.vault.root_org).terms
        due = len(await vault.node.store.due(2**40, 10_000))
        assert (await vault.ask("read", "sys/audit-log/verify")).data["valid"]
        return terms, due


def campaign(path, rounds, secrets, seed, *, report=print):
    """Run all rounds on one vault; raises ``AssertionError`` at the first broken promise."""
    location = f"sqlite:{path}"
    rng = random.Random(seed)
    asyncio.run(prepare(location, secrets))
    terms, due = asyncio.run(state(location, secrets))
    killed = 0
    for number in range(1, rounds + 1):
        process = kill_store.start([__file__, "--worker", location])
        lines = kill_store.kill_after(process, rng.uniform(0, 0.0005 * secrets))
        cut = "done" not in lines
        killed += cut
        terms, still = asyncio.run(state(location, secrets))
        assert still == due, "something is due at another time"
        report(f"round {number}: {'killed' if cut else 'done'}, terms {terms}")
    asyncio.run(work(location))
    terms, still = asyncio.run(state(location, secrets))
    assert (len(terms), still) == (1, due)
    return killed, terms


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--secrets", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        asyncio.run(work(options.worker))
        signal.pause()
    folder = Path(tempfile.mkdtemp(prefix="keyhole-campaign-"))
    print(campaign(folder / "vault.db", options.rounds, options.secrets, options.seed))
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()

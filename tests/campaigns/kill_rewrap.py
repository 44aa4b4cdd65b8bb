"""Kill a process while it seals everything again under a new key, and hold the vault to its word each time.

    python tests/campaigns/kill_rewrap.py --rounds 200 --secrets 5000 --seed 1

A process makes a new term of the org's key and rewraps, and is killed with ``kill -9`` within any commit of it or
after it. Then, on a copy of what it left: every secret is readable with its value, tokens are due when they were, the
journal is whole, and a rewrap that is asked for again ends with one term. The next round begins where this one was
cut. The copy is looked at and thrown away, so that the journal does not grow with what the campaign reads.
"""

import argparse
import asyncio
import collections
import hashlib
import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from keyhole.core.identity import Caller
from keyhole.core.policy import Acl
from keyhole.crypto.keyring import term_of
from keyhole.testing import MemorySeal, open_vault

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from campaigns import kill_store

BATCH = 100
ASKED = 20
SEAL = hashlib.sha256(b"the campaign that kills rewraps").digest()
LONGEST = 0.02  # seconds after the beginning of a commit; most take less


def opened(location):
    """The same key for every life of the vault and every copy of it."""
    return open_vault(location, seal=MemorySeal(SEAL))


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


def say(line):
    os.write(sys.stdout.fileno(), line)


async def work(location, *, say=lambda _line: None):
    """Rotate and rewrap, saying a line before each commit; how many commits that were."""
    async with opened(location) as vault:
        store, made = vault.node.store, itertools.count()
        commit = store.commit

        async def told(batch):
            say(b"commit %d\n" % next(made))
            await commit(batch)

        store.commit = told
        await vault.ask("update", "sys/rotate")
        await vault.ask("update", "sys/rewrap")
        store.commit = commit
        say(b"done\n")
        return next(made)


def kill_at(process, commit, seconds):
    """``kill -9`` a process so long after it began a commit; whether that was before it was done."""
    for line in process.stdout:
        if line in {b"commit %d\n" % commit, b"done\n"}:
            break
    time.sleep(seconds)
    process.kill()
    rest = process.stdout.read()
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL, "the process ended by itself"
    return line != b"done\n" and b"done\n" not in rest


async def spread(vault):
    """How many entries of the org stand under each term."""
    store, after, found = vault.node.store, "", collections.Counter()
    while keys := await store.list(f"{vault.vault.root_org}/", after=after, limit=1000):
        after = keys[-1]
        found.update(term_of(entry.value) for entry in await store.get(keys) if entry.value)
    return dict(sorted(found.items()))


async def check(location, secrets, *, resume):
    """The entries under each term, and how many are due; every secret has its value, also after a further rewrap."""
    async with opened(location) as vault:
        terms, due = await spread(vault), len(await vault.node.store.due(2**40, 10_000))
        if resume:
            await vault.ask("update", "sys/rewrap")
            assert len(await spread(vault)) == len(vault.vault.keys.ring(vault.vault.root_org).terms) == 1
        for number in range(0, secrets, secrets // ASKED):  # as people read them
            assert (await vault.get(f"secret/data/team/s{number}"))["data"] == {"value": value_of(number)}
        door = vault.vault
        state = await door.compiled.state(door.root_org)
        mount = state.mounts.at("secret/")
        context = door.context(state, Caller("root", door.root_org, "", "", "full", (), Acl(())), mount)
        for number in range(secrets):  # and as they are lent, which costs no record
            found = await mount.engine.lend(context, f"team/s{number}", "value")
            assert found.reveal().decode() == value_of(number), f"secret {number} is not what it was"
        assert len(await vault.node.store.due(2**40, 10_000)) == due, "something is due at another time"
        assert (await vault.ask("read", "sys/audit-log/verify")).data["valid"]
        return terms, due


def look(folder, secrets, *, resume=False):
    """``check`` on a copy of the vault, which nobody has open."""
    with tempfile.TemporaryDirectory(prefix="keyhole-campaign-") as copied:
        shutil.copytree(folder, copied, dirs_exist_ok=True)
        return asyncio.run(check(f"sqlite:{copied}/vault.db", secrets, resume=resume))


def campaign(folder, rounds, secrets, seed, *, report=print):
    """Run all rounds on one vault in this folder; raises ``AssertionError`` at the first broken promise.

    Returns:
        How many were killed, how many of these with entries under several terms, and the terms in the end.
    """
    location = f"sqlite:{folder}/vault.db"
    rng = random.Random(seed)
    asyncio.run(prepare(location, secrets))
    _, due = look(folder, secrets)
    commits = asyncio.run(work(location))
    killed = amid = 0
    for number in range(1, rounds + 1):
        process = kill_store.start([__file__, "--worker", location])
        cut = kill_at(process, rng.randrange(commits), rng.uniform(0, LONGEST))
        terms, still = look(folder, secrets, resume=number % 2 == 0)  # every other one as it was left
        assert still == due, "something is due at another time"
        killed += cut
        amid += cut and len(terms) > 1
        report(f"round {number}: {'killed' if cut else 'done'}, entries under each term: {terms}")
    asyncio.run(work(location))
    terms, still = look(folder, secrets)
    assert (len(terms), still) == (1, due)
    return killed, amid, terms


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--secrets", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        asyncio.run(work(options.worker, say=say))
        signal.pause()
    with tempfile.TemporaryDirectory(prefix="keyhole-campaign-") as folder:
        killed, amid, terms = campaign(folder, options.rounds, options.secrets, options.seed)
    print(f"{options.rounds} rounds: {killed} killed, {amid} of them amid a rewrap; in the end {terms}")


if __name__ == "__main__":
    main()

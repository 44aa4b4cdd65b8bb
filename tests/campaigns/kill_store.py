"""Kill a process that writes into a store, again and again, and hold the store to its word each time.

    python tests/campaigns/kill_store.py --rounds 200 --seed 1 [--store sqlite:/tmp/campaign/store.db]

Eight writers put, delete and compare-and-set two keys at a time and append what they did to their journal in the same
commit, so that the journals are a full history to compare the entries with. Each acknowledged commit goes down a pipe
before the next is made. After ``kill -9``: every acknowledged commit is there, every other one wholly or not at all,
the revisions of each key follow each other, journals have no gaps, and the file passes SQLite's own check.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import select
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from keyhole.core.errors import Conflict
from keyhole.stores import Batch, Check, Delete, Entry, JournalRow, Put, open_store

WRITERS = 8
KEYS = [f"p0/{n}" for n in range(12)]

Acknowledged = set[tuple[int, int]]
"""Writer and sequence of the commits that were acknowledged."""


async def write(store, writer, sequence, rng):
    """Commit for ever. A line on stdout says that a commit was acknowledged."""
    while True:
        keys = rng.sample(KEYS, 3)
        entries = dict(zip(keys, await store.get(keys), strict=True))
        puts, deletes, changes = [], [], []
        for key in keys[:2]:
            expected = entries[key].revision
            if rng.random() < 0.3:
                deletes.append(Delete(key, expected))
                changes.append([key, expected + 1, None])
            else:
                value = f"{writer}.{sequence}.{key}" + "." * rng.randrange(3000)
                puts.append(Put(key, value.encode(), expected))
                changes.append([key, expected + 1, value])
        checks = [Check(keys[2], entries[keys[2]].revision)]
        body = json.dumps(changes).encode()
        record = JournalRow(writer, sequence, time.time_ns(), "p0", body, b"d" * 32, b"s" * 64)
        try:
            await store.commit(Batch(puts, deletes, checks, [record]))
        except Conflict:
            continue
        os.write(sys.stdout.fileno(), b"%d %d\n" % (writer, sequence))
        sequence += 1


async def work(location, seed):
    store = await open_store(location, create=True)
    heads = await store.heads()
    rngs = [random.Random(f"{seed}/{writer}") for writer in range(WRITERS)]
    await asyncio.gather(*(write(store, writer, heads.get(writer, 0) + 1, rngs[writer]) for writer in range(WRITERS)))


def start(arguments):
    """Start this file, or another campaign's, as a program whose stdout we read."""
    return subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, bufsize=0)


def kill_after(process, seconds, *, patience=60):
    """``kill -9`` a program ``seconds`` after its first line, and return all lines that it completed."""
    ready, _, _ = select.select([process.stdout], [], [], patience)
    if ready:
        time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    output = process.stdout.read()
    process.stdout.close()
    if process.wait() != -signal.SIGKILL:
        raise AssertionError(f"the writers ended by themselves with status {process.returncode}")
    return output[: output.rfind(b"\n") + 1].decode().splitlines()


def run_round(location, rng):
    """One life and death of the writers; what they were told is durable."""
    process = start([__file__, "--worker", location, "--seed", str(rng.getrandbits(32))])
    lines = kill_after(process, rng.uniform(0, 0.25))
    return {(int(writer), int(sequence)) for writer, sequence in map(str.split, lines)}


async def read_history(store):
    """All journal rows by writer; raises when one has a gap."""
    history = {}
    for writer, head in (await store.heads()).items():
        rows = []
        while page := await store.scan(writer, after=len(rows)):
            rows += page
        assert [row.sequence for row in rows] == list(range(1, head + 1)), f"journal {writer} has a gap"
        history[writer] = rows
    return history


async def verify(location, acknowledged):
    """Hold the store to its word; the number of commits in it."""
    store = await open_store(location)
    try:
        history = await read_history(store)
        missing = {(w, s) for w, s in acknowledged if s > len(history.get(w, ()))}
        assert not missing, f"acknowledged and lost: {sorted(missing)}"
        states = {}
        for rows in history.values():
            for key, revision, value in (change for row in rows for change in json.loads(row.body)):
                assert revision not in states.setdefault(key, {}), f"{key} has two revisions {revision}"
                states[key][revision] = value
        for key, entry in zip(KEYS, await store.get(KEYS), strict=True):
            revisions = states.get(key, {})
            assert sorted(revisions) == list(range(1, entry.revision + 1)), f"the history of {key} has a gap"
            value = revisions.get(entry.revision)
            assert entry == Entry(None if value is None else value.encode(), entry.revision), f"{key} is wrong"
        live = sorted(key for key, revisions in states.items() if revisions[max(revisions)] is not None)
        assert await store.list("") == live
        return sum(map(len, history.values()))
    finally:
        await store.close()


def check_file(path):
    """SQLite's own opinion of the file."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def campaign(location, rounds, seed, *, report=print):
    """Run all rounds on one store; raises ``AssertionError`` at the first broken promise."""
    rng = random.Random(seed)
    acknowledged: Acknowledged = set()
    commits = 0
    for number in range(1, rounds + 1):
        acknowledged |= run_round(location, rng)
        commits = asyncio.run(verify(location, acknowledged))
        name, _, path = location.partition(":")
        if name == "sqlite":
            check_file(path)
        report(f"round {number}: {len(acknowledged)} acknowledged, {commits} found, nothing lost")
    return len(acknowledged), commits


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", help="location of a store that does not exist yet")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        asyncio.run(work(options.worker, options.seed))
    folder = Path(tempfile.mkdtemp(prefix="keyhole-campaign-"))
    campaign(options.store or f"sqlite:{folder}/store.db", options.rounds, options.seed)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()

"""Processes that are nodes of one store, and what holds of them over any."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from keyhole.core.errors import Conflict
from keyhole.stores import Batch, JournalRow, Put, open_store

COUNTER = "p0/counter"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
NODE = "import asyncio, sys; from stores import nodes; asyncio.run(nodes.node(*sys.argv[1:]))"


def record(writer, sequence):
    return JournalRow(int(writer), sequence, sequence, "p0", b"body", b"d" * 32)


async def count_up(store, writer, sequence):
    """Add one to the shared counter and append to the own journal, in one commit."""
    while True:
        [entry] = await store.get([COUNTER])
        value = b"%d" % (int(entry.value or b"0") + 1)
        try:
            await store.commit(Batch(puts=[Put(COUNTER, value, entry.revision)], appends=[record(writer, sequence)]))
        except Conflict:
            continue
        return


async def node(location, writer, rounds):
    store = await open_store(location)
    for sequence in range(1, int(rounds) + 1):
        await count_up(store, writer, sequence)
        print(sequence, flush=True)
    await store.close()


def start_node(location, writer, rounds):
    arguments = [sys.executable, "-c", NODE, location, str(writer), str(rounds)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, env=ENVIRONMENT, text=True)


async def keep_one_history(location, rounds, own):
    """Two processes count up so often each, and this one too."""
    store = await open_store(location, create=True)
    nodes = [start_node(location, writer, rounds) for writer in (1, 2)]
    for sequence in range(1, own + 1):
        await count_up(store, 0, sequence)
    for process in nodes:
        await asyncio.to_thread(process.communicate)
        assert process.returncode == 0
    [entry] = await store.get([COUNTER])
    total = own + 2 * rounds
    assert (entry.value, entry.revision) == (b"%d" % total, total)
    assert await store.heads() == {0: own, 1: rounds, 2: rounds}
    await store.close()


async def outlive_others(location, lives):
    """A process goes on after so many others were killed, and nothing that they were told is lost."""
    store = await open_store(location, create=True)
    sequence = 0
    for life in range(lives):
        other = start_node(location, life + 1, 10**6)
        acknowledged = [int(await asyncio.to_thread(other.stdout.readline)) for _ in range(20)]
        other.kill()
        rest, _ = await asyncio.to_thread(other.communicate)
        last = max(acknowledged + [int(line) for line in rest.splitlines()])
        assert (await store.heads())[life + 1] >= last
        for _ in range(20):
            sequence += 1
            await count_up(store, 0, sequence)
    [entry] = await store.get([COUNTER])
    assert entry.revision == sum((await store.heads()).values())
    await store.close()


async def notice_a_change(location):
    """What another process writes is noticed."""
    store = await open_store(location, create=True)
    before = await store.generation()
    changes = store.watch()
    other = start_node(location, 1, 1)
    seen = await asyncio.wait_for(anext(changes), 60)
    assert seen == await store.generation() != before
    await asyncio.to_thread(other.communicate)
    await changes.aclose()
    await store.close()

"""Several processes on one file are several nodes."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from keyhole.core.errors import Conflict
from keyhole.stores import Batch, JournalRow, Put, open_store

COUNTER = "p0/counter"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
NODE = "import asyncio, sys; from stores import test_sqlite_nodes as t; asyncio.run(t.node(*sys.argv[1:]))"


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


def test_two_processes_keep_one_history(tmp_path):
    location = f"sqlite:{tmp_path}/vault.db"

    async def main():
        store = await open_store(location, create=True)
        nodes = [start_node(location, writer, 150) for writer in (1, 2)]
        for sequence in range(1, 51):
            await count_up(store, 0, sequence)
        for process in nodes:
            await asyncio.to_thread(process.communicate)
            assert process.returncode == 0
        [entry] = await store.get([COUNTER])
        assert (entry.value, entry.revision) == (b"350", 350)
        assert await store.heads() == {0: 50, 1: 150, 2: 150}
        await store.close()

    asyncio.run(main())


def test_node_goes_on_after_another_was_killed(tmp_path):
    location = f"sqlite:{tmp_path}/vault.db"

    async def main():
        store = await open_store(location, create=True)
        sequence = 0
        for life in range(3):
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

    asyncio.run(main())


def test_change_by_another_process_is_noticed(tmp_path):
    location = f"sqlite:{tmp_path}/vault.db"

    async def main():
        store = await open_store(location, create=True)
        before = await store.generation()
        changes = store.watch()
        other = start_node(location, 1, 1)
        seen = await asyncio.wait_for(anext(changes), 60)
        assert seen == await store.generation() != before
        await asyncio.to_thread(other.communicate)
        await changes.aclose()
        await store.close()

    asyncio.run(main())


def test_two_openings_in_one_process_see_each_other_and_close_singly(tmp_path):
    location = f"sqlite:{tmp_path}/vault.db"

    async def main():
        first = await open_store(location, create=True)
        second = await open_store(location)
        await first.commit(Batch(puts=[Put("p0/a", b"v", 0)]))
        assert await second.generation() == await first.generation()
        await first.close()
        assert [entry.value for entry in await second.get(["p0/a"])] == [b"v"]
        await second.commit(Batch(puts=[Put("p0/a", b"w", 1)]))
        await second.close()

    asyncio.run(main())

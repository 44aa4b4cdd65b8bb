"""Several processes on one database are several nodes."""

import asyncio

import postgres_server
from keyhole.stores import Batch, Put, open_store
from stores.test_sqlite_nodes import COUNTER, count_up, start_node


def test_two_processes_keep_one_history():
    location = postgres_server.location()

    async def main():
        store = await open_store(location, create=True)
        nodes = [start_node(location, writer, 60) for writer in (1, 2)]
        for sequence in range(1, 31):
            await count_up(store, 0, sequence)
        for process in nodes:
            await asyncio.to_thread(process.communicate)
            assert process.returncode == 0
        [entry] = await store.get([COUNTER])
        assert (entry.value, entry.revision) == (b"150", 150)
        assert await store.heads() == {0: 30, 1: 60, 2: 60}
        await store.close()

    asyncio.run(main())


def test_node_goes_on_after_another_was_killed():
    location = postgres_server.location()

    async def main():
        store = await open_store(location, create=True)
        sequence = 0
        for life in range(2):
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


def test_change_by_another_process_is_noticed():
    location = postgres_server.location()

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


def test_generation_asked_for_after_a_commit_elsewhere_is_never_the_one_from_before():
    location = postgres_server.location()

    async def main():
        first = await open_store(location, create=True)
        second = await open_store(location)
        for revision in range(50):
            # Questions that are already on their way must not answer for the one that comes after the commit.
            early = [asyncio.ensure_future(second.generation()) for _ in range(5)]
            before = await first.generation()
            await first.commit(Batch(puts=[Put("p0/a", b"v", revision)]))
            assert await second.generation() == await first.generation() != before
            await asyncio.gather(*early)
        await first.close()
        await second.close()

    asyncio.run(main())

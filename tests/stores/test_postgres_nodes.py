"""Several processes on one database are several nodes."""

import asyncio

import postgres_server
from keyhole.stores import Batch, Put, open_store
from stores.nodes import keep_one_history, notice_a_change, outlive_others


def test_two_processes_keep_one_history():
    asyncio.run(keep_one_history(postgres_server.location(), rounds=60, own=30))


def test_node_goes_on_after_another_was_killed():
    asyncio.run(outlive_others(postgres_server.location(), lives=2))


def test_change_by_another_process_is_noticed():
    asyncio.run(notice_a_change(postgres_server.location()))


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

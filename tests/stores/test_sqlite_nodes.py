"""Several processes on one file are several nodes."""

import asyncio

from keyhole.stores import Batch, Put, open_store
from stores.nodes import keep_one_history, notice_a_change, outlive_others


def test_two_processes_keep_one_history(tmp_path):
    asyncio.run(keep_one_history(f"sqlite:{tmp_path}/vault.db", rounds=150, own=50))


def test_node_goes_on_after_another_was_killed(tmp_path):
    asyncio.run(outlive_others(f"sqlite:{tmp_path}/vault.db", lives=3))


def test_change_by_another_process_is_noticed(tmp_path):
    asyncio.run(notice_a_change(f"sqlite:{tmp_path}/vault.db"))


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

"""What was read stays known as it lies in the file, until anything there changes."""

import asyncio

from keyhole.stores import Batch, JournalRow, Put, open_store
from keyhole.stores.sqlite.known import ROWS, SIZE

KEY = "p0/name"


def record(sequence):
    return JournalRow(7, sequence, sequence, "p0", b"body", b"d" * 32)


def asked(store):
    """The statements that read an entry from here on."""
    seen = []
    store._reader.set_trace_callback(lambda statement: seen.append(statement) if "FROM entry" in statement else None)
    return seen


def test_records_do_not_make_a_row_read_again_and_changes_do(tmp_path):
    async def main():
        store = await open_store(f"sqlite:{tmp_path}/vault.db", create=True)
        await store.commit(Batch(puts=[Put(KEY, b"one", 0)]))
        seen = asked(store)
        for sequence in range(1, 5):
            assert (await store.get([KEY]))[0].value == b"one"
            await store.commit(Batch(appends=[record(sequence)]))
        assert len(seen) == 1

        await store.commit(Batch(puts=[Put("p0/other", b"two", 0)]))
        assert (await store.get([KEY]))[0].value == b"one"
        assert len(seen) == 2

        await store.commit(Batch(puts=[Put(KEY, b"three", 1)]))
        assert (await store.get([KEY]))[0] == (b"three", 2)
        await store.close()

    asyncio.run(main())


def test_the_change_of_another_node_is_seen_by_the_next_read(tmp_path):
    async def main():
        location = f"sqlite:{tmp_path}/vault.db"
        store, other = await open_store(location, create=True), await open_store(location)
        await store.commit(Batch(puts=[Put(KEY, b"0", 0)]))
        for number in range(1, 50):
            assert (await store.get([KEY]))[0].value == b"%d" % (number - 1)
            await other.commit(Batch(puts=[Put(KEY, b"%d" % number, number)]))
        await store.close()
        await other.close()

    asyncio.run(main())


def test_what_was_looked_for_before_it_was_there_is_found(tmp_path):
    async def main():
        store = await open_store(f"sqlite:{tmp_path}/vault.db", create=True)
        assert (await store.get([KEY]))[0] == (None, 0)
        await store.commit(Batch(puts=[Put(KEY, b"one", 0)]))
        assert (await store.get([KEY]))[0] == (b"one", 1)
        await store.close()

    asyncio.run(main())


def test_what_is_kept_is_bounded(tmp_path):
    async def main():
        store = await open_store(f"sqlite:{tmp_path}/vault.db", create=True)
        await store.commit(Batch(puts=[Put("p0/long", bytes(SIZE + 1), 0)]))
        await store.commit(Batch(puts=[Put(f"p0/{number}", b"x", 0) for number in range(ROWS + 10)]))
        seen = asked(store)
        for _ in range(2):
            assert len((await store.get(["p0/long"]))[0].value) == SIZE + 1
        assert len(seen) == 2
        for number in range(ROWS + 10):
            await store.get([f"p0/{number}"])
        seen.clear()
        for number in range(ROWS + 10):
            await store.get([f"p0/{number}"])
        assert len(seen) == 10
        await store.close()

    asyncio.run(main())

"""What every store promises, over every member of the shelf."""

import asyncio
import random
from contextlib import asynccontextmanager

import pytest

import postgres_server
from keyhole import stores
from keyhole.core.errors import Conflict, InvalidRequest, StoreUnavailable
from keyhole.stores import Batch, Check, Delete, Entry, JournalRow, Put, open_store

NEVER = Entry(None, 0)


def row(writer, sequence, body=b"sealed"):
    return JournalRow(writer, sequence, 1_700_000_000_000_000_000 + sequence, "p0", body, b"d" * 32, b"s" * 64)


def location(member, folder):
    """Where a fresh store of this member lies."""
    if member == "memory":
        return "memory:"
    if member == "sqlite":
        return f"sqlite:{folder}/private/store.db"
    if member == "postgres":
        return postgres_server.location()
    pytest.skip(f"no test location is known for the store {member!r}")


@pytest.fixture(params=stores.MEMBERS)
def fresh(request, tmp_path):
    place = location(request.param, tmp_path)

    @asynccontextmanager
    async def opened():
        store = await open_store(place, create=True)
        try:
            yield store
        finally:
            await store.close()

    return opened


@pytest.fixture
def run(fresh):
    """Run a coroutine function on a fresh store."""

    def runner(scenario):
        async def main():
            async with fresh() as store:
                return await scenario(store)

        return asyncio.run(main())

    return runner


async def put(store, *keys, value=b"v", due=None):
    await store.commit(Batch(puts=[Put(key, value, 0, due) for key in keys]))


class TestEntries:
    def test_unknown_key_is_empty_at_revision_zero(self, run):
        async def scenario(store):
            assert await store.get(["p0/none"]) == [NEVER]
            assert await store.get([]) == []

        run(scenario)

    def test_value_comes_back_as_it_was_put(self, run):
        async def scenario(store):
            values = {"p0/empty": b"", "p0/zero": b"\0", "p0/text": "ü".encode(), "p0/all": bytes(range(256))}
            await store.commit(Batch(puts=[Put(key, value, 0) for key, value in values.items()]))
            assert await store.get(list(values)) == [Entry(value, 1) for value in values.values()]

        run(scenario)

    def test_get_answers_in_the_order_asked_also_twice_and_beyond_any_chunk(self, run):
        async def scenario(store):
            keys = [f"p0/{n:04}" for n in range(300)]
            await store.commit(Batch(puts=[Put(key, key.encode(), 0) for key in keys]))
            asked = [*reversed(keys), "p0/none", keys[7], keys[7]]
            got = await store.get(asked)
            assert [entry.value for entry in got] == [None if key == "p0/none" else key.encode() for key in asked]

        run(scenario)

    def test_value_of_a_mebibyte_survives(self, run):
        async def scenario(store):
            big = random.Random(1).randbytes(1 << 20)
            await put(store, "p0/big", value=big)
            await store.commit(Batch(puts=[Put("p0/big", big[::-1], 1)]))
            assert await store.get(["p0/big"]) == [Entry(big[::-1], 2)]

        run(scenario)

    def test_longest_key_works_and_longer_or_odd_ones_are_refused(self, run):
        async def scenario(store):
            longest = "p0/" + "k" * 2045
            await put(store, longest)
            assert (await store.get([longest]))[0].revision == 1
            for bad in ("", longest + "k", "p0/ü", "p0/a\0b"):
                with pytest.raises(InvalidRequest):
                    await put(store, bad)

        run(scenario)

    def test_due_that_is_no_number_is_refused(self, run):
        async def scenario(store):
            for bad in (float("nan"), float("inf")):
                with pytest.raises(InvalidRequest):
                    await put(store, "p0/a", due=bad)

        run(scenario)

    def test_key_changed_twice_in_a_batch_is_refused(self, run):
        async def scenario(store):
            with pytest.raises(InvalidRequest):
                await store.commit(Batch(puts=[Put("p0/a", b"1", 0), Put("p0/a", b"2", 1)]))
            with pytest.raises(InvalidRequest):
                await store.commit(Batch(puts=[Put("p0/a", b"1", 0)], deletes=[Delete("p0/a", 1)]))
            assert await store.get(["p0/a"]) == [NEVER]

        run(scenario)


class TestRevisions:
    @pytest.mark.parametrize("expected", [0, 2, 7])
    def test_put_from_another_revision_is_a_conflict(self, run, expected):
        async def scenario(store):
            await put(store, "p0/a", value=b"first")
            with pytest.raises(Conflict):
                await store.commit(Batch(puts=[Put("p0/a", b"second", expected)]))
            assert await store.get(["p0/a"]) == [Entry(b"first", 1)]

        run(scenario)

    def test_put_of_a_key_that_never_was_needs_revision_zero(self, run):
        async def scenario(store):
            with pytest.raises(Conflict):
                await store.commit(Batch(puts=[Put("p0/a", b"v", 1)]))
            assert await store.get(["p0/a"]) == [NEVER]

        run(scenario)

    def test_deletion_leaves_a_tombstone_and_the_revision_goes_on(self, run):
        async def scenario(store):
            await put(store, "p0/a")
            await store.commit(Batch(deletes=[Delete("p0/a", 1)]))
            assert await store.get(["p0/a"]) == [Entry(None, 2)]
            assert await store.list("p0/") == []
            with pytest.raises(Conflict):
                await put(store, "p0/a")
            with pytest.raises(Conflict):
                await store.commit(Batch(deletes=[Delete("p0/a", 1)]))
            await store.commit(Batch(puts=[Put("p0/a", b"again", 2)]))
            assert await store.get(["p0/a"]) == [Entry(b"again", 3)]
            assert await store.list("p0/") == ["p0/a"]

        run(scenario)

    def test_deleting_what_never_was_or_is_deleted_leaves_the_next_tombstone(self, run):
        async def scenario(store):
            await store.commit(Batch(deletes=[Delete("p0/a", 0)]))
            await store.commit(Batch(deletes=[Delete("p0/a", 1)]))
            assert await store.get(["p0/a"]) == [Entry(None, 2)]

        run(scenario)

    def test_failed_check_fails_everything_in_the_batch(self, run):
        async def scenario(store):
            await put(store, "p0/guard", "p0/old")
            batch = Batch(
                puts=[Put("p0/new", b"v", 0)],
                deletes=[Delete("p0/old", 1)],
                checks=[Check("p0/guard", 0)],
                appends=[row(0, 1)],
            )
            with pytest.raises(Conflict):
                await store.commit(batch)
            assert await store.get(["p0/new", "p0/old"]) == [NEVER, Entry(b"v", 1)]
            assert await store.heads() == {}

        run(scenario)

    def test_check_holds_for_stored_deleted_and_unknown_keys(self, run):
        async def scenario(store):
            await put(store, "p0/a", "p0/b")
            await store.commit(Batch(deletes=[Delete("p0/b", 1)]))
            checks = [Check("p0/a", 1), Check("p0/b", 2), Check("p0/c", 0)]
            await store.commit(Batch(puts=[Put("p0/d", b"v", 0)], checks=checks))
            assert (await store.get(["p0/d"]))[0].revision == 1

        run(scenario)

    def test_last_conflict_of_a_large_batch_undoes_its_first_change(self, run):
        async def scenario(store):
            await put(store, "p0/150")
            with pytest.raises(Conflict):
                await put(store, *(f"p0/{n:03}" for n in range(151)))
            assert await store.list("p0/") == ["p0/150"]

        run(scenario)


class TestConcurrency:
    def test_exactly_one_of_a_hundred_writers_wins_each_round(self, run):
        async def scenario(store):
            for revision in range(10):
                tries = (store.commit(Batch(puts=[Put("p0/lock", b"%d" % n, revision)])) for n in range(100))
                answers = await asyncio.gather(*tries, return_exceptions=True)
                winners = [n for n, answer in enumerate(answers) if answer is None]
                assert len(winners) == 1
                assert sum(isinstance(answer, Conflict) for answer in answers) == 99
                assert await store.get(["p0/lock"]) == [Entry(b"%d" % winners[0], revision + 1)]

        run(scenario)

    def test_conflict_among_many_commits_at_once_fails_alone(self, run):
        async def scenario(store):
            await put(store, "p0/taken")
            batches = [Batch(puts=[Put(f"p0/{n:03}", b"v", 0)]) for n in range(60)]
            batches[17] = Batch(puts=[Put("p0/017", b"v", 0), Put("p0/taken", b"v", 0)])
            batches[40] = Batch(puts=[Put("p0/040", b"v", 0)], appends=[row(0, 2)])
            answers = await asyncio.gather(*(store.commit(batch) for batch in batches), return_exceptions=True)
            assert [n for n, answer in enumerate(answers) if answer is not None] == [17, 40]
            expected = [f"p0/{n:03}" for n in range(60) if n not in {17, 40}]
            assert await store.list("p0/") == [*expected, "p0/taken"]
            assert await store.heads() == {}

        run(scenario)

    def test_commits_at_once_see_each_other_in_order(self, run):
        async def scenario(store):
            batches = [Batch(puts=[Put("p0/a", b"%d" % n, n)], appends=[row(3, n + 1)]) for n in range(50)]
            await asyncio.gather(*map(store.commit, batches))
            assert await store.get(["p0/a"]) == [Entry(b"49", 50)]
            assert await store.heads() == {3: 50}

        run(scenario)

    def test_reader_never_sees_half_a_commit(self, run):
        async def scenario(store):
            keys = [f"p0/{n}" for n in range(100)]
            done = asyncio.Event()

            async def write():
                for n in range(30):
                    await store.commit(Batch(puts=[Put(key, b"%d" % n, n) for key in keys]))
                done.set()

            async def read():
                while not done.is_set():
                    assert len({(entry.value, entry.revision) for entry in await store.get(keys)}) == 1
                    await asyncio.sleep(0)

            await asyncio.gather(write(), read(), read())

        run(scenario)

    def test_commit_is_carried_out_when_its_caller_is_cancelled(self, run):
        async def scenario(store):
            task = asyncio.ensure_future(put(store, "p0/a"))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await put(store, "p0/b")
            assert await store.list("p0/") == ["p0/a", "p0/b"]

        run(scenario)


class TestListing:
    KEYS = ("p0/a/1", "p0/a/2", "p0/a0", "p0/b", "p0/c/d/e", "p0/c/f", "p0/~", "p00/x", "p1/y")

    def test_keys_of_a_prefix_come_in_byte_order(self, run):
        async def scenario(store):
            await put(store, *reversed(self.KEYS))
            assert await store.list("p0/") == list(self.KEYS[:7])
            assert await store.list("p0/a") == ["p0/a/1", "p0/a/2", "p0/a0"]
            assert await store.list("") == list(self.KEYS)
            assert await store.list("p2/") == []
            assert await store.list("p0/b") == ["p0/b"]

        run(scenario)

    def test_pattern_characters_in_a_prefix_mean_themselves(self, run):
        async def scenario(store):
            await put(store, "p0/%", "p0/_", "p0/*", "p0/x", "p0/[x]", "p0/'")
            assert await store.list("p0/%") == ["p0/%"]
            assert await store.list("p0/_") == ["p0/_"]
            assert await store.list("p0/[") == ["p0/[x]"]
            assert await store.list("p0/'") == ["p0/'"]

        run(scenario)

    def test_delimiter_folds_what_is_below(self, run):
        async def scenario(store):
            await put(store, *self.KEYS)
            assert await store.list("p0/", delimiter="/") == ["p0/a/", "p0/a0", "p0/b", "p0/c/", "p0/~"]
            assert await store.list("p0/c/", delimiter="/") == ["p0/c/d/", "p0/c/f"]
            assert await store.list("", delimiter="/") == ["p0/", "p00/", "p1/"]

        run(scenario)

    @pytest.mark.parametrize("delimiter", ["", "/", "//"])
    @pytest.mark.parametrize("size", [1, 2, 3, 100])
    def test_pages_add_up_to_the_whole(self, run, size, delimiter):
        async def scenario(store):
            rng = random.Random(size)
            keys = {"p0/" + "".join(rng.choice("ab/") for _ in range(rng.randint(1, 6))) for _ in range(80)}
            await put(store, *keys)
            whole = await store.list("p0/", delimiter=delimiter)
            folded = {
                key[: cut + len(delimiter)] if delimiter and (cut := key.find(delimiter, 3)) >= 0 else key
                for key in keys
            }
            assert whole == sorted(folded)
            pages, after = [], ""
            while page := await store.list("p0/", after=after, limit=size, delimiter=delimiter):
                assert len(page) <= size
                pages += page
                after = page[-1]
            assert pages == whole

        run(scenario)

    def test_after_stays_within_the_prefix(self, run):
        async def scenario(store):
            await put(store, *self.KEYS)
            assert await store.list("p0/", after="p0/b") == ["p0/c/d/e", "p0/c/f", "p0/~"]
            assert await store.list("p0/", after="p0/az", limit=1) == ["p0/b"]
            assert await store.list("p0/", after="a") == list(self.KEYS[:7])
            assert await store.list("p0/", after="p1/") == []
            assert await store.list("p0/", limit=0) == []

        run(scenario)

    def test_deleted_keys_are_gone_also_when_their_folder_is_empty(self, run):
        async def scenario(store):
            await put(store, "p0/a/1", "p0/a/2", "p0/b")
            await store.commit(Batch(deletes=[Delete("p0/a/1", 1), Delete("p0/a/2", 1)]))
            assert await store.list("p0/", delimiter="/") == ["p0/b"]

        run(scenario)


class TestDue:
    def test_earliest_first_and_nothing_from_the_future(self, run):
        async def scenario(store):
            for key, due in (("p0/c", 30.5), ("p0/a", 10.0), ("p0/b", 20.0), ("p0/d", 40.0), ("p0/none", None)):
                await put(store, key, due=due)
            assert await store.due(30.5) == ["p0/a", "p0/b", "p0/c"]
            assert await store.due(30.4) == ["p0/a", "p0/b"]
            assert await store.due(100, limit=2) == ["p0/a", "p0/b"]
            assert await store.due(9.9) == []

        run(scenario)

    def test_what_is_sealed_again_stays_due_when_it_is(self, run):
        async def scenario(store):
            await put(store, "p0/a", due=10.0)
            await put(store, "p0/b")
            await store.commit(
                Batch(puts=[Put("p0/a", b"new", 1, keep_due=True), Put("p0/b", b"new", 1, keep_due=True)])
            )
            assert await store.get(["p0/a", "p0/b"]) == [Entry(b"new", 2), Entry(b"new", 2)]
            assert await store.due(10.0) == ["p0/a"]
            await asyncio.gather(
                store.commit(Batch(puts=[Put("p0/a", b"later", 2, 30.0)])),
                store.commit(Batch(puts=[Put("p0/a", b"again", 3, keep_due=True)])),
                return_exceptions=True,
            )
            assert await store.due(20.0) == []
            assert await store.due(30.0) == ["p0/a"]
            for bad in (Put("p0/c", b"v", 0, keep_due=True), Put("p0/b", b"v", 2, 5.0, keep_due=True)):
                with pytest.raises(InvalidRequest):
                    await store.commit(Batch(puts=[bad]))

        run(scenario)

    def test_put_and_delete_move_or_clear_the_time(self, run):
        async def scenario(store):
            await put(store, "p0/a", "p0/b", "p0/c", due=10.0)
            await store.commit(
                Batch(puts=[Put("p0/a", b"v", 1, 20.0), Put("p0/b", b"v", 1)], deletes=[Delete("p0/c", 1)])
            )
            assert await store.due(10) == []
            assert await store.due(20) == ["p0/a"]
            await store.commit(Batch(puts=[Put("p0/c", b"v", 2, 5.0)]))
            assert await store.due(20) == ["p0/c", "p0/a"]

        run(scenario)


class TestGeneration:
    def test_put_and_delete_change_it_and_nothing_else_does(self, run):
        async def scenario(store):
            seen = [await store.generation()]
            await put(store, "p0/a")
            seen.append(await store.generation())
            await store.commit(Batch(deletes=[Delete("p0/a", 1)]))
            seen.append(await store.generation())
            assert len(set(seen)) == 3
            await store.commit(Batch(appends=[row(0, 1)]))
            await store.commit(Batch(checks=[Check("p0/a", 2)]))
            await store.commit(Batch())
            with pytest.raises(Conflict):
                await put(store, "p0/a")
            await store.get(["p0/a"])
            assert await store.generation() == seen[-1]

        run(scenario)

    def test_watcher_sees_a_change_made_right_after_it_was_asked_for(self, run):
        async def scenario(store):
            changes = store.watch()
            await put(store, "p0/a")
            assert await asyncio.wait_for(anext(changes), 60) == await store.generation()
            later = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0)
            await put(store, "p0/b")
            assert await asyncio.wait_for(later, 60) == await store.generation()
            await changes.aclose()

        run(scenario)

    def test_watcher_is_not_woken_by_journals_and_ends_with_the_store(self, run):
        async def scenario(store):
            async def all_changes():
                return [number async for number in store.watch()]

            task = asyncio.ensure_future(all_changes())
            await asyncio.sleep(0)
            await store.commit(Batch(appends=[row(0, 1)]))
            await store.close()
            assert await asyncio.wait_for(task, 60) == []

        run(scenario)


class TestJournals:
    def test_rows_come_back_in_order_with_every_column(self, run):
        async def scenario(store):
            rows = [row(0, n, b"%d" % n) for n in range(1, 151)]
            other = [JournalRow(7, 1, 2**62, "p9", b"", b"", b"")]
            await store.commit(Batch(appends=[*rows[:100], *other]))
            await store.commit(Batch(appends=rows[100:]))
            assert await store.scan(0) == rows
            assert await store.scan(0, after=148) == rows[148:]
            assert await store.scan(0, after=10, limit=5) == rows[10:15]
            assert await store.scan(0, limit=0) == []
            assert await store.scan(7) == other
            assert await store.scan(8) == []
            assert await store.heads() == {0: 150, 7: 1}

        run(scenario)

    @pytest.mark.parametrize("sequences", [[2], [0], [1, 3], [2, 1], [1, 1]])
    def test_gap_or_duplicate_in_the_first_rows_is_a_conflict(self, run, sequences):
        async def scenario(store):
            with pytest.raises(Conflict):
                await store.commit(Batch(appends=[row(4, sequence) for sequence in sequences]))
            assert await store.heads() == {}

        run(scenario)

    @pytest.mark.parametrize("sequence", [1, 2, 4])
    def test_row_that_does_not_follow_the_last_is_a_conflict_and_replaces_nothing(self, run, sequence):
        async def scenario(store):
            await store.commit(Batch(appends=[row(0, 1), row(0, 2)]))
            with pytest.raises(Conflict):
                await store.commit(Batch(puts=[Put("p0/a", b"v", 0)], appends=[row(0, sequence, b"forged")]))
            assert await store.scan(0) == [row(0, 1), row(0, 2)]
            assert await store.get(["p0/a"]) == [NEVER]
            await store.commit(Batch(appends=[row(0, 3)]))

        run(scenario)

    def test_writers_do_not_disturb_each_other(self, run):
        async def scenario(store):
            async def append(writer):
                for sequence in range(1, 26):
                    await store.commit(Batch(appends=[row(writer, sequence)]))

            await asyncio.gather(*map(append, range(8)))
            assert await store.heads() == dict.fromkeys(range(8), 25)

        run(scenario)


class TestClosing:
    def test_close_can_be_repeated_and_the_store_then_says_that_it_is_closed(self, run):
        async def scenario(store):
            await asyncio.gather(store.close(), store.close())
            await store.close()
            for operation in (store.get(["p0/a"]), store.commit(Batch()), store.generation(), store.list("p0/")):
                with pytest.raises(StoreUnavailable) as refusal:
                    await operation
                assert refusal.value.hint

        run(scenario)

    def test_close_finishes_what_was_accepted(self, run):
        async def scenario(store):
            tasks = [asyncio.ensure_future(put(store, f"p0/{n}")) for n in range(40)]
            await asyncio.sleep(0)
            await store.close()
            assert await asyncio.gather(*tasks) == [None] * 40

        run(scenario)

    def test_clock_is_seconds_since_the_epoch(self, run):
        async def scenario(store):
            assert await store.now() > 1_700_000_000

        run(scenario)


def test_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(InvalidRequest, match="sqlite"):
        asyncio.run(open_store("oracle:/x"))

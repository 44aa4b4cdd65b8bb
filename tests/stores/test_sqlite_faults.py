"""A medium that fails, and files that were damaged: clear errors, reads go on, and it recovers by itself."""

import asyncio
import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from keyhole.core.errors import InvalidRequest, KeyholeError, StoreUnavailable
from keyhole.stores import Batch, Delete, Entry, JournalRow, Put, open_store
from keyhole.stores.sqlite import place, writer


def row(sequence, body=b"body", *, time=1):
    return JournalRow(0, sequence, time, "p0", body, b"d" * 32, b"s" * 64)


def with_store(tmp_path, scenario):
    """Run the scenario on a store that holds ``p0/a``."""

    async def main():
        store = await open_store(f"sqlite:{tmp_path}/vault.db", create=True)
        await store.commit(Batch(puts=[Put("p0/a", b"v", 0)]))
        try:
            return await scenario(store)
        finally:
            await store.close()

    return asyncio.run(main())


async def refuses_to_write(store, key="p0/b", value=b"v"):
    """A write fails with a next step, nothing of it is there, and reads go on."""
    with pytest.raises(StoreUnavailable) as refusal:
        await store.commit(Batch(puts=[Put(key, value, 0)], appends=[row(1)]))
    assert refusal.value.hint
    assert await store.get(["p0/a", key]) == [Entry(b"v", 1), Entry(None, 0)]
    assert await store.heads() == {}
    return str(refusal.value)


async def writes(store, key="p0/b"):
    await store.commit(Batch(puts=[Put(key, b"v", 0)], appends=[row(1)]))
    assert await store.get([key]) == [Entry(b"v", 1)]
    assert await store.heads() == {0: 1}


def run_program(program, *arguments, wrapper=()):
    """Run a function of this file in a process of its own."""
    code = f"import sys; from stores import test_sqlite_faults as t; t.{program}(*sys.argv[1:])"
    return subprocess.run(
        [*wrapper, sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )


def fill_up_to_a_file_size_limit(folder):
    import resource

    async def scenario(store):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        await refuses_to_write(store, value=b"x" * 300_000)
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await writes(store)

    with_store(Path(folder), scenario)


def test_file_size_limit_refuses_writes_until_it_is_lifted(tmp_path):
    result = run_program("fill_up_to_a_file_size_limit", tmp_path)
    assert result.returncode == 0, result.stderr


def fill_a_small_disk(folder):
    disk = Path(folder)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "none", disk], check=True)

    async def scenario(store):
        with contextlib.suppress(OSError), (disk / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(b"x" * 4096)
        assert "full" in await refuses_to_write(store, value=b"x" * 300_000)
        (disk / "ballast").unlink()
        await writes(store)

    with_store(disk, scenario)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(StoreUnavailable) as refusal:
        asyncio.run(open_store(f"sqlite:{disk}/vault.db"))
    assert "read-only" in refusal.value.reason
    assert "mount it" in refusal.value.hint
    with pytest.raises(StoreUnavailable):
        asyncio.run(open_store(f"sqlite:{disk}/new.db", create=True))
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    asyncio.run(reopened(disk))


async def reopened(folder):
    store = await open_store(f"sqlite:{folder}/vault.db")
    assert (await store.get(["p0/a"]))[0] == Entry(b"v", 1)
    await store.close()


def test_full_or_read_only_disk_is_an_outage_and_not_the_end(tmp_path):
    wrapper = ["unshare", "--mount", "--propagation", "private"]
    probe = subprocess.run([*wrapper, "mount", "-t", "tmpfs", "none", tmp_path], check=False, capture_output=True)
    if probe.returncode != 0:
        pytest.skip("needs the right to mount")
    result = run_program("fill_a_small_disk", tmp_path, wrapper=wrapper)
    assert result.returncode == 0, result.stderr


def test_writes_are_refused_while_the_medium_is_read_only(tmp_path):
    async def scenario(store):
        store._writer._connection.execute("PRAGMA query_only = ON")
        await refuses_to_write(store)
        store._writer._connection.execute("PRAGMA query_only = OFF")
        await writes(store)

    with_store(tmp_path, scenario)


def test_lock_that_another_process_never_gives_back_is_an_outage(tmp_path):
    async def scenario(store):
        store._writer._connection.execute("PRAGMA busy_timeout = 20")
        with contextlib.closing(sqlite3.connect(tmp_path / "vault.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert "locked" in await refuses_to_write(store)
            other.execute("ROLLBACK")
        await writes(store)

    with_store(tmp_path, scenario)


def test_commits_do_not_go_into_a_file_that_was_moved_away(tmp_path):
    async def scenario(store):
        path = tmp_path / "vault.db"
        path.rename(tmp_path / "moved.db")
        await refuses_to_write(store)
        path.touch(0o600)
        assert "replaced" in await refuses_to_write(store)
        (tmp_path / "moved.db").rename(path)
        await writes(store)

    with_store(tmp_path, scenario)


def test_commits_do_not_go_into_a_log_that_was_removed_and_none_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "SETTLE_SECONDS", 0.05)
    log = tmp_path / "vault.db-wal"

    async def scenario(store):
        await store.commit(Batch(puts=[Put("p0/kept", b"v", 0)]))
        log.unlink()
        assert "was removed" in await refuses_to_write(store)
        async with asyncio.timeout(20):
            while b"p0/kept" not in (tmp_path / "vault.db").read_bytes():  # noqa: ASYNC110 - nothing announces it
                await asyncio.sleep(0.01)
        log.touch(0o600)
        assert "was removed" in await refuses_to_write(store)
        log.unlink()

    with_store(tmp_path, scenario)

    async def again():
        store = await open_store(f"sqlite:{tmp_path}/vault.db")
        assert [entry.value for entry in await store.get(["p0/a", "p0/kept"])] == [b"v", b"v"]
        await writes(store)
        await store.close()

    asyncio.run(again())


def test_batch_that_cannot_be_stored_fails_alone(tmp_path):
    async def scenario(store):
        batches = [Batch(puts=[Put(f"p0/{n}", b"v", 0)]) for n in range(20)]
        batches[5] = Batch(puts=[Put("p0/5", b"v", 0)], appends=[row(1, time=2**63)])
        answers = await asyncio.gather(*map(store.commit, batches), return_exceptions=True)
        assert [n for n, answer in enumerate(answers) if answer is not None] == [5]
        assert isinstance(answers[5], InvalidRequest)
        assert await store.get(["p0/5"]) == [Entry(None, 0)]
        await writes(store)

    with_store(tmp_path, scenario)


def test_error_never_shows_a_value(tmp_path):
    async def scenario(store):
        store._writer._connection.execute("PRAGMA query_only = ON")
        assert "canary" not in await refuses_to_write(store, value=b"canary")

    with_store(tmp_path, scenario)


def copy_open_store(folder):
    # In another process: closing a file here would drop the locks of the store.
    subprocess.run(["cp", "vault.db", "copy.db"], cwd=folder, check=True)
    subprocess.run(["cp", "vault.db-wal", "copy.wal"], cwd=folder, check=True)


def history(folder, monkeypatch, commits=120):
    """A store whose n-th commit put revision n and appended row n; copied with its log while it was open."""
    monkeypatch.setattr(writer, "SETTLE_SECONDS", 3600)

    async def main():
        store = await open_store(f"sqlite:{folder}/vault.db", create=True)
        for n in range(commits):
            await store.commit(Batch(puts=[Put("p0/a", b"%d" % (n + 1) * 300, n)], appends=[row(n + 1, b"x" * 500)]))
        copy_open_store(folder)
        await store.close()

    asyncio.run(main())


def test_log_that_was_cut_anywhere_opens_to_a_prefix_of_history(tmp_path, monkeypatch):
    history(tmp_path, monkeypatch)
    log = (tmp_path / "copy.wal").read_bytes()
    rng = random.Random(5)
    cuts = sorted({0, 1, 31, 32, len(log)} | {rng.randrange(len(log)) for _ in range(35)})

    async def look(folder):
        store = await open_store(f"sqlite:{folder}/vault.db")
        [entry], rows = await store.get(["p0/a"]), await store.scan(0)
        await store.close()
        assert [row.sequence for row in rows] == list(range(1, entry.revision + 1))
        assert entry.value == (b"%d" % entry.revision * 300 if entry.revision else None)
        return entry.revision

    found = []
    for cut in cuts:
        folder = tmp_path / str(cut)
        folder.mkdir(0o700)
        shutil.copy(tmp_path / "copy.db", folder / "vault.db")
        (folder / "vault.db-wal").write_bytes(log[:cut])
        found.append(asyncio.run(look(folder)))
        shutil.rmtree(folder)
    assert found == sorted(found)
    assert (found[0], found[-1]) == (0, 120)


def test_flipped_bits_in_the_file_give_errors_of_ours_and_nothing_worse(tmp_path, monkeypatch):
    history(tmp_path, monkeypatch, commits=60)
    whole = (tmp_path / "vault.db").read_bytes()
    rng = random.Random(6)

    async def use(path):
        store = await open_store(f"sqlite:{path}")
        try:
            for attempt in (
                lambda: store.get(["p0/a", "p0/none"]),
                lambda: store.list("", delimiter="/"),
                lambda: store.scan(0),
                store.heads,
                lambda: store.due(1e12),
                store.generation,
                lambda: store.commit(Batch(puts=[Put("p0/new", b"x" * 5000, 0)], appends=[row(61)])),
                lambda: store.commit(Batch(deletes=[Delete("p0/a", 60)])),
            ):
                with contextlib.suppress(KeyholeError):
                    await attempt()
        finally:
            await store.close()

    for number in range(100):
        damaged = bytearray(whole)
        page = rng.randrange(len(whole) // 4096) * 4096
        # Most of a page is content, whose flips are for the seal to find; its head and pointers are SQLite's.
        for _ in range(rng.randint(1, 3)):
            damaged[page + (rng.randrange(150) if number % 2 else rng.randrange(4096))] ^= 1 << rng.randrange(8)
        path = tmp_path / str(number) / "vault.db"
        path.parent.mkdir(0o700)
        path.write_bytes(damaged)
        path.chmod(0o600)
        with contextlib.suppress(KeyholeError):
            asyncio.run(use(path))
        shutil.rmtree(path.parent)


def grep(folder, text):
    """Whether any file of the folder holds the text; asked of another process, because of the locks."""
    return subprocess.run(["grep", "-r", "-q", text, folder], check=False).returncode == 0


def test_overwritten_and_deleted_values_leave_the_disk_while_the_store_is_open(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "SETTLE_SECONDS", 0.05)

    async def scenario(store):
        await store.commit(Batch(puts=[Put("p0/b", b"canary-1", 0), Put("p0/c", b"canary-2" * 2000, 0)]))
        assert grep(tmp_path, "canary-1")
        await store.commit(Batch(puts=[Put("p0/b", b"x", 1)], deletes=[Delete("p0/c", 1)]))
        while (tmp_path / "vault.db-wal").stat().st_size:  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.02)
        assert not grep(tmp_path, "canary")

    with_store(tmp_path, scenario)


def test_log_of_journal_rows_alone_keeps_its_place_and_is_written_over(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "SETTLE_SECONDS", 0.05)
    log = tmp_path / "vault.db-wal"

    async def settled(store):
        while store._writer._unsettled:  # noqa: ASYNC110 - a thread has no event
            await asyncio.sleep(0.02)

    async def scenario(store):
        await store.commit(Batch(puts=[Put("p0/b", b"x", 0)], appends=[row(1)]))
        await settled(store)
        assert log.stat().st_size == 0
        for number in range(2, 22):
            await store.commit(Batch(appends=[row(number)]))
        size = log.stat().st_size
        await settled(store)
        for number in range(22, 32):
            await store.commit(Batch(appends=[row(number)]))
        assert log.stat().st_size == size
        await store.commit(Batch(puts=[Put("p0/b", b"y", 1)]))
        await settled(store)
        assert log.stat().st_size == 0
        assert [each.sequence for each in await store.scan(0)] == list(range(1, 32))

    with_store(tmp_path, scenario)


def steps_of(store, operation):
    """How many instructions SQLite's machine ran for a read, in hundreds."""
    count = 0

    def tick():
        nonlocal count
        count += 1

    async def counted():
        store._reader.set_progress_handler(tick, 100)
        try:
            return await operation(), count
        finally:
            store._reader.set_progress_handler(None, 0)

    return counted()


def test_listing_heads_and_due_do_not_read_what_they_do_not_return(tmp_path):
    async def scenario(store):
        for first in range(0, 6000, 1000):
            names = [f"p0/folder{n % 3}/{n:05}" for n in range(first, first + 1000)]
            await store.commit(Batch(puts=[Put(name, b"v", 0, 1e9 + n) for n, name in enumerate(names)]))
            await store.commit(Batch(appends=[row(n) for n in range(first + 1, first + 1001)]))
        gone = [f"p0/gone/{n:05}" for n in range(3000)]
        await store.commit(Batch(deletes=[Delete(name, 0) for name in gone]))
        folders, cost = await steps_of(store, lambda: store.list("p0/", delimiter="/"))
        assert folders == ["p0/a", "p0/folder0/", "p0/folder1/", "p0/folder2/"]
        assert cost <= 5
        for operation in (store.heads, lambda: store.due(2e9, 5), lambda: store.list("p0/gone/")):
            _, cost = await steps_of(store, operation)
            assert cost <= 5

    with_store(tmp_path, scenario)


def test_place_is_forgotten_when_the_last_opening_is_closed(tmp_path):
    async def scenario(store):
        assert place._opened[store._which] == 1

    with_store(tmp_path, scenario)
    assert place._opened == {}

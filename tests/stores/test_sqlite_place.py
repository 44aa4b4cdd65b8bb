"""Where the file of a SQLite store may lie, and what is left alone."""

import asyncio
import contextlib
import os
import sqlite3
import stat

import pytest

from keyhole.core.errors import InvalidRequest, NotFound, StoreUnavailable
from keyhole.stores import Batch, Put, open_store
from keyhole.stores.sqlite import place, schema

FORKS = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


async def touch(path, *, create=True):
    """Open, write once, close."""
    store = await open_store(f"sqlite:{path}", create=create)
    try:
        [entry] = await store.get(["p0/a"])
        await store.commit(Batch(puts=[Put("p0/a", b"v", entry.revision)]))
    finally:
        await store.close()


def refused(path, *, create=True):
    with pytest.raises(StoreUnavailable) as refusal:
        asyncio.run(touch(path, create=create))
    assert refusal.value.hint
    return str(refusal.value)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=[0o000, 0o022, 0o077])
def umask(request):
    before = os.umask(request.param)
    yield
    os.umask(before)


def test_only_the_owner_can_read_any_file_whatever_the_umask(tmp_path, umask, monkeypatch):
    path = tmp_path / "a" / "b" / "vault.db"
    from_the_first_byte = []
    link = os.link

    def linked(source, target):
        from_the_first_byte.append(mode(source))
        link(source, target)

    monkeypatch.setattr(os, "link", linked)

    async def main():
        store = await open_store(f"sqlite:{path}", create=True)
        await store.commit(Batch(puts=[Put("p0/a", b"v", 0)]))
        files = {entry.name: mode(entry) for entry in path.parent.iterdir()}
        await store.close()
        return files

    assert asyncio.run(main()) == {"vault.db": 0o600, "vault.db-wal": 0o600, "vault.db-shm": 0o600}
    assert from_the_first_byte == [0o600]
    assert mode(path.parent) == mode(path.parent.parent) == 0o700


def test_nothing_is_made_unless_asked(tmp_path):
    for path in (tmp_path / "vault.db", tmp_path / "folder" / "vault.db"):
        with pytest.raises(NotFound):
            asyncio.run(touch(path, create=False))
    assert list(tmp_path.iterdir()) == []


def test_relative_path_and_odd_names_mean_that_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("vault.db", "odd ?mode=memory#%41[x]'.db", "sub/../up.db"):
        asyncio.run(touch(name))
        asyncio.run(touch(name, create=False))
    assert sorted(entry.name for entry in tmp_path.iterdir() if entry.is_file()) == [
        "odd ?mode=memory#%41[x]'.db",
        "up.db",
        "vault.db",
    ]


@pytest.mark.parametrize("rest", ["", ":memory:", "a\0b", "/"])
def test_what_is_no_path_is_refused(rest):
    with pytest.raises(InvalidRequest):
        asyncio.run(open_store(f"sqlite:{rest}", create=True))


@pytest.mark.parametrize("content", [b"", b"not a database", b"\0" * 4096])
def test_foreign_file_is_not_touched(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    path.chmod(0o600)
    assert "not a Keyhole store" in refused(path)
    assert path.read_bytes() == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_database_of_another_program_is_not_touched(tmp_path, journal):
    path = tmp_path / "other.db"
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute(f"PRAGMA journal_mode={journal}")
        other.execute("CREATE TABLE t (x)")
        other.commit()
    path.chmod(0o600)
    before = path.read_bytes()
    assert "not a Keyhole store" in refused(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["other.db"]


def test_symbolic_links_are_refused(tmp_path):
    real = tmp_path / "real"
    asyncio.run(touch(real / "vault.db"))
    (real / "link.db").symlink_to(real / "vault.db")
    (real / "dangling.db").symlink_to(tmp_path / "elsewhere.db")
    (tmp_path / "folder").symlink_to(real)
    refused(real / "link.db")
    refused(real / "dangling.db")
    assert "symbolic link" in refused(tmp_path / "folder" / "vault.db")
    assert not (tmp_path / "elsewhere.db").exists()


def test_what_is_no_plain_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "folder").mkdir(0o700)
    refused(tmp_path / "fifo")
    refused(tmp_path / "folder")
    refused(tmp_path / "fifo" / "vault.db")


@pytest.mark.parametrize("bits", [0o020, 0o002])
def test_place_that_others_can_write_is_refused(tmp_path, bits):
    path = tmp_path / "private" / "vault.db"
    asyncio.run(touch(path))
    path.chmod(0o600 | bits)
    assert "others can write" in refused(path)
    path.chmod(0o600)
    path.parent.chmod(0o700 | bits)
    assert "others can write" in refused(path)
    assert "others can write" in refused(path.with_name("new.db"))
    assert not path.with_name("new.db").exists()


def test_file_that_others_could_read_is_closed_to_them(tmp_path):
    path = tmp_path / "vault.db"
    asyncio.run(touch(path))
    path.chmod(0o644)
    asyncio.run(touch(path, create=False))
    assert mode(path) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_place_of_another_user_is_refused(tmp_path):
    path = tmp_path / "private" / "vault.db"
    asyncio.run(touch(path))
    os.chown(path, 12345, 12345)
    assert "another user" in refused(path)
    os.chown(path, 0, 0)
    os.chown(path.parent, 12345, 12345)
    assert "another user" in refused(path)


def test_creators_at_the_same_time_share_one_store(tmp_path):
    async def main():
        opened = await asyncio.gather(*(open_store(f"sqlite:{tmp_path}/vault.db", create=True) for _ in range(8)))
        for n, store in enumerate(opened):
            await store.commit(Batch(puts=[Put(f"p0/{n}", b"v", 0)]))
        listings = [await store.list("p0/") for store in opened]
        await asyncio.gather(*(store.close() for store in opened))
        return listings

    assert asyncio.run(main()) == [[f"p0/{n}" for n in range(8)]] * 8
    assert [entry.name for entry in tmp_path.iterdir()] == ["vault.db"]


@FORKS
@pytest.mark.parametrize("moment", ["_fill", "sync_folder", "_sweep"])
def test_killed_creator_leaves_nothing_or_a_whole_store(tmp_path, monkeypatch, moment):
    path = tmp_path / "vault.db"
    child = os.fork()
    if child == 0:
        setattr(place, moment, lambda *_: os._exit(9))
        place.prepare(path, create=True)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    for draft in tmp_path.glob(".*.new"):
        os.utime(draft, (0, 0))
    asyncio.run(touch(path))
    assert [entry.name for entry in tmp_path.iterdir()] == ["vault.db"]


def test_second_name_that_a_killed_creator_left_is_removed(tmp_path):
    path = tmp_path / "vault.db"
    asyncio.run(touch(path))
    os.link(path, tmp_path / ".vault.db.0123456789abcdef.new")
    asyncio.run(touch(path, create=False))
    assert [entry.name for entry in tmp_path.iterdir()] == ["vault.db"]


@FORKS
def test_child_of_a_fork_cannot_use_or_reopen_the_store(tmp_path):
    location = f"sqlite:{tmp_path}/vault.db"

    async def refusals(store):
        count = 0
        for attempt in (
            lambda: store.get(["p0/a"]),
            lambda: store.commit(Batch(puts=[Put("p0/a", b"x", 1)])),
            lambda: open_store(location),
        ):
            try:
                await attempt()
            except StoreUnavailable as refusal:
                count += "fork" in str(refusal)
        await store.close()
        return count

    with asyncio.Runner() as runner:
        store = runner.run(open_store(location, create=True))
        runner.run(store.commit(Batch(puts=[Put("p0/a", b"v", 0)])))
        child = os.fork()
        if child == 0:
            os._exit(asyncio.run(refusals(store)))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
        runner.run(store.commit(Batch(puts=[Put("p0/a", b"w", 1)])))
        runner.run(store.close())


def test_every_connection_is_set_up_for_durability_and_distrust(tmp_path):
    async def main():
        store = await open_store(f"sqlite:{tmp_path}/vault.db", create=True)
        settings = [
            {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in expected}
            for connection in (store._reader, store._writer._connection)
        ]
        await store.close()
        return settings

    expected = {"journal_mode": "wal", "synchronous": 2, "trusted_schema": 0, "secure_delete": 1, "cell_size_check": 1}
    expected |= {"temp_store": 2, "mmap_size": 0, "application_id": schema.APPLICATION_ID}
    assert asyncio.run(main()) == [expected, expected]


def test_store_serves_several_event_loops_in_turn(tmp_path):
    store = asyncio.run(open_store(f"sqlite:{tmp_path}/vault.db", create=True))
    asyncio.run(store.commit(Batch(puts=[Put("p0/a", b"v", 0)])))
    asyncio.run(store.commit(Batch(puts=[Put("p0/a", b"w", 1)])))
    assert asyncio.run(store.get(["p0/a"]))[0].value == b"w"
    asyncio.run(store.close())

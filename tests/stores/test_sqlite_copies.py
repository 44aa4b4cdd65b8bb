"""Copies of a SQLite store: whole, of one moment, private, and never over something that is there."""

import asyncio
import os
import shutil
import sqlite3
import stat

import pytest

from keyhole.core.errors import Conflict, IntegrityError, InvalidRequest, KeyholeError, NotFound, StoreUnavailable
from keyhole.stores import Batch, Put, open_store
from keyhole.stores.sqlite import copies, place


async def written(path, *values):
    """A store with one entry of as many revisions as there are values; it stays open."""
    store = await open_store(f"sqlite:{path}", create=True)
    for revision, value in enumerate(values):
        await store.commit(Batch(puts=[Put("p0/a", value, revision)]))
    return store


def made(path, *values):
    async def main():
        await (await written(path, *values)).close()

    asyncio.run(main())
    return path


def entry(path):
    async def main():
        store = await open_store(f"sqlite:{path}")
        try:
            return (await store.get(["p0/a"]))[0]
        finally:
            await store.close()

    return asyncio.run(main())


def names(folder):
    return sorted(each.name for each in folder.iterdir())


def test_a_store_in_use_is_copied_as_it_is_at_that_moment(tmp_path):
    copy = tmp_path / "copies" / "monday"
    copy.parent.mkdir()

    async def main():
        store = await written(tmp_path / "vault.db", b"old", b"new")
        await asyncio.to_thread(copies.back_up, tmp_path / "vault.db", copy)
        await store.commit(Batch(puts=[Put("p0/a", b"later", 2)]))
        await store.close()

    umask = os.umask(0)
    try:
        asyncio.run(main())
    finally:
        os.umask(umask)
    assert names(copy.parent) == ["monday"]
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    content = copy.read_bytes()
    copies.restore(copy, tmp_path / "new" / "vault.db")
    assert entry(tmp_path / "new" / "vault.db") == (b"new", 2)
    assert entry(tmp_path / "vault.db") == (b"later", 3)
    assert names(tmp_path / "new") == ["vault.db"]
    assert (names(copy.parent), copy.read_bytes()) == (["monday"], content)


def test_a_copy_that_somebody_made_of_a_store_in_use_is_read_with_its_log(tmp_path):
    (tmp_path / "copy").mkdir()

    async def main():
        store = await written(tmp_path / "vault.db", b"old", b"new")
        for name in ("vault.db", "vault.db-wal"):
            shutil.copy(tmp_path / name, tmp_path / "copy" / name)
        await store.close()

    asyncio.run(main())
    copies.restore(tmp_path / "copy" / "vault.db", tmp_path / "new.db")
    assert entry(tmp_path / "new.db") == (b"new", 2)


@pytest.mark.parametrize("there", ["file", "link", "store"])
def test_nothing_that_is_there_is_overwritten(tmp_path, there):
    store, other = made(tmp_path / "vault.db", b"v"), tmp_path / "other"
    match there:
        case "file":
            other.write_bytes(b"theirs")
        case "link":
            other.symlink_to(tmp_path / "nowhere")
        case "store":
            made(other, b"theirs")
    before = other.read_bytes() if there != "link" else other.readlink()
    copies.back_up(store, tmp_path / "copy")
    for attempt in (lambda: copies.back_up(store, other), lambda: copies.restore(tmp_path / "copy", other)):
        with pytest.raises(Conflict) as refusal:
            attempt()
        assert refusal.value.hint
        assert (other.read_bytes() if there != "link" else other.readlink()) == before
    assert names(tmp_path) == ["copy", "other", "vault.db"]


def test_what_is_no_whole_copy_makes_no_store(tmp_path):
    copies.back_up(made(tmp_path / "vault.db", *[bytes(3000)] * 3), tmp_path / "copy")
    whole = (tmp_path / "copy").read_bytes()
    code = tmp_path / "code"
    shutil.copy(tmp_path / "copy", code)
    with sqlite3.connect(code) as changed:
        changed.execute("CREATE TRIGGER t AFTER INSERT ON entry BEGIN SELECT 1; END")
    changed.close()
    newer = tmp_path / "newer"
    shutil.copy(tmp_path / "copy", newer)
    with sqlite3.connect(newer) as changed:
        changed.execute("PRAGMA user_version = 99")
    changed.close()
    (tmp_path / "short").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "mixed").write_bytes(whole[:8192] + os.urandom(8192) + whole[16384:])
    (tmp_path / "text").write_bytes(b"no store")
    before = names(tmp_path)
    for name, refusal in (
        ("code", IntegrityError),
        ("newer", StoreUnavailable),
        ("short", IntegrityError),
        ("mixed", IntegrityError),
        ("text", StoreUnavailable),
        ("none", NotFound),
    ):
        with pytest.raises(KeyholeError) as caught:
            copies.restore(tmp_path / name, tmp_path / "new.db")
        assert (name, type(caught.value), bool(caught.value.hint)) == (name, refusal, True)
    assert names(tmp_path) == before


def test_a_backup_that_fails_leaves_nothing(tmp_path, monkeypatch):
    store = made(tmp_path / "vault.db", b"v")
    for name in ("none/copy", "vault.db/copy"):
        with pytest.raises(InvalidRequest):
            copies.back_up(store, tmp_path / name)
    with pytest.raises(NotFound):
        copies.back_up(tmp_path / "gone.db", tmp_path / "copy")

    def killed(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(copies, "_fill", killed)
    with pytest.raises(KeyboardInterrupt):
        copies.back_up(store, tmp_path / "copy")
    assert names(tmp_path) == ["vault.db"]


def test_the_log_of_a_store_that_is_gone_is_not_read_into_a_new_one(tmp_path):
    path, log = tmp_path / "vault.db", tmp_path / "vault.db-wal"

    async def main():
        store = await written(path, b"of the old store")
        shutil.copy(log, tmp_path / "log")  # as kill -9 leaves it
        await store.close()

    asyncio.run(main())
    copies.back_up(path, tmp_path / "copy")
    path.unlink()
    (tmp_path / "log").rename(log)
    for attempt in (lambda: made(path), lambda: copies.restore(tmp_path / "copy", path)):
        with pytest.raises(StoreUnavailable, match=r"vault\.db-wal is left of a store that is gone"):
            attempt()
    assert names(tmp_path) == ["copy", "vault.db-wal"]
    log.unlink()
    assert entry(made(path)) == (None, 0)


def test_a_backup_leaves_no_store_open(tmp_path):
    copies.back_up(made(tmp_path / "vault.db", b"v"), tmp_path / "copy")
    assert place._opened == {}

"""Steps of the format: carried on after a kill, refused when newer, nothing foreign tolerated."""

import asyncio
import contextlib
import os
import sqlite3
import threading

import pytest

from keyhole.core.errors import IntegrityError, StoreUnavailable
from keyhole.stores import Batch, Put, open_store
from keyhole.stores.sqlite import place, schema

LATER = (
    ("CREATE TABLE later (x INTEGER NOT NULL) STRICT", "INSERT INTO later VALUES (1)"),
    ("ALTER TABLE later ADD COLUMN y INTEGER", "UPDATE later SET y = x + 1", "INSERT INTO later VALUES (2, 3)"),
    ("UPDATE later SET x = x * 10",),
)
STEPS = schema.STEPS + LATER


@pytest.fixture
def path(tmp_path):
    async def main():
        store = await open_store(f"sqlite:{tmp_path}/vault.db", create=True)
        await store.commit(Batch(puts=[Put("p0/a", b"v", 0)]))
        await store.close()

    asyncio.run(main())
    return tmp_path / "vault.db"


@contextlib.contextmanager
def connected(path):
    with contextlib.closing(place.connect(path, writer=True)) as connection:
        yield connection


def content(connection):
    return connection.execute("PRAGMA user_version").fetchone()[0], connection.execute(
        "SELECT x, y FROM later ORDER BY x"
    ).fetchall()


def test_steps_are_applied_once(path):
    with connected(path) as connection:
        for _ in range(2):
            schema.migrate(connection, STEPS)
            assert content(connection) == (len(STEPS), [(10, 2), (20, 3)])
        assert connection.execute("SELECT value FROM entry").fetchall() == [(b"v",)]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.parametrize("killed_at", range(22))
def test_process_killed_at_any_statement_of_an_upgrade_leaves_one_that_goes_on(path, killed_at):
    child = os.fork()
    if child == 0:
        with connected(path) as connection:
            statements = 0

            class Doomed:
                in_transaction = False

                def execute(self, *arguments):
                    nonlocal statements
                    statements += 1
                    if statements > killed_at:
                        os._exit(9)
                    return connection.execute(*arguments)

            schema.migrate(Doomed(), STEPS)
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    with connected(path) as connection:
        schema.migrate(connection, STEPS)
        assert content(connection) == (len(STEPS), [(10, 2), (20, 3)])
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_step_that_fails_leaves_the_version_before_it(path):
    broken = (*schema.STEPS, LATER[0], ("INSERT INTO later VALUES (7)", "INSERT INTO nowhere VALUES (1)"))
    with connected(path) as connection:
        with pytest.raises(sqlite3.OperationalError):
            schema.migrate(connection, broken)
        assert connection.execute("PRAGMA user_version").fetchone() == (len(schema.STEPS) + 1,)
        assert connection.execute("SELECT x FROM later").fetchall() == [(1,)]


def test_processes_that_upgrade_at_the_same_time_apply_each_step_once(path):
    barrier = threading.Barrier(4)
    failures = []

    def upgrade():
        with connected(path) as connection:
            barrier.wait()
            try:
                schema.migrate(connection, STEPS)
            except Exception as error:  # noqa: BLE001 - reported by the assertion below
                failures.append(error)

    threads = [threading.Thread(target=upgrade) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with connected(path) as connection:
        assert content(connection) == (len(STEPS), [(10, 2), (20, 3)])


def test_store_of_a_newer_version_is_refused_and_left_alone(path):
    with connected(path) as connection:
        schema.migrate(connection, STEPS)
    before = path.read_bytes()
    with pytest.raises(StoreUnavailable, match="newer Keyhole") as refusal:
        asyncio.run(open_store(f"sqlite:{path}", create=True))
    assert f"version {len(STEPS)}" in str(refusal.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER copy AFTER UPDATE ON entry BEGIN DELETE FROM journal; END",
        "CREATE VIEW v AS SELECT 1",
        "CREATE TABLE t (x)",
        "DROP INDEX due",
        "DROP TABLE generation",
    ],
)
def test_schema_that_somebody_changed_is_refused(path, statement):
    with connected(path) as connection:
        connection.execute(statement)
    with pytest.raises(IntegrityError):
        asyncio.run(open_store(f"sqlite:{path}"))


def test_statistics_of_sqlite_are_tolerated(path):
    with connected(path) as connection:
        connection.execute("ANALYZE")

    async def main():
        store = await open_store(f"sqlite:{path}")
        await store.close()

    asyncio.run(main())

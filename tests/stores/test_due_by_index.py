"""What is due is found by an index, however much else is stored."""

import asyncio
import contextlib
import sqlite3

import psycopg

import postgres_server
from keyhole.stores import Batch, Put, open_store, postgres, sqlite

MANY, LATER = 5_000, 4_000_000_000.0


def fill(place):
    async def main():
        store = await open_store(place, create=True)
        for start in range(0, MANY, 500):
            await store.commit(Batch(puts=[Put(f"p0/{n:06}", b"v", 0, LATER + n) for n in range(start, start + 500)]))
        await store.commit(Batch(puts=[Put(f"p0/due{n}", b"v", 0, 1.0) for n in range(5)]))
        assert await store.due(2.0) == [f"p0/due{n}" for n in range(5)]
        await store.close()

    asyncio.run(main())


def test_sqlite_reads_no_other_row_and_sorts_nothing(tmp_path):
    file = tmp_path / "private" / "store.db"
    fill(f"sqlite:{file}")
    with contextlib.closing(sqlite3.connect(file)) as connection:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sqlite._DUE}", (2.0, 100))]
    assert len(plan) == 1, plan
    assert "SEARCH entry USING" in plan[0]
    assert "INDEX due (due<?)" in plan[0]


def test_postgresql_reads_no_other_row_and_sorts_nothing():
    place = postgres_server.location()
    fill(place)
    with psycopg.connect(postgres_server._started(), dbname="vault", autocommit=True) as connection:
        connection.execute(f"SET search_path = {postgres_server.schema_of(place)}")
        connection.execute("ANALYZE entry")
        plan = "\n".join(line for (line,) in connection.execute(f"EXPLAIN {postgres._DUE}", (2.0, 100)))
    assert "Index Only Scan using due" in plan or "Index Scan using due" in plan
    assert "Seq Scan" not in plan
    assert "Sort" not in plan

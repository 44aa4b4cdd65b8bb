"""What a location may say, and what an operator is told about a database that cannot be used."""

import asyncio
import re

import pytest

import postgres_server
from keyhole.core.errors import InvalidRequest, NotFound, StoreUnavailable
from keyhole.stores import Batch, JournalRow, Put, open_store
from keyhole.stores.postgres import place, schema

ROW = JournalRow(0, 1, 7, "p0", b"body\\\x00", b"\\" * 32, b"")


@pytest.mark.parametrize(
    "location",
    ["postgres://u:planted@h/d", "postgres://u@h/d?password=planted", "postgres://u@h/d?sslpassword=planted"],
)
def test_password_in_a_location_is_refused_and_not_repeated(location):
    with pytest.raises(InvalidRequest, match="password") as refusal:
        asyncio.run(open_store(location))
    assert "PGPASSFILE" in refusal.value.hint
    assert "planted" not in repr(refusal.value) + refusal.value.hint


@pytest.mark.parametrize(
    "location", ["postgres:", "postgres:db", "postgres://u@h/d?nonsense=1", "postgres://h/d?schema=A;"]
)
def test_location_that_is_none_is_refused(location):
    with pytest.raises(InvalidRequest):
        asyncio.run(open_store(location))


@pytest.mark.parametrize(
    ("rest", "mode"),
    [
        ("//u@db.example/d", "require"),
        ("//u@localhost,db.example/d", "require"),
        ("//u@db.example/d?sslmode=verify-full", "verify-full"),
        ("//u@127.0.0.1/d", None),
        ("//u@%2Frun%2Fpostgresql/d", None),
    ],
)
def test_another_machine_is_reached_with_tls_unless_said_otherwise(rest, mode, monkeypatch):
    monkeypatch.delenv("PGSSLMODE", raising=False)
    assert place.locate(rest).parameters.get("sslmode") == mode


@pytest.mark.parametrize("mode", ["allow", "prefer"])
def test_tls_that_somebody_between_could_turn_off_is_refused(mode, monkeypatch):
    with pytest.raises(InvalidRequest, match="turn TLS off"):
        place.locate(f"//u@db.example/d?sslmode={mode}")
    monkeypatch.setenv("PGSSLMODE", mode)
    with pytest.raises(InvalidRequest, match="turn TLS off"):
        place.locate("//u@db.example/d")
    assert place.locate("//u@localhost/d").parameters.get("sslmode") is None


def test_database_without_a_store_is_not_found_and_stays_empty():
    location = postgres_server.location()
    for _ in range(2):
        with pytest.raises(NotFound, match="no vault"):
            asyncio.run(open_store(location))


def test_database_that_is_not_there_is_said_with_the_next_step():
    missing = re.sub(r"/vault\?", "/missing?", postgres_server.location())
    with pytest.raises(StoreUnavailable, match="no such database") as refusal:
        asyncio.run(open_store(missing))
    assert "createdb" in refusal.value.hint


def test_store_of_a_newer_version_is_refused_and_left_alone():
    location = postgres_server.location()

    async def main():
        await (await open_store(location, create=True)).close()
        with postgres_server.superuser() as connection:
            table = f"{postgres_server.schema_of(location)}.format"
            connection.execute(f"UPDATE {table} SET version = 99")
            with pytest.raises(StoreUnavailable, match="version 99"):
                await open_store(location)
            assert connection.execute(f"SELECT version FROM {table}").fetchone() == (99,)

    asyncio.run(main())


def test_upgrade_that_fails_leaves_the_version_before_and_is_taken_up_again():
    where = place.locate(postgres_server.location().removeprefix("postgres:"))

    async def main():
        connection = await place.connect(where)
        await schema.prepare(connection, where.schema, create=True)
        broken = (*schema.STEPS, ("CREATE TABLE half (n bigint)", "SELECT 1 / 0"))
        with pytest.raises(Exception, match="division"):
            await schema.prepare(connection, where.schema, create=False, steps=broken)
        found = await connection.execute("SELECT version, to_regclass('half') FROM format")
        assert await found.fetchone() == (len(schema.STEPS), None)
        mended = (*schema.STEPS, ("CREATE TABLE half (n bigint)",))
        await schema.prepare(connection, where.schema, create=False, steps=mended)
        found = await connection.execute("SELECT version, to_regclass('half')::text FROM format")
        assert await found.fetchone() == (len(mended), "half")
        await connection.close()

    asyncio.run(main())


def test_several_that_make_the_store_at_once_all_succeed():
    location = postgres_server.location()

    async def main():
        stores = await asyncio.gather(*(open_store(location, create=True) for _ in range(5)))
        for store in stores:
            await store.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    "setting",
    ["standard_conforming_strings = off", "client_encoding = 'SQL_ASCII'", "array_nulls = off", "row_security = off"],
)
def test_what_was_written_is_read_whatever_the_role_is_set_to(setting):
    value = bytes(range(256)) + b"\\x5c\\000''"

    async def written():
        store = await open_store(location, create=True)
        try:
            await store.commit(Batch(puts=[Put("p0/a", value, 0), Put("p0/b", b"", 0, due=1.5)], appends=[ROW]))
            return await read(store)
        finally:
            await store.close()

    async def again():
        store = await open_store(location)
        try:
            return await read(store)
        finally:
            await store.close()

    async def read(store):
        return [entry.value for entry in await store.get(["p0/a", "p0/b"])], await store.scan(0), await store.due(2.0)

    location = postgres_server.location()
    with postgres_server.superuser() as connection:
        connection.execute(f"ALTER ROLE {postgres_server.ROLE} SET {setting}")
        try:
            assert asyncio.run(written()) == ([value, b""], [ROW], ["p0/b"])
        finally:
            connection.execute(f"ALTER ROLE {postgres_server.ROLE} RESET ALL")
    assert asyncio.run(again()) == ([value, b""], [ROW], ["p0/b"])

"""Row level security: a statement sees and changes the partitions that it named, and no other."""

import asyncio

import psycopg
import pytest

import postgres_server
from keyhole.core.errors import IntegrityError, InvalidRequest
from keyhole.stores import Batch, JournalRow, Put, open_store


@pytest.fixture
def place():
    """A store with one entry and one record in each of two partitions."""
    location = postgres_server.location()

    async def main():
        store = await open_store(location, create=True)
        await store.commit(
            Batch(
                puts=[Put("pa/key", b"a", 0), Put("pb/key", b"b", 0)],
                appends=[JournalRow(0, n, n, partition, b"", b"") for n, partition in ((1, "pa"), (2, "pb"))],
            )
        )
        await store.close()

    asyncio.run(main())
    return location


@pytest.fixture
def session(place):
    """A session of the store's own role, which owns the tables."""
    where = place.partition("?")[0]
    with psycopg.connect(where, autocommit=True) as connection:
        connection.execute(f"SET search_path = {postgres_server.schema_of(place)}")
        yield connection


def name(session, *partitions):
    session.execute("SELECT set_config('keyhole.partitions', %s::text[]::text, false)", (list(partitions),))


def keys(session):
    return [key for (key,) in session.execute("SELECT key FROM entry ORDER BY key")]


def test_session_that_named_no_partition_sees_nothing(session):
    assert keys(session) == []
    assert session.execute("SELECT count(*) FROM journal").fetchone() == (0,)
    assert session.execute("UPDATE entry SET value = 'x'").rowcount == 0
    assert session.execute("DELETE FROM journal").rowcount == 0


def test_session_sees_the_partitions_that_it_named(session):
    name(session, "pa")
    assert keys(session) == ["pa/key"]
    assert session.execute("SELECT partition FROM journal").fetchall() == [("pa",)]
    name(session, "pa", "pb")
    assert keys(session) == ["pa/key", "pb/key"]


def test_other_partitions_rows_are_neither_changed_nor_made(session):
    name(session, "pa")
    assert session.execute("UPDATE entry SET value = 'x' WHERE key = 'pb/key'").rowcount == 0
    assert session.execute("DELETE FROM entry WHERE key = 'pb/key'").rowcount == 0
    for statement in (
        "INSERT INTO entry (key, revision, value) VALUES ('pb/new', 1, 'x')",
        "INSERT INTO journal VALUES (0, 3, 3, 'pb', '', '', '')",
        "UPDATE entry SET key = 'pb/moved' WHERE key = 'pa/key'",
        "INSERT INTO entry (key, revision) VALUES ('pb/key', 1) ON CONFLICT (key) DO UPDATE SET value = 'x'",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute(statement)


def test_key_cannot_be_filed_under_another_partition(session):
    name(session, "pa", "pb")
    with pytest.raises(psycopg.errors.GeneratedAlways):
        session.execute("INSERT INTO entry (key, partition, revision, value) VALUES ('pb/new', 'pa', 1, 'x')")


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE {}.entry NO FORCE ROW LEVEL SECURITY",
        "ALTER TABLE {}.journal DISABLE ROW LEVEL SECURITY",
        "CREATE POLICY all_of_it ON {}.entry USING (true)",
        "DROP POLICY named ON {}.journal",
        "CREATE RULE r AS ON DELETE TO {}.head DO INSTEAD NOTHING",
        "CREATE TRIGGER t BEFORE UPDATE ON {}.entry FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    ],
)
def test_tables_that_somebody_changed_are_refused(place, change):
    with postgres_server.superuser() as connection:
        connection.execute(change.format(postgres_server.schema_of(place)))
    with pytest.raises(IntegrityError):
        asyncio.run(open_store(place))


@pytest.mark.parametrize("right", ["SUPERUSER", "BYPASSRLS"])
def test_role_that_row_level_security_does_not_bind_is_refused(place, right):
    with postgres_server.superuser() as connection:
        connection.execute("DROP ROLE IF EXISTS mighty")
        connection.execute(f"CREATE ROLE mighty LOGIN {right} IN ROLE keyhole")
    with pytest.raises(InvalidRequest, match="superuser or has BYPASSRLS") as refusal:
        asyncio.run(open_store(place.replace("//keyhole@", "//mighty@")))
    assert "createuser" in refusal.value.hint
    with pytest.raises(InvalidRequest, match="superuser or has BYPASSRLS"):
        asyncio.run(open_store(f"{place.replace('//keyhole@', '//mighty@')}&options=-crole%3Dkeyhole"))

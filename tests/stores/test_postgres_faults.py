"""The database goes away, answers late or never, or undoes a transaction: nothing is lost, nothing done twice."""

import asyncio
import contextlib
from dataclasses import replace

import psycopg
import pytest

import postgres_server
from keyhole.core.errors import Conflict, StoreUnavailable
from keyhole.stores import Batch, Entry, Put, open_store
from keyhole.stores.postgres import place
from keyhole.stores.postgres import writer as writer_module
from keyhole.stores.postgres.writer import Writer
from stores.nodes import COUNTER, count_up, record

COMMIT = b"COMMIT\0"


class Cutter:
    """A way to the database that breaks when it should: once it carried a COMMIT there, or before it does."""

    def __init__(self):
        self.cut = ""
        self.cuts = 0
        self._open = set()

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.stop()
        await self._server.wait_closed()

    def stop(self):
        """Close every connection and take no new one."""
        self._server.close()
        for writer in list(self._open):
            writer.transport.abort()

    async def _serve(self, reader, writer):
        socket = f"{postgres_server.socket_folder()}/.s.PGSQL.5432"
        db_reader, db_writer = await asyncio.open_unix_connection(socket)
        self._open |= {writer, db_writer}
        with contextlib.suppress(OSError):
            await asyncio.gather(self._up(reader, db_writer, writer), self._down(db_reader, writer))
        for end in (writer, db_writer):
            end.transport.abort()
            self._open.discard(end)

    async def _up(self, reader, db_writer, writer):
        while data := await reader.read(1 << 20):
            if self.cut and COMMIT in data:
                how, self.cut = self.cut, ""
                self.cuts += 1
                if how == "after":
                    writer.transport.abort()  # the client is cut off first: no answer can reach it
                    db_writer.write(data)
                    await db_writer.drain()
                    # The database hangs up when it has read to the end, so all of it was carried out.
                    db_writer.write_eof()
                    return
                raise OSError
            db_writer.write(data)
            await db_writer.drain()
        db_writer.transport.abort()

    async def _down(self, db_reader, writer):
        while data := await db_reader.read(1 << 20):
            if not writer.transport.is_closing():
                writer.write(data)
        writer.transport.abort()


@pytest.mark.parametrize("how", ["after", "before"])
def test_commit_whose_answer_was_lost_is_done_exactly_once(how, monkeypatch):
    fates = []
    ask = Writer._was_committed

    async def asked(writer, work):
        fates.append(await ask(writer, work))
        return fates[-1]

    monkeypatch.setattr(Writer, "_was_committed", asked)

    async def main():
        async with Cutter() as way:
            store = await open_store(postgres_server.location(way.port), create=True)
            for revision in range(30):
                way.cut = how
                batch = Batch(puts=[Put("p0/a", b"%d" % revision, revision)], appends=[record(0, revision + 1)])
                await store.commit(batch)
                assert way.cuts == revision + 1
                assert await store.get(["p0/a"]) == [Entry(b"%d" % revision, revision + 1)]
            assert await store.heads() == {0: 30}
            # What the database had carried out was found to be so, and what it never got was done again.
            assert fates == [how == "after"] * 30
            await store.close()

    asyncio.run(main())


def misremembered(monkeypatch, number):
    """Let a transaction be asked for by another number, as if the database that follows had given it to another."""
    judge = Writer._judge

    async def judged(writer, connection, batches):
        return replace(await judge(writer, connection, batches), number=number())

    monkeypatch.setattr(Writer, "_judge", judged)


@pytest.mark.parametrize("appends", [True, False])
def test_commit_is_not_taken_for_done_because_its_number_was_given_to_another(appends, monkeypatch):
    def elsewhere():
        with postgres_server.superuser() as connection:
            return connection.execute("SELECT pg_current_xact_id()::text").fetchone()[0]

    misremembered(monkeypatch, elsewhere)

    async def main():
        async with Cutter() as way:
            store = await open_store(postgres_server.location(way.port), create=True)
            for revision, how in enumerate(["before", "after"] * 3):
                way.cut = how
                rows = [record(0, revision + 1)] if appends else []
                await store.commit(Batch(puts=[Put("p0/a", b"%d" % revision, revision)], appends=rows))
                assert await store.get(["p0/a"]) == [Entry(b"%d" % revision, revision + 1)]
            assert len(await store.scan(0)) == (6 if appends else 0)
            await store.close()

    asyncio.run(main())


def test_commit_whose_number_the_database_never_gave_is_done_again_at_once(monkeypatch):
    misremembered(monkeypatch, lambda: str(10**12))
    monkeypatch.setattr(writer_module, "DECIDE_SECONDS", 10**6)

    async def main():
        async with Cutter() as way:
            store = await open_store(postgres_server.location(way.port), create=True)
            way.cut = "before"
            await store.commit(Batch(puts=[Put("p0/a", b"v", 0)]))
            assert await store.get(["p0/a"]) == [Entry(b"v", 1)]
            await store.close()

    asyncio.run(main())


def test_commit_that_others_wrote_over_before_it_could_be_asked_for_is_said_to_be_unknown(monkeypatch):
    location = postgres_server.location()
    ask = Writer._was_committed

    async def late(writer, work):
        async with asyncio.timeout(60):
            other = await open_store(postgres_server.direct(location))
            await other.commit(Batch(puts=[Put("p0/a", b"theirs", 1)]))
            await other.close()
        return await ask(writer, work)

    async def main():
        async with Cutter() as way:
            store = await open_store(f"{location}&port={way.port}&host=127.0.0.1&sslmode=disable", create=True)
            way.cut = "after"
            monkeypatch.setattr(Writer, "_was_committed", late)
            with pytest.raises(StoreUnavailable, match="may or may not"):
                await store.commit(Batch(puts=[Put("p0/a", b"ours", 0)]))
            await store.close()

    asyncio.run(main())


def test_database_that_lost_commits_and_went_on_has_no_generation_that_was_seen_before():
    location = postgres_server.location()
    number = f"{postgres_server.schema_of(location)}.generation"

    async def main():
        store = await open_store(location, create=True)
        with postgres_server.superuser() as connection:
            [before] = connection.execute(f"SELECT number FROM {number}").fetchone()
            seen = set()
            for revision in range(20):
                connection.execute(f"UPDATE {number} SET number = %s", (before,))
                await store.commit(Batch(puts=[Put("p0/a", b"v", revision)]))
                seen.add(await store.generation())
        assert len(seen) == 20
        await store.close()

    asyncio.run(main())


def test_lost_database_is_unavailable_with_a_next_step_and_commits_of_then_do_not_come_back(monkeypatch):
    monkeypatch.setattr(place, "RECONNECT_SECONDS", 0.2)

    async def main():
        async with Cutter() as way:
            location = postgres_server.location(way.port)
            store = await open_store(location, create=True)
            way.stop()
            for operation in (
                store.get(["p0/a"]),
                store.generation(),
                store.commit(Batch(puts=[Put("p0/a", b"v", 0)])),
            ):
                with pytest.raises(StoreUnavailable) as refusal:
                    await operation
                assert refusal.value.hint
            await store.close()
        other = await open_store(postgres_server.direct(location))
        assert await other.get(["p0/a"]) == [Entry(None, 0)]
        await other.close()

    asyncio.run(main())


def test_nothing_acknowledged_is_lost_while_the_database_ends_every_session_again_and_again():
    location = postgres_server.location()
    end_all = (
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE usename = 'keyhole' AND pid <> pg_backend_pid()"
    )

    async def main():
        store = await open_store(location, create=True)
        done = asyncio.Event()
        ended = 0

        async def write(writer):
            for sequence in range(1, 41):
                await count_up(store, writer, sequence)

        async def read():
            while not done.is_set():
                await store.get([COUNTER])
                await store.generation()

        async def terminate():
            nonlocal ended
            with postgres_server.superuser() as connection:
                while not done.is_set():
                    ended += connection.execute(end_all).fetchone()[0]
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(done.wait(), 0.1)

        async def work():
            await asyncio.gather(*map(write, range(4)))
            done.set()

        await asyncio.gather(work(), read(), read(), terminate())
        assert ended > 0
        assert await store.get([COUNTER]) == [Entry(b"160", 160)]
        assert await store.heads() == dict.fromkeys(range(4), 40)
        await store.close()

    asyncio.run(main())


@pytest.mark.parametrize("state", ["40001", "40P01"])
def test_transaction_that_the_database_undid_is_repeated_unseen(state):
    location = postgres_server.location()
    schema = postgres_server.schema_of(location)

    async def main():
        store = await open_store(location, create=True)
        with postgres_server.superuser() as connection:
            # Two of three transactions fail at their last moment, as a serialization failure does.
            connection.execute(f"""
                CREATE SEQUENCE {schema}.tries;
                GRANT ALL ON SEQUENCE {schema}.tries TO keyhole;
                CREATE FUNCTION {schema}.fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                    IF nextval('{schema}.tries') % 3 <> 0 THEN RAISE SQLSTATE '{state}'; END IF;
                    RETURN NULL;
                END $$;
                CREATE CONSTRAINT TRIGGER fail AFTER INSERT ON {schema}.journal DEFERRABLE INITIALLY DEFERRED
                    FOR EACH ROW EXECUTE FUNCTION {schema}.fail()""")
        for sequence in range(1, 11):
            await count_up(store, 0, sequence)
        assert await store.get([COUNTER]) == [Entry(b"10", 10)]
        assert [row.sequence for row in await store.scan(0)] == list(range(1, 11))
        with postgres_server.superuser() as connection:
            assert connection.execute(f"SELECT last_value FROM {schema}.tries").fetchone()[0] >= 30
        await store.close()

    asyncio.run(main())


def test_two_that_begin_one_journal_at_once_are_one_winner_and_one_conflict():
    location = postgres_server.location()

    async def main():
        first, second = await open_store(location, create=True), await open_store(location)
        for writer in range(20):
            batch = Batch(appends=[record(writer, 1)])
            answers = await asyncio.gather(first.commit(batch), second.commit(batch), return_exceptions=True)
            assert sorted(type(answer) for answer in answers if answer) == [Conflict]
        assert await first.heads() == dict.fromkeys(range(20), 1)
        await first.close()
        await second.close()

    asyncio.run(main())


def test_error_says_nothing_of_what_was_stored():
    location = postgres_server.location()

    async def main():
        store = await open_store(location, create=True)
        with psycopg.connect(location.partition("?")[0], autocommit=True) as connection:
            schema = postgres_server.schema_of(location)
            connection.execute(f"ALTER TABLE {schema}.entry ADD CHECK (value <> 'planted-value')")
        with pytest.raises(StoreUnavailable) as refusal:
            await store.commit(Batch(puts=[Put("p0/a", b"planted-value", 0)]))
        assert "planted" not in repr(refusal.value) + str(refusal.value.__context__)
        await store.close()

    asyncio.run(main())

"""A disk that is full or read-only: refused in one clear line, nothing released, and well again afterwards."""

import asyncio
import sqlite3

import pytest

from vault.world import Place, agent, refusal, stripe, use


def full(place):
    """Leave SQLite no page to grow by, in the connection of the store itself."""
    writer = place._writer._connection
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count = {pages}")


def roomy(place):
    place._writer._connection.execute("PRAGMA max_page_count = 4294967294")


def read_only(place):
    place._writer._connection.execute("PRAGMA query_only = 1")


def writable(place):
    place._writer._connection.execute("PRAGMA query_only = 0")


@pytest.mark.parametrize(("break_it", "heal"), [(full, roomy), (read_only, writable)])
def test_a_store_that_cannot_write_releases_nothing_and_says_why(tmp_path, break_it, heal):
    place = Place(tmp_path)

    async def scenario(vault):
        await stripe(vault)
        token = await agent(vault, services=["stripe"])
        await vault.vault.journal.drain()
        break_it(vault.node.store)
        errors = []
        for _ in range(60):
            errors += [
                await refusal(vault.ask("update", "secret/data/x", {"data": {"value": "v" * 5000}})),
                await refusal(vault.ask("read", "secret/data/stripe/api-key")),
                await refusal(use(vault, "services/stripe", token)),
            ]
        late = errors[-30:]
        assert all(error is not None for error in late)
        assert {(error.code, error.status) for error in errors if error} <= {
            ("audit_unavailable", 503),
            ("store_unavailable", 503),
        }
        assert "audit_unavailable" in {error.code for error in late}
        assert all("\n" not in str(error) and len(str(error)) < 300 for error in late)
        if break_it is read_only:  # what is full may still have room for the few bytes of this
            assert (await refusal(vault.node.check_ready())).code == "store_unavailable"
        heal(vault.node.store)
        await vault.ask("update", "secret/data/x", {"data": {"value": "after"}})
        assert (await use(vault, "services/stripe", token)).lent
        assert (await vault.ask("read", "sys/audit-log/verify")).data["valid"]

    place.play(scenario)


def test_a_store_locked_by_another_program_is_waited_for_or_refused_in_words(tmp_path, monkeypatch):
    place = Place(tmp_path)

    async def scenario(vault):
        await stripe(vault)
        await vault.vault.journal.drain()
        vault.node.store._writer._connection.execute("PRAGMA busy_timeout = 50")
        other = sqlite3.connect(place.file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            error = await refusal(vault.ask("read", "secret/data/stripe/api-key"))
            assert error is not None
            assert (error.code, error.status) == ("audit_unavailable", 503)
            assert "locked" in str(error)
        finally:
            other.execute("ROLLBACK")
            other.close()
        assert await vault.ask("read", "secret/data/stripe/api-key")

    place.play(scenario)


def test_a_store_that_was_taken_away_refuses_and_does_not_make_another(tmp_path):
    place = Place(tmp_path)

    async def scenario(vault):
        await stripe(vault)
        await vault.vault.journal.drain()
        place.file.rename(place.file.with_suffix(".away"))
        for _ in range(3):
            assert (await refusal(vault.ask("read", "secret/data/stripe/api-key"))).status == 503
        assert not place.file.exists()

    place.play(scenario)


def test_many_requests_at_once_over_a_fault_all_get_an_answer(tmp_path):
    place = Place(tmp_path)

    async def scenario(vault):
        await stripe(vault)
        asking = [asyncio.create_task(refusal(vault.ask("read", "secret/data/stripe/api-key"))) for _ in range(200)]
        await asyncio.sleep(0)
        read_only(vault.node.store)
        answers = await asyncio.wait_for(asyncio.gather(*asking), 30)
        assert {error.code for error in answers if error} <= {"audit_unavailable"}
        writable(vault.node.store)
        assert await vault.ask("read", "secret/data/stripe/api-key")

    place.play(scenario)

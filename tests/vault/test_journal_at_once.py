"""A record that is alone is handed to the store at once, and is as durable, and as refused, as one that waited."""

import asyncio
import math

import pytest

from keyhole.core.errors import AuditUnavailable, Conflict, StoreUnavailable
from keyhole.core.record import Phase, Record
from keyhole.stores import open_store, sqlite
from keyhole.testing import open_vault
from keyhole.vault import audit
from vault.world import journal


class Handed:
    """A store that counts what is handed to it without waiting, and can refuse it."""

    def __init__(self, store):
        self._store = store
        self.count = 0
        self.fault = None

    def __getattr__(self, name):
        return getattr(self._store, name)

    def submit(self, batch):
        self.count += 1
        if self.fault is None:
            return self._store.submit(batch)
        refused = asyncio.get_running_loop().create_future()
        refused.set_exception(self.fault)
        self.fault = None
        return refused


def record(name):
    return Record(phase=Phase.EVENT, id=name, operation="watch")


def alone(tmp_path, scenario):
    async def main():
        handed = Handed(await open_store(f"sqlite:{tmp_path}/vault.db", create=True))
        async with open_vault(store=handed) as vault:
            await vault.vault.journal.intend(record("first"), vault.vault.root_org)
            await vault.vault.journal.drain()
            handed.count = 0
            await scenario(vault, handed, vault.vault.journal, vault.vault.root_org)
            assert (await vault.ask("read", "sys/audit-log/verify")).data["valid"]

    asyncio.run(main())


async def named(vault, *names):
    return [each.id for _, each in await journal(vault) if each.id in names]


def test_one_alone_is_handed_in_at_once_and_many_share_a_commit(tmp_path):
    async def scenario(vault, handed, log, org):
        waiting = log.intend(record("a"), org)
        assert handed.count == 1
        later = [log.intend(record(name), org) for name in "bcd"]  # they wait for the first, and go together
        assert handed.count == 1
        await asyncio.gather(waiting, *later)
        await log.drain()
        together = [log.intend(record(name), org) for name in "ef"]  # the last commit was for three
        assert handed.count == 1
        await asyncio.gather(*together)
        assert await named(vault, *"abcdef") == list("abcdef")

    alone(tmp_path, scenario)


def test_a_slot_that_was_taken_over_is_noticed_and_the_record_written_once(tmp_path):
    async def scenario(vault, handed, log, org):
        handed.fault = Conflict("changed")
        await log.intend(record("a"), org)
        assert handed.count == 1
        assert await named(vault, "a") == ["a"]

    alone(tmp_path, scenario)


def test_one_that_cannot_be_written_is_refused_and_an_outcome_beside_it_kept(tmp_path):
    async def scenario(vault, handed, log, org):
        handed.fault = StoreUnavailable("the disk of the store is full")
        log.outcome(record("outcome").encode(), org)
        with pytest.raises(AuditUnavailable):
            await log.intend(record("a"), org)
        assert handed.count == 1
        await log.drain()
        assert await named(vault, "a", "outcome") == ["outcome"]

    alone(tmp_path, scenario)


def test_whatever_goes_wrong_nobody_waits_for_ever(tmp_path):
    async def scenario(vault, handed, log, org):
        handed.fault = RuntimeError("a fault")
        waiting, task = log.intend(record("a"), org), log._task
        with pytest.raises(RuntimeError):
            await task
        with pytest.raises(AuditUnavailable):
            await waiting
        await log.intend(record("b"), org)
        assert await named(vault, "a", "b") == ["b"]

    alone(tmp_path, scenario)


@pytest.mark.parametrize(("quick", "least", "most"), [(math.inf, 20, 25), (0.0, 35, 42)])
def test_two_who_ask_again_and_again_share_their_commits_unless_these_take_long(
    tmp_path, monkeypatch, quick, least, most
):
    monkeypatch.setattr(audit, "_QUICK", quick)

    async def scenario(vault, handed, log, org):
        commits = []
        commit = handed.commit

        async def counted(batch):
            commits.append(len(batch.appends))
            await commit(batch)

        handed.commit = counted

        async def ask(name):
            for number in range(20):
                await log.intend(record(f"{name}{number}"), org)

        async def late():  # while the first one of the other is on its way
            await asyncio.sleep(0)
            await ask("b")

        await asyncio.gather(ask("a"), late())
        assert least <= handed.count + len(commits) <= most
        assert len(await named(vault, *(f"{name}{number}" for name in "ab" for number in range(20)))) == 40

    alone(tmp_path, scenario)


def test_the_thread_that_writes_may_begin_as_soon_as_it_has_something_and_not_for_each_of_many(tmp_path, monkeypatch):
    gave_way = []
    monkeypatch.setattr(sqlite, "_give_way", lambda: gave_way.append(None))

    async def scenario(vault, handed, log, org):
        gave_way.clear()
        await log.intend(record("a"), org)
        assert len(gave_way) == 1
        await asyncio.gather(*[log.intend(record(name), org) for name in "bcd"])
        await log.drain()
        assert len(gave_way) == 2  # the others went together, and waited for the first
        await asyncio.gather(*[log.intend(record(name), org) for name in "efgh"])
        assert len(gave_way) == 2

    alone(tmp_path, scenario)

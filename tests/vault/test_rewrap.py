"""Everything of an org under a new term of its key, while it is in use."""

import asyncio
import os

import pytest

from keyhole.core.errors import Conflict, IntegrityError, InvalidRequest
from keyhole.crypto.keyring import Where, term_of
from keyhole.stores import Batch, open_store
from keyhole.testing import MemorySeal, OpenVault, open_vault
from keyhole.vault.keys import read_header
from keyhole.vault.node import Node


async def values(vault, names):
    found = await asyncio.gather(*(vault.get(f"secret/data/{name}") for name in names))
    return [data["data"]["v"] for data in found]


async def put(vault, name, value):
    await vault.ask("update", f"secret/data/{name}", {"data": {"v": value}})


def two_nodes(scenario, tmp_path):
    async def main():
        location, seal = f"sqlite:{tmp_path}/vault.db", MemorySeal(os.urandom(32))
        one = Node(await open_store(location, create=True))
        token = await one.init("memory", seal=seal)
        two = Node(await open_store(location))
        await two.unseal(seal=seal)
        try:
            await scenario(OpenVault(one, token), OpenVault(two, token))
        finally:
            await one.close()
            await two.close()

    asyncio.run(main())


def test_everything_is_under_the_new_term_and_the_older_ones_are_gone():
    async def main():
        async with open_vault() as vault:
            names = [f"team/s{number}" for number in range(300)]
            for name in names:
                await put(vault, name, name)
            org, keys, store = vault.vault.root_org, vault.vault.keys, vault.node.store
            old = keys.ring(org)
            await vault.ask("update", "sys/rotate")
            done = (await vault.ask("update", "sys/rewrap")).data
            assert done["rewrapped"] > 300
            assert keys.ring(org).terms == (done["term"],) == (2,)
            assert await values(vault, names) == names
            rows = await store.list(f"{org}/", limit=10_000)
            for key, entry in zip(rows, await store.get(rows), strict=True):
                if entry.value:
                    assert term_of(entry.value) == 2
                    with pytest.raises(IntegrityError):
                        old.open(entry.value, Where(org, key.split("/")[1], key, entry.revision))
            assert (await vault.ask("update", "sys/rewrap")).data["rewrapped"] == 0
            assert (await vault.ask("read", "sys/audit-log/verify")).data["valid"]

    asyncio.run(main())


def test_what_is_due_stays_due():
    async def main():
        async with open_vault() as vault:
            await vault.ask("update", "auth/token/create", {"ttl": "1h"})
            before = await vault.node.store.due(2**40, 1000)
            await vault.ask("update", "sys/rotate")
            await vault.ask("update", "sys/rewrap")
            assert await vault.node.store.due(2**40, 1000) == before
            assert await vault.node.store.due(vault.vault.clock.now(), 1000) == []

    asyncio.run(main())


def test_a_server_that_has_not_heard_of_the_new_term_writes_under_it_all_the_same(tmp_path):
    """It was asked before the change, and commits after the older term is gone."""

    async def scenario(here, there):
        await put(there, "a", "before")
        store = there.node.store
        commit, sealed = store.commit, []

        async def late(batch: Batch):
            if not sealed and any(p.key.split("/")[0] == here.vault.root_org for p in batch.puts):
                sealed.append(batch)
                await here.ask("update", "sys/rotate")
                await here.ask("update", "sys/rewrap")
            await commit(batch)

        store.commit = late
        with_retry = 0
        while True:
            try:
                await put(there, "b", "late")
                break
            except (Conflict, InvalidRequest):
                with_retry += 1
                assert with_retry < 3
        assert sealed
        assert await values(here, ["a", "b"]) == ["before", "late"]

    two_nodes(scenario, tmp_path)


def before_reading(store, key, happens):
    """Let something happen elsewhere when this node, which is in the middle of a request, reads an entry."""
    get, pending = store.get, [happens]

    async def late(keys):
        if pending and any(each.startswith(key) for each in keys):
            await pending.pop()()
        return await get(keys)

    store.get = late
    return pending


@pytest.mark.parametrize("rewraps", [False, True])
def test_what_another_server_wrote_under_a_new_key_meanwhile_is_read(tmp_path, rewraps):
    async def scenario(here, there):
        await put(here, "a", "one")
        assert await values(there, ["a"]) == ["one"]
        mount = there.vault.compiled.last(there.vault.root_org).mounts.at("secret/")

        async def changes():
            await here.ask("update", "sys/rotate")
            if rewraps:
                await here.ask("update", "sys/rewrap")
            await put(here, "a", "two")

        pending = before_reading(there.node.store, f"{there.vault.root_org}/{mount.id}/", changes)
        assert await values(there, ["a"]) == ["two"]
        assert not pending

    two_nodes(scenario, tmp_path)


def test_whoever_follows_the_journal_reads_what_another_server_writes_under_a_new_key(tmp_path):
    async def scenario(here, there):
        cursor = (await there.ask("read", "sys/audit-log")).data["cursor"]
        await put(here, "b", "something to read")

        async def changes():
            await here.ask("update", "sys/rotate")
            await put(here, "a", "one")
            await here.vault.journal.drain()

        scan, pending = there.node.store.scan, [changes]

        async def late(*args, **options):
            if pending:
                await pending.pop()()
            return await scan(*args, **options)

        there.node.store.scan = late
        found = (await there.ask("read", "sys/audit-log", {"cursor": cursor})).data
        found = (await there.ask("read", "sys/audit-log", {"cursor": found["cursor"]})).data["records"] + found[
            "records"
        ]
        assert "secret/data/a" in {record.get("path") for record in found}

    two_nodes(scenario, tmp_path)


def test_a_rewrap_takes_up_the_key_that_another_server_makes_meanwhile(tmp_path):
    async def scenario(here, there):
        names = [f"s{number}" for number in range(20)]
        for name in names:
            await put(here, name, name)
        await there.ask("update", "sys/rotate")

        async def changes():
            await here.ask("update", "sys/rotate")
            await put(here, "s7", "new")

        get, pending = there.node.store.get, [changes]

        async def late(keys):
            if pending and len(keys) > len(names):
                await pending.pop()()
            return await get(keys)

        there.node.store.get = late
        await there.ask("update", "sys/rewrap")
        assert not pending
        assert there.vault.keys.ring(there.vault.root_org).terms == (3,)
        for vault in (here, there):
            assert await values(vault, names) == [*names[:7], "new", *names[8:]]

    two_nodes(scenario, tmp_path)


@pytest.mark.parametrize("entry", ["sys/signing", "sys/handover/"])
def test_of_two_requests_that_meet_a_new_root_key_neither_fails(tmp_path, entry):
    """One has read an entry when the other takes up the key that replaced the one of that entry."""

    async def scenario(here, there):
        store, keys, pending = there.node.store, there.vault.keys, [entry]
        get, before = store.get, await there.node.store.get(["sys/signing"])
        header = await read_header(here.node.store)
        await here.vault.keys.replace(os.urandom(32), header, None, here.vault.clock.now())

        async def late(names):
            if not (pending and names[0].startswith(pending[0])):
                return await get(names)
            read = before if pending.pop() == "sys/signing" else await get(names)
            await keys.refresh()
            return read

        store.get = late
        await keys.refresh()
        assert not pending
        await put(there, "a", "one")
        assert await values(here, ["a"]) == ["one"]

    two_nodes(scenario, tmp_path)

"""Everything of an org under a new term of its key, while it is in use."""

import asyncio
import itertools
import os

import pytest

from keyhole.core.errors import Conflict, IntegrityError, InvalidRequest
from keyhole.crypto.keyring import Where, term_of
from keyhole.stores import Batch, open_store
from keyhole.testing import MemorySeal, OpenVault, open_vault
from keyhole.vault.node import Node

WRITES = 60


async def values(vault, names):
    found = await asyncio.gather(*(vault.get(f"secret/data/{name}") for name in names))
    return [data["data"]["v"] for data in found]


async def put(vault, name, value):
    await vault.ask("update", f"secret/data/{name}", {"data": {"v": value}})


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


def test_two_servers_lose_no_write_and_fail_no_read_while_the_key_changes(tmp_path):
    async def main():
        location, seal = f"sqlite:{tmp_path}/vault.db", MemorySeal(os.urandom(32))
        one = Node(await open_store(location, create=True))
        token = await one.init("memory", seal=seal)
        two = Node(await open_store(location))
        await two.unseal(seal=seal)
        nodes = [OpenVault(one, token), OpenVault(two, token)]
        acknowledged = {}
        ended = asyncio.Event()
        for number in range(100):
            await put(nodes[0], f"old/s{number}", f"old {number}")

        async def writer(vault, mark):
            for number in itertools.count():
                if ended.is_set() and number >= WRITES:
                    return
                name, value = f"{mark}/s{number % 7}", f"{mark} {number}"
                await put(vault, name, value)
                acknowledged[name] = value
                assert await values(vault, [name]) == [value]
                await asyncio.sleep(0.02)

        async def changer():
            for vault in (*nodes, *nodes):
                await vault.ask("update", "sys/rotate")
                await vault.ask("update", "sys/rewrap")
            ended.set()

        try:
            await asyncio.gather(changer(), *(writer(v, f"w{i}") for i, v in enumerate((*nodes, *nodes))))
            for vault in nodes:
                assert await values(vault, acknowledged) == list(acknowledged.values())
                assert await values(vault, [f"old/s{n}" for n in range(100)]) == [f"old {n}" for n in range(100)]
                assert len(vault.vault.keys.ring(vault.vault.root_org).terms) == 1
        finally:
            await one.close()
            await two.close()

    asyncio.run(main())


def test_a_server_that_has_not_heard_of_the_new_term_writes_under_it_all_the_same(tmp_path):
    """It was asked before the change, and commits after the older term is gone."""

    async def main():
        location, seal = f"sqlite:{tmp_path}/vault.db", MemorySeal(os.urandom(32))
        one = Node(await open_store(location, create=True))
        token = await one.init("memory", seal=seal)
        store = await open_store(location)
        two = Node(store)
        await two.unseal(seal=seal)
        here, there = OpenVault(one, token), OpenVault(two, token)
        await put(there, "a", "before")
        commit, sealed = store.commit, []

        async def late(batch: Batch):
            if not sealed and any(p.key.split("/")[0] == here.vault.root_org for p in batch.puts):
                sealed.append(batch)
                await here.ask("update", "sys/rotate")
                await here.ask("update", "sys/rewrap")
            await commit(batch)

        store.commit = late
        try:
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
        finally:
            await one.close()
            await two.close()

    asyncio.run(main())

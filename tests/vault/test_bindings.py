"""The services of an org with very many of them: what a change of one thing costs the calls of all others."""

import asyncio

import pytest

from keyhole.stores import Batch, Put
from keyhole.stores.memory import MemoryStore
from keyhole.vault import bindings
from keyhole.vault.fsck import examine
from keyhole.vault.rewrap import rewrap
from keyhole.vault.storage import Storage
from vault.world import SERVICE, Place, play, stripe


@pytest.fixture
def opened(monkeypatch):
    """Names of the services that were opened and read, in order."""
    names = []
    decode = bindings.decode

    def noted(name, data):
        names.append(name)
        return decode(name, data)

    monkeypatch.setattr(bindings, "decode", noted)
    return names


async def services(vault):
    state, _ = await vault.vault.authenticate(vault.token.encode())
    return await vault.vault.services(state)


async def several(vault, count=3):
    await stripe(vault)
    for number in range(count):
        await vault.ask("update", f"services/s{number}", {**SERVICE, "hosts": [f"s{number}.example.com"]})


def test_a_new_agent_or_policy_makes_no_call_read_the_services_again(opened):
    async def scenario(vault):
        await several(vault)
        before = await services(vault)
        opened.clear()
        await vault.ask("update", "agents/coder")
        await vault.ask("update", "agents/coder/services/s1")
        await vault.ask("update", "sys/policies/acl/readers", {"policy": 'path "secret/*" { capabilities = ["read"] }'})
        assert await services(vault) is before
        assert opened == []

    play(scenario)


def test_of_services_only_those_that_changed_are_read_again(opened):
    async def scenario(vault):
        await several(vault)
        assert sorted(await services(vault)) == ["s0", "s1", "s2", "stripe"]
        opened.clear()
        await vault.ask("update", "services/s1", {**SERVICE, "hosts": ["moved.example.com"]})
        await vault.ask("update", "services/a", {**SERVICE, "hosts": ["a.example.com"]})
        await vault.ask("delete", "services/s2")
        found = await services(vault)
        assert list(found) == ["a", "s0", "s1", "stripe"]
        assert str(found["s1"].hosts[0]) == "moved.example.com:443"
        assert sorted(opened) == ["a", "s1"]

    play(scenario)


def test_calls_at_the_same_time_read_the_services_once(opened):
    async def scenario(vault):
        await several(vault)
        opened.clear()
        found = await asyncio.gather(*(services(vault) for _ in range(20)))
        assert all(each is found[0] for each in found)
        assert len(opened) == len(set(opened)) == 4

    play(scenario)


def test_more_services_than_are_read_at_once_are_all_there(monkeypatch):
    monkeypatch.setattr("keyhole.vault.storage._SCANNED_AT_ONCE", 2)

    async def scenario(vault):
        await several(vault)
        assert sorted(await services(vault)) == ["s0", "s1", "s2", "stripe"]
        await vault.ask("update", "services/s3", {**SERVICE, "hosts": ["s3.example.com"]})
        assert sorted(await services(vault)) == ["s0", "s1", "s2", "s3", "stripe"]

    play(scenario)


def test_a_change_on_another_node_holds_for_the_next_call(tmp_path):
    place = Place(tmp_path)

    async def scenario(vault):
        await several(vault)
        async with place.open() as other:
            state, _ = await other.vault.authenticate(vault.token.encode())
            assert "s1" in await other.vault.services(state)
            await vault.ask("delete", "services/s1")
            state, _ = await other.vault.authenticate(vault.token.encode())
            assert "s1" not in await other.vault.services(state)

    place.play(scenario)


def test_services_that_change_while_they_are_read_are_read_as_of_one_moment(monkeypatch):
    monkeypatch.setattr("keyhole.vault.storage._SCANNED_AT_ONCE", 1)

    async def scenario(vault):
        await several(vault)
        scan, changed = Storage.scan, []

        async def interrupted(storage, seen):
            async for part in scan(storage, seen):
                yield part
                if not changed:
                    changed.append(part)
                    for name in ("stripe", "s0", "s1", "s2"):
                        await vault.ask("delete", f"services/{name}")

        monkeypatch.setattr(Storage, "scan", interrupted)
        assert await services(vault) == {}  # not the one that was read before it was deleted

    play(scenario)


@pytest.fixture
def read(monkeypatch):
    """Store keys of services that were asked for, in order."""
    keys = []
    get = MemoryStore.get

    async def noted(store, wanted):
        keys.extend(key for key in wanted if "/services/" in key)
        return await get(store, wanted)

    monkeypatch.setattr(MemoryStore, "get", noted)
    return keys


CHANGES = {
    "changed": ("update", "services/s1", {**SERVICE, "hosts": ["moved.example.com"]}),
    "new": ("update", "services/t", {**SERVICE, "hosts": ["t.example.com"]}),
    "gone": ("delete", "services/s1", {}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_of_a_change_of_one_service_the_next_call_reads_that_one_however_many_there_are(read, change):
    def looked(count):
        async def scenario(vault):
            await several(vault, count)
            before = dict(await services(vault))
            await vault.ask(*CHANGES[change])
            read.clear()
            found = await services(vault)
            name = CHANGES[change][1].removeprefix("services/")
            assert {key for key in before.keys() | found.keys() if before.get(key) is not found.get(key)} == {name}
            assert list(found) == sorted(found)
            return len(read)

        return play(scenario)

    assert looked(2) == looked(80) == 1


def test_after_more_changes_than_are_noted_all_services_are_as_they_are(read):
    async def scenario(vault):
        await several(vault)
        await services(vault)
        for number in range(70):
            await vault.ask("update", f"services/s{number % 7}", {**SERVICE, "hosts": [f"n{number}.example.com"]})
        await vault.ask("delete", "services/stripe")
        read.clear()
        found = await services(vault)
        assert {name: str(service.hosts[0]) for name, service in found.items()} == {
            f"s{number % 7}": f"n{number}.example.com:443" for number in range(63, 70)
        }
        assert len(read) > 1

    play(scenario)


def test_a_change_by_who_notes_nothing_is_seen(read):
    """As a version that did not note them, beside this one or before it."""

    async def scenario(vault):
        await several(vault)
        await services(vault)
        store, key = vault.node.store, vault.vault.orgs.services_key(vault.vault.root_org)
        await vault.ask("delete", "services/s0")
        [entry] = await store.get([key])
        await store.commit(Batch(puts=[Put(key, b"", entry.revision)]))
        await vault.ask("update", "services/s2", {**SERVICE, "hosts": ["other.example.com"]})
        found = await services(vault)
        assert sorted(found) == ["s1", "s2", "stripe"]
        assert str(found["s2"].hosts[0]) == "other.example.com:443"

    play(scenario)


def test_what_is_noted_of_changes_opens_like_any_entry_also_under_another_key():
    async def scenario(vault):
        await several(vault)
        org = vault.vault.root_org
        [entry] = await vault.node.store.get([vault.vault.orgs.services_key(org)])
        assert entry.value
        assert b"s1" not in entry.value
        assert not (await examine(vault.vault, org)).broken
        await services(vault)
        await vault.vault.orgs.rotate(org)
        await rewrap(vault.vault, org)
        assert not (await examine(vault.vault, org)).broken
        await vault.ask("delete", "services/s1")
        assert sorted(await services(vault)) == ["s0", "s2", "stripe"]

    play(scenario)

"""A mount of KV without versions is given versions: nothing is lost, whatever happens meanwhile."""

import asyncio

import pytest

from engines.mounting import mount, storage_of
from engines.transit_world import clear
from keyhole.core.errors import Conflict, InvalidRequest, NotFound, StoreUnavailable
from keyhole.engines.kv import upgrade, v1
from vault.world import Place, play, refusal

NAMES = [f"team/{n}" for n in range(7)] + ["data/x", "plain"]
TO_2 = {"options": {"version": "2"}}


async def filled(vault):
    await mount(vault, "app", "kv", version="1")
    for name in NAMES:
        await vault.ask("update", f"app/{name}", {"value": name, "many": [1, {"a": None}]})


async def found(vault):
    got = {}
    for name in NAMES:
        reply = clear((await vault.ask("read", f"app/data/{name}")).data)
        got[name] = (reply["data"]["value"], reply["metadata"]["version"])
    return got


EXPECTED = {name: (name, 1) for name in NAMES}


async def waiting(vault):
    """Ends when the mount answers again."""
    await vault.vault.expiry.drain()
    await vault.node.sweep()


def test_every_secret_becomes_version_1_of_one_of_its_name():
    async def scenario(vault):
        await filled(vault)
        reply = await vault.ask("update", "sys/mounts/app/tune", TO_2)
        assert "Upgrading mount from version 1 to version 2" in reply.warnings[0]
        await waiting(vault)
        assert await found(vault) == EXPECTED
        assert (await vault.ask("read", "sys/mounts/app/tune")).data["options"] == {"version": "2"}
        assert (await vault.ask("list", "app/metadata/team/")).data["keys"] == [str(n) for n in range(7)]
        assert (await vault.ask("update", "app/data/plain", {"data": {"value": "new"}})).data["version"] == 2
        assert await (await storage_of(vault, "app")).list("p", recursive=True) == []
        assert (await vault.ask("update", "sys/mounts/app/tune", TO_2)).warnings == []

    play(scenario)


def test_there_is_no_way_back_and_other_options_stay():
    async def scenario(vault):
        await filled(vault)
        for options in ({"version": "3"}, {"version": "2", "other": "x"}):
            error = await refusal(vault.ask("update", "sys/mounts/app/tune", {"options": options}))
            assert isinstance(error, InvalidRequest)
        assert clear((await vault.ask("read", "app/plain")).data)["value"] == "plain"
        back = {"options": {"version": "1"}}
        assert isinstance(await refusal(vault.ask("update", "sys/mounts/secret/tune", back)), InvalidRequest)

    play(scenario)


def test_while_it_goes_on_every_node_says_so_and_nothing_else(tmp_path, monkeypatch):
    place, going, may_go = Place(tmp_path), asyncio.Event(), asyncio.Event()
    real = upgrade._commit

    async def slow(context, names):
        going.set()
        await may_go.wait()
        await real(context, names)

    async def main():
        async with place.open() as one, place.open() as two:
            await filled(one)
            assert clear((await two.ask("read", "app/plain")).data)["value"] == "plain"
            monkeypatch.setattr(upgrade, "_commit", slow)
            one.vault.expiry.background = True
            await one.ask("update", "sys/mounts/app/tune", TO_2)
            await going.wait()
            for vault in (one, two):
                for operation, path in (("read", "plain"), ("update", "plain"), ("read", "data/plain"), ("list", "")):
                    error = await refusal(vault.ask(operation, f"app/{path}", {"value": "lost"}))
                    assert (error.status, error.reason) == (400, v1.UPGRADING)
            may_go.set()
            await waiting(one)
            assert await found(two) == EXPECTED

    asyncio.run(main())


@pytest.mark.parametrize("cut", range(1, 5))
def test_what_a_crash_cuts_off_is_done_when_the_vault_is_open_again(tmp_path, monkeypatch, cut):
    place = Place(tmp_path)
    monkeypatch.setattr(upgrade, "_AT_ONCE", 3)

    async def begin(vault):
        await filled(vault)
        left, real = [cut], vault.node.store.commit

        async def failing(batch):
            if any(f"/{mount_id}/" in put.key for put in batch.puts):
                left[0] -= 1
                if left[0] <= 0:
                    raise StoreUnavailable("cut off")
            return await real(batch)

        mount_id = (await storage_of(vault, "app"))._mount
        vault.node.store.commit = failing
        await vault.ask("update", "sys/mounts/app/tune", TO_2)

    async def end(vault):
        assert isinstance(await refusal(vault.ask("read", "app/data/plain")), InvalidRequest)
        await vault.node.sweep()
        assert await found(vault) == EXPECTED

    place.play(begin)
    place.play(end)


def test_several_nodes_may_do_it_at_once(tmp_path):
    place = Place(tmp_path)

    async def main():
        async with place.open() as one, place.open() as two:
            await filled(one)
            await one.ask("update", "sys/mounts/app/tune", TO_2)
            await asyncio.gather(one.node.sweep(), two.node.sweep())
            assert await found(two) == EXPECTED

    asyncio.run(main())


def test_a_write_that_was_under_way_is_refused_and_not_lost():
    async def scenario(vault):
        await filled(vault)
        storage = await storage_of(vault, "app")
        state = await vault.vault.compiled.state(vault.vault.root_org)
        context = vault.vault.context(state, None, state.mounts.at("app/"))
        item, unmarked = await v1._read(context, "p/plain")
        await vault.ask("update", "sys/mounts/app/tune", TO_2)
        await waiting(vault)
        for path, revision in (("p/plain", item.revision), ("p/new", 0)):
            with pytest.raises(Conflict):
                await storage.change([(path, b"{}", revision)], checks=[unmarked])
        with pytest.raises(InvalidRequest, match="Upgrading"):
            await v1._read(context, "p/plain")
        assert await found(vault) == EXPECTED
        assert isinstance(await refusal(vault.ask("read", "app/data/new")), NotFound)

    play(scenario)

"""Keys that get a new version by themselves: in time, once, and never half."""

import asyncio

import pytest

from engines.transit_world import Transit, mounted
from keyhole.core.errors import InvalidRequest
from keyhole.engines.transit import keys, manage
from keyhole.testing import FrozenClock
from vault.world import Place, journal, play, recorded, refusal

HOUR = 3600


@pytest.fixture
def clock():
    return FrozenClock()


async def latest(transit, name="k"):
    return (await transit.read(f"keys/{name}"))["latest_version"]


def test_key_gets_a_version_when_its_period_is_over_and_not_before(clock):
    async def scenario(vault):
        transit = await mounted(vault)
        await transit("keys/k", auto_rotate_period="2h")
        assert (await transit.read("keys/k"))["auto_rotate_period"] == 2 * HOUR
        sealed = await transit.encrypt("k", "one")
        clock.advance(2 * HOUR - 5)
        await vault.node.sweep()
        assert await latest(transit) == 1
        for version in (2, 3):
            clock.advance(2 * HOUR + 1)
            async with recorded(vault) as records:
                await vault.node.sweep()
                await vault.node.sweep()
            assert await latest(transit) == version
            due = [record for record in records if record.operation == "due"]
            assert [(record.path, record.result) for record in due] == [("transit/keys/k/rotate", "ok")]
        assert await transit.decrypt("k", sealed) == b"one"

    play(scenario, clock=clock)


def test_rotation_by_hand_puts_the_next_one_off_and_no_period_ends_it(clock):
    async def scenario(vault):
        transit = await mounted(vault)
        await transit("keys/k")
        await transit("keys/k/config", auto_rotate_period=2 * HOUR)
        clock.advance(1.5 * HOUR)
        await transit("keys/k/rotate")
        clock.advance(1.5 * HOUR)
        await vault.node.sweep()
        assert await latest(transit) == 2
        await transit("keys/k/config", deletion_allowed=True)
        assert (await transit.read("keys/k"))["auto_rotate_period"] == 2 * HOUR
        await transit("keys/k/config", auto_rotate_period=0)
        clock.advance(10 * HOUR)
        await vault.node.sweep()
        assert await latest(transit) == 2

    play(scenario, clock=clock)


def test_several_nodes_rotate_once(tmp_path):
    place, first, second = Place(tmp_path), FrozenClock(), FrozenClock()

    async def main():
        async with place.open(clock=first) as one, place.open(clock=second) as two:
            transit = await mounted(one)
            for name in "abcdef":
                await transit(f"keys/{name}", auto_rotate_period="1h")
            for clock in (first, second):
                clock.advance(HOUR + 10)
            await asyncio.gather(one.node.sweep(), two.node.sweep())
            other = Transit(two)
            assert [await latest(other, name) for name in "abcdef"] == [2] * 6

    asyncio.run(main())


def test_rotation_that_is_cut_off_is_done_by_the_next_sweep(clock, monkeypatch):
    async def scenario(vault):
        transit = await mounted(vault)
        await transit("keys/bad", auto_rotate_period="1h")
        await transit("keys/good", auto_rotate_period="1h")
        clock.advance(HOUR + 1)
        real = keys.save_new

        async def broken(context, key, added):
            if key.name == "bad":
                raise OSError("cut off")
            await real(context, key, added)

        monkeypatch.setattr(keys, "save_new", broken)
        await vault.node.sweep()
        assert [await latest(transit, name) for name in ("bad", "good")] == [1, 2]
        monkeypatch.undo()
        await vault.node.sweep()
        assert [await latest(transit, name) for name in ("bad", "good")] == [2, 2]

    play(scenario, clock=clock)


def test_full_key_waits_and_the_journal_says_why(clock, monkeypatch):
    monkeypatch.setattr(keys, "MAX_VERSIONS", 2)

    async def scenario(vault):
        transit = await mounted(vault)
        await transit("keys/k", auto_rotate_period="1h")
        for _ in range(3):
            clock.advance(HOUR + 1)
            await vault.node.sweep()
            await vault.node.sweep()
        assert await latest(transit) == 2
        results = [record.result for _, record in await journal(vault) if record.operation == "due"]
        assert results == ["ok", InvalidRequest.code, InvalidRequest.code]

    play(scenario, clock=clock)


def test_backup_keeps_the_period_and_what_is_deleted_rotates_no_more(clock):
    async def scenario(vault):
        transit = await mounted(vault)
        await transit("keys/k", auto_rotate_period="1h", exportable=True, allow_plaintext_backup=True)
        backup = (await transit.read("backup/k"))["backup"]
        await transit("keys/k/config", deletion_allowed=True)
        await transit.delete("keys/k")
        clock.advance(HOUR + 1)
        await vault.node.sweep()
        await transit("restore/copy", backup=backup)
        await vault.node.sweep()
        assert await latest(transit, "copy") == 2
        assert (await transit.names())["keys"] == ["copy"]

    play(scenario, clock=clock)


def test_period_that_is_no_use_is_refused():
    async def scenario(vault):
        transit = await mounted(vault)
        await transit("keys/k")
        for period in ("59m", -1, "soon", 10**12):
            assert isinstance(await refusal(transit("keys/new", auto_rotate_period=period)), InvalidRequest)
            assert isinstance(await refusal(transit("keys/k/config", auto_rotate_period=period)), InvalidRequest)
        with pytest.raises(InvalidRequest, match="at least an hour"):
            manage.parse_rotation({"auto_rotate_period": 3599})
        error = await refusal(transit("keys/new/import", ciphertext="", auto_rotate_period="1h"))
        assert error.reason == "allow_rotation must be set to true if auto-rotation is enabled"

    play(scenario)


def test_size_of_the_cache_is_kept_and_sources_of_randomness_are_known():
    async def scenario(vault):
        transit = await mounted(vault)
        assert await transit.read("cache-config") == {"size": 0}
        await transit("cache-config", size=500)
        assert await transit.read("cache-config") == {"size": 500}
        assert isinstance(await refusal(transit("cache-config", size=9)), InvalidRequest)
        assert len((await transit("random/all/8", format="hex"))["random_bytes"]) == 16
        assert isinstance(await refusal(transit("random/dice/8")), InvalidRequest)

    play(scenario)

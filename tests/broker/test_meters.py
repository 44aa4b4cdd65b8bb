"""Counts and rates as they are measured, over restarts, nodes and windows."""

import asyncio
from typing import Any

import pytest

from keyhole.broker.meters import Meter, Meters
from keyhole.core.bucket import Bucket
from keyhole.core.checks.limits import Limits, Quota
from keyhole.core.errors import RateLimited
from keyhole.core.identity import Caller
from keyhole.core.policy import Acl
from keyhole.core.service import Service
from keyhole.testing import FrozenClock, OpenVault
from vault.world import Place

SERVICE = {"hosts": ["api.example.com"], "secret": "x", "inject": {"kind": "bearer"}}


async def meter(meters: Meters, vault: OpenVault, limits: dict[str, Any], name: str = "agent/coder") -> Meter:
    service = Service.from_data("x", {**SERVICE, "limits": limits})
    assert service.checks is not None
    door = vault.vault
    state = await door.compiled.state(door.root_org)
    caller = Caller("root", door.root_org, name, "", "full", (), Acl([]))
    found = meters.of(door, state, caller, service, service.checks.limits)
    assert found is not None
    return found


async def used(each: Meter, tries: int) -> int:
    """How many of some calls are let through."""
    done, waits = 0, []
    for _ in range(tries):
        try:
            turn = await each.begin()
        except RateLimited as error:
            waits.append(error.retry_after)
            continue
        turn.end()
        done += 1
    assert all(wait > 0 for wait in waits)
    return done


def test_a_count_holds_after_a_restart(tmp_path) -> None:
    place = Place(tmp_path)

    async def some(vault: OpenVault) -> int:
        return await used(await meter(Meters(), vault, {"count": "30/52w"}), 20)

    assert [place.play(some) for _ in range(3)] == [20, 10, 0]


def test_a_count_holds_for_all_nodes_together(tmp_path) -> None:
    place = Place(tmp_path)

    async def main() -> list[int]:
        async with place.open() as first, place.open() as second:
            each = [await meter(Meters(), node, {"count": "1000/52w"}) for node in (first, second)]
            return list(await asyncio.gather(*(used(one, 700) for one in each)))

    total = sum(asyncio.run(main()))
    assert 950 <= total <= 1000, "never more, and at most a block of each node less"


def test_parallel_calls_of_one_process_lose_nothing(tmp_path) -> None:
    async def scenario(vault: OpenVault) -> list[int]:
        one = await meter(Meters(), vault, {"count": "100/52w"})
        return list(await asyncio.gather(*(used(one, 1) for _ in range(120))))

    assert sum(Place(tmp_path).play(scenario)) == 100


def test_a_large_count_is_no_write_for_each_call(tmp_path) -> None:
    place = Place(tmp_path)

    async def scenario(vault: OpenVault) -> int:
        one = await meter(Meters(), vault, {"count": "1000/52w"})
        before = await vault.node.store.generation()
        assert await used(one, 200) == 200
        return await vault.node.store.generation() - before

    assert place.play(scenario) <= 8


def test_a_new_window_begins_with_a_full_count_and_old_counts_go(tmp_path) -> None:
    clock = FrozenClock()
    place = Place(tmp_path)

    async def scenario(vault: OpenVault) -> list[int]:
        one = await meter(Meters(), vault, {"count": "3/h"})
        found = []
        for _ in range(3):
            found.append(await used(one, 5))
            clock.advance(3600)
        clock.advance(4 * 3600)
        await vault.node.sweep()
        assert await vault.vault.storage(vault.vault.root_org, "limits").list() == []
        return found

    assert place.play(scenario, clock=clock) == [3, 3, 3]


def test_agents_have_their_own_counts(tmp_path) -> None:
    async def scenario(vault: OpenVault) -> list[int]:
        meters = Meters()
        return [await used(await meter(meters, vault, {"count": "3/52w"}, f"agent/{n}"), 5) for n in "ab"]

    assert Place(tmp_path).play(scenario) == [3, 3]


def test_a_call_that_was_not_made_does_not_count(tmp_path) -> None:
    async def scenario(vault: OpenVault) -> int:
        one = await meter(Meters(), vault, {"count": "3/52w", "concurrent": 1})
        for _ in range(10):
            (await one.begin()).undo()
        return await used(one, 5)

    assert Place(tmp_path).play(scenario) == 3


@pytest.mark.parametrize(
    ("rate", "burst", "moments", "passed"),
    [
        ("2/m", 2, [0, 0, 0, 29, 30, 31, 60], [1, 1, 0, 0, 1, 0, 1]),
        ("60/m", 1, [0, 0, 0.5, 1, 1.5, 2], [1, 0, 0, 1, 0, 1]),
        ("1/h", 1, [0, 3599, 3600, 3601, 1e6], [1, 0, 1, 0, 1]),
        ("1/m", 3, [0, 0, 0, 0, 1e6, 1e6, 1e6, 1e6], [1, 1, 1, 0, 1, 1, 1, 0]),
        ("2/m", 2, [100, 90, 80, 130], [1, 1, 0, 1]),  # time that seems to go back gives nothing
    ],
)
def test_a_bucket_fills_evenly(rate: str, burst: int, moments: list[float], passed: list[int]) -> None:
    quota = Quota.parse(rate, "rate")
    bucket = Bucket(float(burst), moments[0])
    assert [int(bucket.take(quota.number, quota.seconds, burst, at) == 0) for at in moments] == passed


def test_after_the_wait_that_was_said_there_is_room() -> None:
    bucket = Bucket(0.0, 0.0)
    wait = bucket.take(7, 60, 7, 0.0)
    assert bucket.take(7, 60, 7, wait) == 0


def test_limits_say_what_they_are() -> None:
    limits = Limits.from_data({"rate": "5/30s", "count": "9/d", "concurrent": 2})
    assert limits.describe() == ["rate: 5/30s, 5 at once", "count: 9/d", "concurrent: 2"]

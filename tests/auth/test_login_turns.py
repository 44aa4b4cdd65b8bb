"""Whose password is tried next, while many wait."""

import asyncio

import pytest

from keyhole.auth.guesses import Guesses, GuessLimits
from keyhole.core.errors import RateLimited

LIMITS = GuessLimits(waiting=4, waiting_all=6)


async def tried(guesses: Guesses, asked: list[tuple[str, str]]) -> tuple[list[str], list[str]]:
    """In what order these get their turn while one is being tried, and who is refused."""
    order, refused = [], []
    hold = asyncio.Event()

    async def one(org: str, source: str) -> None:
        try:
            async with guesses.turn(org, source):
                order.append(source)
        except RateLimited:
            refused.append(source)

    async def first() -> None:
        async with guesses.turn("any", "first"):
            await hold.wait()

    jobs = [asyncio.create_task(first())]
    await asyncio.sleep(0)
    for org, source in asked:
        jobs.append(asyncio.create_task(one(org, source)))
        await asyncio.sleep(0)
    hold.set()
    await asyncio.gather(*jobs)
    return order, refused


def test_orgs_take_turns_and_of_an_org_the_addresses_that_ask():
    flood = [("a", "192.0.2.1")] * 3
    order, refused = asyncio.run(tried(Guesses(LIMITS), [*flood, ("a", "192.0.2.2"), ("b", "192.0.2.3")]))
    assert order == ["192.0.2.1", "192.0.2.3", "192.0.2.2", "192.0.2.1", "192.0.2.1"]
    assert refused == []


def test_an_address_that_fills_the_line_of_an_org_leaves_room_for_others():
    flood = [("a", "192.0.2.1")] * 6
    order, refused = asyncio.run(tried(Guesses(LIMITS), [*flood, ("a", "192.0.2.2")]))
    assert "192.0.2.2" in order
    assert refused == ["192.0.2.1"] * 3


def test_an_org_that_fills_all_lines_leaves_room_for_others():
    limits = GuessLimits(waiting=6, waiting_all=6)
    flood = [("a", f"192.0.2.{number}") for number in range(6)]
    order, refused = asyncio.run(tried(Guesses(limits), [*flood, ("b", "198.51.100.1")]))
    assert "198.51.100.1" in order
    assert len(refused) == 1


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_who_hangs_up_while_it_waits_or_is_tried_keeps_no_turn(gone):
    async def main() -> None:
        guesses, hold = Guesses(LIMITS), asyncio.Event()

        async def one() -> None:
            async with guesses.turn("a", "192.0.2.1"):
                await hold.wait()

        jobs = [asyncio.create_task(one()) for _ in range(3)]
        await asyncio.sleep(0)
        jobs[gone].cancel()
        hold.set()
        found = await asyncio.gather(*jobs, return_exceptions=True)
        assert [isinstance(each, asyncio.CancelledError) for each in found] == [number == gone for number in range(3)]
        assert found.count(None) == 2
        async with asyncio.timeout(30), guesses.turn("a", "192.0.2.1"):
            pass

    asyncio.run(main())

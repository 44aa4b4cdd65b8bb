"""Who begins next, in passes of the loop: how many begin before somebody does, not how long it takes."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from keyhole.core.errors import RateLimited
from keyhole.vault.admission import Admission

FLOOD = ("flood", "a")


class Passes:
    """An admission, and what began in which order."""

    def __init__(self, most: int = 2, each: int = 100, waiting: int = 1000) -> None:
        self.now = 0.0
        self.admission = Admission(most, each, waiting, alone=8, lately=256, clock=lambda: self.now)
        self.begun: list[str] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def one(self, org: str, agent: str = "a") -> None:
        if not self.admission.enter((org, agent)):
            await self.admission.wait((org, agent))
        self.begun.append(f"{org} {agent}")

    def come(self, count: int, org: str, agent: str = "a") -> None:
        self.tasks += [asyncio.create_task(self.one(org, agent)) for _ in range(count)]

    async def passes(self, count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    async def all(self) -> None:
        await asyncio.gather(*self.tasks)

    async def largest(self, count: int) -> int:
        """What of so many began in one pass at most."""
        begun, most, wanted = len(self.begun), 0, len(self.begun) + count
        while begun < wanted:
            await asyncio.sleep(0)
            most, begun = max(most, len(self.begun) - begun), len(self.begun)
        return most


def play(job: Callable[[Passes], Awaitable[None]], **settings: int) -> None:
    asyncio.run(asyncio.wait_for(job(Passes(**settings)), 60))


def test_a_call_behind_a_flood_waits_for_a_few_of_it_and_not_for_all():
    async def job(passes: Passes) -> None:
        passes.come(1, "other")
        passes.come(80, "flood")
        await passes.passes(4)
        before = len(passes.begun)
        passes.come(1, "quiet")
        await passes.all()
        assert passes.begun.index("quiet a") - before <= 6
        assert len(passes.begun) == 82

    play(job)


def test_one_agent_waits_for_a_few_calls_of_another_of_its_org():
    async def job(passes: Passes) -> None:
        passes.come(1, "o", "other")
        passes.come(80, "o", "flood")
        await passes.passes(4)
        before = len(passes.begun)
        passes.come(1, "o", "quiet")
        await passes.all()
        assert passes.begun.index("o quiet") - before <= 6

    play(job)


def test_who_keeps_coming_gets_no_more_turns_than_who_has_many_waiting():
    async def job(passes: Passes) -> None:
        passes.come(60, "flood")
        await passes.passes(2)
        for _ in range(10):
            passes.come(1, "quiet")
            await passes.passes(3)
        quiet = passes.begun.count("quiet a")
        assert quiet >= 8
        await passes.all()

    play(job)


def test_a_pass_begins_little_of_those_who_come_together_and_more_of_who_is_alone():
    async def job(passes: Passes) -> None:
        passes.come(20, "flood")
        assert await passes.largest(20) == 8
        passes.come(20, "flood")
        passes.come(1, "quiet")
        assert await passes.largest(21) <= 8
        passes.come(20, "flood")
        assert await passes.largest(20) == 2
        passes.come(600, "flood")
        await passes.largest(500)
        assert await passes.largest(40) == 8

    play(job, each=1000)


def test_who_comes_first_after_a_second_without_anybody_is_alone():
    async def job(passes: Passes) -> None:
        passes.come(1, "quiet")
        passes.come(19, "flood")
        await passes.all()
        await passes.passes(2)
        passes.now += 0.9
        passes.come(20, "flood")
        assert await passes.largest(20) == 2
        await passes.passes(2)
        passes.now += 1.0
        passes.come(20, "flood")
        passes.now += 1.0  # what goes on is no pause, however slowly it goes
        assert await passes.largest(20) == 8
        await passes.passes(2)
        passes.come(1, "quiet")
        passes.come(19, "flood")
        passes.now += 1.0
        await passes.largest(12)
        passes.now += 1.0
        assert await passes.largest(8) == 2

    play(job)


def test_where_nobody_waits_nothing_is_made_to_wait_on():
    async def job(passes: Passes) -> None:
        for _ in range(10):
            for _ in range(8):
                assert passes.admission.enter(FLOOD)
            assert not passes.admission.enter(FLOOD)
            await passes.passes(1)
        await passes.passes(1)
        assert not passes.admission._passing  # nothing goes round in a loop that has nothing to do

    play(job)


def test_who_has_gone_takes_nobodys_place():
    async def job(passes: Passes) -> None:
        passes.come(20, "flood")
        await passes.passes(2)
        for task in passes.tasks:
            task.cancel()
        await passes.passes(1)
        before = len(passes.begun)
        passes.come(2, "quiet")
        await passes.passes(4)
        assert passes.begun[before:] == ["quiet a", "quiet a"]
        assert len(passes.admission._line) == 0

    play(job)


def test_of_too_many_that_wait_the_flood_loses_its_last():
    async def job(passes: Passes) -> None:
        passes.come(18, "flood")
        passes.come(2, "quiet")
        found = await asyncio.gather(*passes.tasks, return_exceptions=True)
        refused = [number for number, each in enumerate(found) if isinstance(each, RateLimited)]
        assert refused == [16, 17]
        errors = [each for each in found if isinstance(each, RateLimited)]
        assert len({id(each) for each in errors}) == len(errors)  # each has one of its own

    play(job, waiting=10)


def test_what_may_not_be_broken_off_goes_on_where_too_many_wait():
    async def job(passes: Passes) -> None:
        passes.come(12, "flood")
        await passes.passes(1)
        await asyncio.gather(*(passes.admission.pause(FLOOD) for _ in range(9)))
        with pytest.raises(RateLimited):
            await asyncio.gather(*(passes.admission.wait(FLOOD) for _ in range(9)))
        await asyncio.gather(*passes.tasks, return_exceptions=True)

    play(job, each=4)

"""Work that many wait for: each has an error of their own, who goes takes nothing along, what has ended begins anew."""

import asyncio
import gc
from typing import Any

import pytest

from keyhole.core.errors import RateLimited, UpstreamUnreachable, own
from keyhole.net.resolve import Resolver
from keyhole.net.together import OneByOne, Together


def test_many_wait_for_one_piece_of_work():
    async def main() -> None:
        together: Together[str, int] = Together()
        begun: list[int] = []

        async def work() -> int:
            begun.append(1)
            await asyncio.sleep(0)
            return 7

        assert await asyncio.gather(*(together.wait("a", work) for _ in range(5))) == [7] * 5
        assert await together.wait("b", work) == 7
        assert len(begun) == 2
        await asyncio.sleep(0)
        assert not len(together)

    asyncio.run(main())


def test_each_has_an_error_of_their_own():
    async def main() -> None:
        together: Together[str, int] = Together()

        async def work() -> int:
            await asyncio.sleep(0)
            raise RateLimited("too many", "wait", retry_after=3)

        found: list[Any] = await asyncio.gather(*(together.wait("a", work) for _ in range(3)), return_exceptions=True)
        found[0].request_id = "first"
        found[0].headers["a"] = "b"
        assert [each.request_id for each in found] == ["first", "", ""]
        assert [(each.reason, each.hint, each.retry_after, each.headers) for each in found[1:]] == [
            ("too many", "wait", 3, {})
        ] * 2

    asyncio.run(main())


def test_who_goes_takes_the_work_of_nobody_else_along():
    async def main() -> None:
        together: Together[str, int] = Together()
        may = asyncio.Event()

        async def work() -> int:
            await may.wait()
            return 7

        waiting = [asyncio.create_task(together.wait("a", work)) for _ in range(2)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
        may.set()
        assert await waiting[1] == 7
        assert waiting[0].cancelled()

    asyncio.run(main())


def test_work_goes_on_to_its_end_when_all_have_gone_and_its_failure_is_no_news():
    async def main() -> list[str]:
        logged, ended = list[str](), list[str]()
        asyncio.get_running_loop().set_exception_handler(lambda _loop, about: logged.append(about["message"]))
        together: Together[str, int] = Together()
        may = asyncio.Event()

        async def work() -> int:
            await may.wait()
            ended.append("work")
            raise RateLimited("too many", "wait")

        waiting = [asyncio.create_task(together.wait("a", work)) for _ in range(2)]
        await asyncio.sleep(0)
        for each in waiting:
            each.cancel()
        await asyncio.wait(waiting)
        may.set()
        await together.settle(5)
        await asyncio.sleep(0)
        gc.collect()
        assert (ended, len(together)) == (["work"], 0)
        return logged

    assert asyncio.run(main()) == []


def test_turns_come_one_by_one_also_past_who_goes_or_fails_and_none_is_kept():
    async def main() -> None:
        turns: OneByOne[str] = OneByOne()
        done: list[int] = []
        under_way = 0

        async def take(number: int) -> None:
            nonlocal under_way
            async with turns.turn("a"):
                assert not under_way
                under_way += 1
                await asyncio.sleep(0)
                under_way -= 1
                done.append(number)
                if number == 1:
                    raise ValueError

        waiting = [asyncio.create_task(take(number)) for number in range(4)]
        await asyncio.sleep(0)
        waiting[2].cancel()
        async with turns.turn("b"):  # another key waits for nobody
            assert len(turns) == 2
        await asyncio.wait(waiting[:2])
        waiting.append(asyncio.create_task(take(4)))  # while one is waiting
        await asyncio.wait(waiting)
        assert (done, len(turns)) == ([0, 1, 3, 4], 0)

    asyncio.run(main())


def test_who_comes_as_the_work_ends_begins_their_own():
    async def main() -> None:
        together: Together[str, int] = Together()
        later: list[asyncio.Task[int]] = []
        number = 0

        async def work() -> int:
            nonlocal number
            number += 1
            if number == 1:  # before the loop has told anybody that this has ended
                later.append(asyncio.create_task(together.wait("a", work)))
            return number

        assert await together.wait("a", work) == 1
        assert await later[0] == 2

    asyncio.run(main())


def test_calls_whose_name_cannot_be_resolved_have_errors_of_their_own(monkeypatch: pytest.MonkeyPatch):
    async def main() -> None:
        resolver = Resolver()
        monkeypatch.setattr(resolver, "_start_lookups", lambda: resolver._refuse(("", "a.example.com")))
        found = await asyncio.gather(*(resolver.resolve("a.example.com") for _ in range(2)), return_exceptions=True)
        assert all(isinstance(each, UpstreamUnreachable) for each in found)
        assert found[0] is not found[1]

    asyncio.run(main())


def test_a_copy_of_an_error_is_of_its_kind_and_says_the_same():
    error = RateLimited("reason", "hint", retry_after=4)
    assert (type(own(error)), str(own(error)), own(error).retry_after) == (RateLimited, "reason: hint", 4)

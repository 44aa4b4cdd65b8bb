"""Work that many wait for: each has an error of their own, who goes takes nothing along, what has ended begins anew."""

import asyncio
from typing import Any

import pytest

from keyhole.core.errors import RateLimited, UpstreamUnreachable, own
from keyhole.net.resolve import Resolver
from keyhole.net.together import Together


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

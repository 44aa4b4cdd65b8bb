"""Work that goes on by itself: it is held, waited for to its end, stopped, and its failure is told once or heard."""

import asyncio
import contextlib
import gc
import weakref

import pytest

from keyhole.net.tasks import Tasks, heard, to_its_end


def test_a_task_is_held_until_it_ends():
    async def main() -> None:
        tasks, never = Tasks(), weakref.WeakSet[asyncio.Future[None]]()

        async def work() -> int:
            waiter = asyncio.get_running_loop().create_future()
            never.add(waiter)
            return await waiter

        tasks.begin(work())
        await asyncio.sleep(0)
        gc.collect()
        [waiter] = never  # held by nobody but the task
        waiter.set_result(None)
        del waiter
        await tasks.settle()
        gc.collect()
        assert (len(tasks), len(never)) == (0, 0)

    asyncio.run(main())


def test_what_is_begun_while_the_last_task_ends_is_waited_for_too():
    async def main() -> None:
        tasks, done = Tasks(), list[int]()

        async def work(number: int) -> None:
            await asyncio.sleep(0)
            if number:
                tasks.begin(work(number - 1))
            done.append(number)

        tasks.begin(work(2))
        await tasks.settle()
        assert done == [2, 1, 0]

    asyncio.run(main())


def test_the_end_stops_what_does_not_end_by_itself_and_waits_for_it():
    async def main() -> None:
        tasks, ended = Tasks(), list[str]()

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                ended.append("stopped")

        async def quick() -> None:
            await asyncio.sleep(0)
            ended.append("by itself")

        tasks.begin(quick())
        await tasks.end(5)
        tasks.begin(work())
        await asyncio.sleep(0)
        await tasks.end()
        assert ended == ["by itself", "stopped"]

    asyncio.run(main())


def test_work_is_waited_for_to_its_end_however_often_who_waits_is_cancelled():
    async def main() -> None:
        work: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        waiting = asyncio.create_task(to_its_end(work))
        for _ in range(3):
            await asyncio.sleep(0)
            waiting.cancel()
        await asyncio.sleep(0)
        assert not waiting.done()
        work.set_exception(ValueError("nobody hears of it"))
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(main())


def test_what_comes_of_work_comes_to_who_waits_for_its_end():
    async def main() -> None:
        loop = asyncio.get_running_loop()
        good, bad, gone = (loop.create_future() for _ in range(3))
        loop.call_soon(good.set_result, 7)
        loop.call_soon(bad.set_exception, ValueError("it failed"))
        loop.call_soon(gone.cancel)
        assert await to_its_end(good) == 7
        with pytest.raises(ValueError, match="it failed"):
            await to_its_end(bad)
        with pytest.raises(asyncio.CancelledError):
            await to_its_end(gone)

    asyncio.run(main())


@pytest.mark.parametrize("hears", [True, False])
def test_a_failure_that_was_heard_is_not_logged_as_forgotten(hears: bool):
    async def main() -> list[str]:
        logged = list[str]()
        asyncio.get_running_loop().set_exception_handler(lambda _loop, about: logged.append(about["message"]))

        async def fail() -> None:
            raise ValueError("it failed")

        task = asyncio.get_running_loop().create_task(fail())
        if hears:
            task.add_done_callback(heard)
        await asyncio.wait([task])
        del task
        gc.collect()
        return logged

    assert asyncio.run(main()) == ([] if hears else ["Task exception was never retrieved"])


def test_a_cancelled_task_can_be_heard():
    async def main() -> None:
        task = asyncio.create_task(asyncio.Event().wait())
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        heard(task)

    asyncio.run(main())

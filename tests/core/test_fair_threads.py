"""Work in threads: whose turn it is, and that nothing of it is lost."""

import asyncio
import random
import threading

import pytest

from keyhole.core.errors import RateLimited
from keyhole.core.fair import ASKING
from keyhole.process import threads
from keyhole.process.threads import FairThreads


def within(executor: FairThreads, org: str, work, *args):
    token = ASKING.set((org, "agent"))
    try:
        return executor.submit(work, *args)
    finally:
        ASKING.reset(token)


def test_an_org_that_fills_all_its_threads_leaves_the_rest_to_others():
    hold = threading.Event()
    with FairThreads(4) as executor:
        held = [within(executor, "flood", hold.wait, 30) for _ in range(50)]
        assert within(executor, "quiet", lambda: "done").result(30) == "done"
        assert within(executor, "", lambda: "ours").result(30) == "ours"
        hold.set()
        assert all(each.result(30) for each in held)


def test_what_waits_is_taken_from_each_org_in_turn():
    hold, order = threading.Event(), []
    with FairThreads(1) as executor:
        first = within(executor, "flood", hold.wait, 30)
        jobs = [within(executor, org, order.append, org) for org in ("flood", "flood", "flood", "quiet")]
        hold.set()
        for job in (first, *jobs):
            job.result(30)
    assert order.index("quiet") <= 1


def test_a_job_that_there_is_no_room_for_is_refused(monkeypatch):
    monkeypatch.setattr(threads, "_EACH", 2)
    hold = threading.Event()
    with FairThreads(1) as executor:
        first = within(executor, "flood", hold.wait, 30)
        while not first.running():
            first.cancelled()
        jobs = [within(executor, "flood", int) for _ in range(3)]
        with pytest.raises(RateLimited, match="waits"):
            jobs[2].result(30)
        hold.set()
        assert [job.result(30) for job in jobs[:2]] == [0, 0]


def test_faults_and_cancelled_jobs_keep_no_thread():
    def broken():
        raise ValueError("this job is broken")

    with FairThreads(2) as executor:
        dice = random.Random(5)
        jobs = []
        for number in range(300):
            org = dice.choice(["a", "b", ""])
            jobs.append(within(executor, org, broken) if number % 3 else within(executor, org, int))
            if number % 5 == 0:
                jobs[-1].cancel()
        for job in jobs:
            assert job.cancelled() or str(job.exception(30) or "this one went well").startswith("this")
        assert within(executor, "a", lambda: 1).result(30) == 1
    assert not executor._running
    assert not len(executor._jobs)


def test_an_event_loop_hands_in_work_in_the_name_of_who_asked():
    async def main() -> None:
        executor = FairThreads(2)
        asyncio.get_running_loop().set_default_executor(executor)
        hold = threading.Event()
        ASKING.set(("flood", "agent"))
        held = [asyncio.create_task(asyncio.to_thread(hold.wait, 30)) for _ in range(8)]
        await asyncio.sleep(0)
        ASKING.set(("quiet", "agent"))
        assert await asyncio.to_thread(lambda: "done") == "done"
        hold.set()
        assert all(await asyncio.gather(*held))

    asyncio.run(main())

"""``kh.context``: what a program says of its work, in tasks and threads, and what the environment says for it."""

import asyncio
import threading

import pytest

from keyhole.client.context import context, current, of_environment, said
from keyhole.client.core import Result, build
from keyhole.client.leasing import Lease
from keyhole.core.errors import InvalidRequest

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture(autouse=True)
def nothing_around(monkeypatch):
    for name in ("KEYHOLE_WORKFLOW", "KEYHOLE_RUN", "KEYHOLE_STEP", "KEYHOLE_TOOL", "TRACEPARENT"):
        monkeypatch.delenv(name, raising=False)


def claims():
    found = current()
    return found and dict(found.claims)


def test_blocks_nest_and_end():
    assert current() is None
    with context(workflow="w", run="1"):
        with context(step="a", run="2"):
            assert claims() == {"workflow": "w", "run": "2", "step": "a"}
        assert claims() == {"workflow": "w", "run": "1"}
        with pytest.raises(RuntimeError), context(step="b"):
            raise RuntimeError
        assert claims() == {"workflow": "w", "run": "1"}
    assert current() is None


def test_tasks_do_not_see_one_another_and_threads_see_who_started_them():
    async def step(name):
        with context(step=name):
            await asyncio.sleep(0)
            return claims(), await asyncio.to_thread(claims)

    async def main():
        with context(run="1"):
            return await asyncio.gather(step("a"), step("b"))

    found = asyncio.run(main())
    assert found == [({"run": "1", "step": name},) * 2 for name in "ab"]


def test_what_is_renewed_in_the_background_is_for_the_work_that_leased_it():
    renewed = threading.Event()
    heard = []

    class Transport:
        def ask(self, operation, path, data):
            heard.append((operation, claims()))
            if operation == "update":
                renewed.set()
            return Result({"password": "x"}, lease_id="database/creds/a/1", lease_duration=1, renewable=True)

        def close(self):
            pass

    with context(run="4711"):
        lease = Lease(Transport(), "/database/creds/a", grace=0.0)
        lease.start()
    assert renewed.wait(30)
    lease.stop()
    assert heard[:2] == [("read", {"run": "4711"}), ("update", {"run": "4711"})]


def test_the_environment_speaks_where_the_program_does_not(monkeypatch):
    monkeypatch.setenv("KEYHOLE_RUN", "of-ci")
    monkeypatch.setenv("TRACEPARENT", PARENT)
    with context(step="a"):
        assert claims() == {"run": "of-ci", "step": "a"}
        assert str(current().trace) == PARENT
        assert said().trace is None
    assert str(of_environment({"TRACEPARENT": PARENT}).trace) == PARENT
    assert of_environment({"TRACEPARENT": "what"}) is None
    with pytest.raises(InvalidRequest):
        of_environment({"KEYHOLE_RUN": "a\nb"})


def test_what_is_said_is_one_header_that_no_text_breaks_out_of():
    with context(run="a;step=b\u00e4"):
        wire = build("read", "x", {}, stated={"X-Keyhole-Context": current().header()})
    assert wire.headers["X-Keyhole-Context"] == "run=a%3Bstep%3Db%C3%A4"
    for text in ("x" * 201, "a\r\nb"):
        with pytest.raises(InvalidRequest), context(run=text):
            pass

"""Many calls wait for the same work. One that comes in the moment when it has just ended must not stop the loop."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from keyhole.broker import upstream
from keyhole.broker.connections import Origin, Speaks
from keyhole.broker.tripwires import Tripwires, Wires
from keyhole.core.errors import UpstreamUnreachable
from keyhole.scrub import Scrubber


@pytest.fixture
def bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for what has ended returns at once: whoever does so over and over would never be interrupted."""
    shield, left = asyncio.shield, [100]

    def counted(work: Any) -> Any:
        left[0] -= 1
        assert left[0] > 0, "this waits for what has ended, over and over"
        return shield(work)

    monkeypatch.setattr(asyncio, "shield", counted)


@pytest.mark.usefixtures("bounded")
def test_a_call_after_a_change_that_comes_as_the_values_of_before_were_read_goes_on() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        tripwires, later = Tripwires(), list[asyncio.Task[Any]]()
        vault: Any = None

        def state(epoch: int) -> Any:
            return SimpleNamespace(epoch=epoch, org=SimpleNamespace(id="acme"))

        async def arm(_vault: Any, found: Any) -> None:
            tripwires._wires["acme"] = Wires(found.epoch, Scrubber.compile([]), {}, frozenset())
            if found.epoch == 1:  # the next call comes before the loop has told anyone that this has ended
                later.append(loop.create_task(tripwires.learn(vault, state(2))))

        tripwires._arm = arm  # type: ignore[method-assign]
        await tripwires.learn(vault, state(1))
        await later[0]
        assert tripwires._wires["acme"].epoch == 2
        await asyncio.sleep(0)
        assert not tripwires._arming

    asyncio.run(main())


@pytest.mark.usefixtures("bounded")
def test_a_call_that_comes_as_a_connection_to_its_upstream_has_just_failed_makes_its_own() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        dialer: Any = None
        pool = upstream.Pool(dialer, pytest.fail)
        origin = Origin(("acme", "api"), "https", "api.example.com", 443)
        pool._known.of(origin).http2 = True
        later, dialled = list[asyncio.Task[Any]](), []

        def opened() -> asyncio.Task[Any]:
            return loop.create_task(pool.open(origin, pytest.fail, None, Speaks.EITHER))  # type: ignore[arg-type]

        async def dial(*_: Any) -> Any:
            dialled.append(1)
            await asyncio.sleep(0)
            if len(dialled) == 1:
                later.append(opened())
            raise UpstreamUnreachable("the upstream is away")

        pool.dial = dial  # type: ignore[method-assign]
        for call in (opened(), None):
            with pytest.raises(UpstreamUnreachable):
                await (call or later[0])
        assert len(dialled) == 2
        await asyncio.sleep(0)
        assert not pool._opening

    asyncio.run(main())


def test_calls_that_wait_for_a_connection_that_fails_try_for_themselves_at_the_same_time() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        dialer: Any = None
        pool = upstream.Pool(dialer, pytest.fail)
        origin = Origin(("acme", "api"), "https", "api.example.com", 443)
        pool._known.of(origin).http2 = True
        dialled = list[asyncio.Future[Any]]()

        async def dial(*_: Any) -> Any:
            dialled.append(loop.create_future())
            return await dialled[-1]

        pool.dial = dial  # type: ignore[method-assign]
        calls = [
            loop.create_task(pool.open(origin, pytest.fail, None, Speaks.EITHER))  # type: ignore[arg-type]
            for _ in range(5)
        ]
        for trying in (1, 5):
            for _ in range(10):
                await asyncio.sleep(0)
            assert len(dialled) == trying
            for each in dialled:
                if not each.done():
                    each.set_exception(UpstreamUnreachable("the upstream is away"))
        for failed in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(failed, UpstreamUnreachable)

    asyncio.run(main())

"""One connection: who is held back, when, and for how long."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from keyhole.net.http1.wire import HIGH_WATER, Wire, WireGroup


class _Transport:
    def __init__(self) -> None:
        self.reading = True

    def set_write_buffer_limits(self, high: int) -> None: ...

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True


def _wire() -> tuple[Wire, _Transport]:
    wire, transport = Wire(WireGroup(asyncio.get_running_loop(), 1.0)), _Transport()
    wire.connection_made(cast("Any", transport))
    return wire, transport


async def _take(wire: Wire, taken: list[bytes]) -> None:
    await wire.wait()
    taken.append(wire.buffer)
    wire.buffer = b""


async def _steps() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


def test_much_at_once_goes_to_its_reader_before_more_is_read() -> None:
    async def main() -> None:
        wire, transport = _wire()
        taken: list[bytes] = []
        reader = asyncio.create_task(_take(wire, taken))
        await _steps()
        wire.data_received(b"x" * HIGH_WATER)
        assert not transport.reading
        await _steps()
        assert transport.reading, "a peer that hangs up has to be noticed although nobody reads"
        assert taken == [b"x" * HIGH_WATER]
        await reader

    asyncio.run(main())


def test_a_reader_that_takes_nothing_holds_its_sender_back() -> None:
    async def main() -> None:
        wire, transport = _wire()
        waiting = wire.wait()
        wire.data_received(b"x" * HIGH_WATER)
        await waiting
        await _steps()
        assert not transport.reading
        wire.buffer = b""
        wire.wait()
        assert transport.reading

    asyncio.run(main())


def test_little_is_read_on_while_its_reader_is_being_woken() -> None:
    async def main() -> None:
        wire, transport = _wire()
        waiting = wire.wait()
        wire.data_received(b"x" * (HIGH_WATER - 1))
        assert transport.reading
        wire.data_received(b"x")
        assert not transport.reading
        await waiting

    asyncio.run(main())

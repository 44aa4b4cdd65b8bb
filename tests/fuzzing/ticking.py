"""An event loop without a clock or a socket: time passes when nothing else is to be done, and a loop that waits for
ever says so."""

import asyncio
import logging
import selectors
from contextlib import contextmanager, suppress

from keyhole.net.http1.wire import WireGroup


class Stuck(AssertionError):
    """Everybody waits, and nothing will come."""


class _Nothing(selectors.SelectSelector):
    """Waits for nobody: it lets the time pass instead."""

    now = 0.0

    def select(self, timeout=None):
        if timeout is None:
            raise Stuck("somebody waits for ever")
        self.now += max(0.0, timeout)
        return []


class Loop(asyncio.SelectorEventLoop):
    """A loop whose time is that of its timers. What ends in nobody's hands is an error."""

    def __init__(self):
        self.nothing = _Nothing()
        super().__init__(self.nothing)
        self.faults = []
        self.set_exception_handler(lambda _loop, context: self.faults.append(context.get("exception") or context))

    def time(self):
        return self.nothing.now


class Pipe(asyncio.Transport):
    """A transport to nowhere, which keeps what was written."""

    def __init__(self, protocol):
        super().__init__()
        self.protocol = protocol
        self.written = bytearray()
        self.reading = True
        self.gone = False

    def write(self, data):
        if not self.gone:
            self.written += data

    def set_protocol(self, protocol):
        self.protocol = protocol

    def is_closing(self):
        return self.gone

    def close(self):
        if not self.gone:
            self.gone = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close

    def can_write_eof(self):
        return True

    def write_eof(self):
        pass

    def set_write_buffer_limits(self, high=None, low=None):
        pass

    def pause_reading(self):
        self.reading = False

    def resume_reading(self):
        self.reading = True


class _Said(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append(record.getMessage())


@contextmanager
def loop():
    """A loop for one input. At its end nothing may be left, and nothing may have gone wrong in secret."""
    made, said, log = Loop(), _Said(), logging.getLogger("keyhole")
    before = log.propagate
    log.addHandler(said)
    log.propagate = False
    try:
        yield made
        left = asyncio.all_tasks(made)
        assert not left, f"tasks are left: {left}"
        if made.faults:
            raise AssertionError("an error in nobody's hands") from made.faults[0]
        assert not said.lines, f"it went wrong: {said.lines}"
    finally:
        if left := asyncio.all_tasks(made):
            for task in left:
                task.cancel()
            with suppress(Stuck):
                made.run_until_complete(asyncio.wait(left))
        log.removeHandler(said)
        log.propagate = before
        made.close()


def group():
    """What wires share, in the running loop."""
    return WireGroup(asyncio.get_running_loop(), 1.0)

"""Ends a PostgreSQL of the tests once whoever started it is gone, however that ended.

Run as a program: the argument is the server's folder, and the end of standard input the sign. The pipe's other end is
held by the tests alone, so it closes also when they are killed.
"""

import contextlib
import os
import select
import shutil
import signal
import sys
import time
from pathlib import Path

_STARTING = 15.0  # seconds in which a server that was being started must have said its number


def postmaster(folder):
    """The number of the server's process; ``None`` while it has not said one."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        return int(Path(folder, "data", "postmaster.pid").read_text().split()[0])
    return None


def end(folder):
    """Shut the server down at once, and remove what it stored."""
    deadline = time.monotonic() + _STARTING
    while (pid := postmaster(folder)) is None and Path(folder).exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(pid)
            signal.pidfd_send_signal(handle, signal.SIGQUIT)
            select.select([handle], [], [], _STARTING)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.stdin.buffer.read()
    end(sys.argv[1])

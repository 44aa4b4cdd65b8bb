"""The process from which the launchers of servers' programs are forked, so that none is started from files.

A program may write to the files of the user who runs the gateway, those of an interpreter and of Keyhole among them,
and move directories above them away. What starts the next program has its credentials and is not shut in, so it must
not come from there: this process is started before the first program, loads all that a launcher needs, and nothing
later.

Run as ``python -I -S -c START`` with a socket, whose other end is ``launched``. Each request is one byte, with four
descriptors for ``LAUNCH`` (the three streams and the launcher's socket), or followed by a process for ``KILL``.
``LAUNCH`` is answered with the process, 0 where there is none. Numbers have eight bytes.
"""

from __future__ import annotations

import encodings.ascii
import encodings.idna
import encodings.latin_1  # noqa: F401  # codecs are loaded by their names
import os
import resource  # noqa: F401  # what a launcher loads late
import signal
import socket
import sys
from contextlib import suppress

from keyhole.faces.mcp.gateway import launcher
from keyhole.process import linux, sandbox

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

START = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from keyhole.faces.mcp.gateway.forkserver import main; main(sys.argv[2])"
)
LAUNCH, KILL = b"l", b"k"
NUMBER = 8  # bytes
_GIVEN = 4  # descriptors


def main(descriptor: str) -> NoReturn:
    """Serve the socket with this number until its other end is closed; ends the process."""
    control = socket.socket(fileno=int(descriptor))
    control.set_inheritable(False)
    sys.path[:] = []
    sys.meta_path[:] = []
    if sys.platform == "linux":
        sandbox.close_to_debuggers()
    alive: set[int] = set()
    signal.signal(signal.SIGCHLD, lambda *_: _reap(alive))
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, 1, _GIVEN)
        if request == LAUNCH:
            control.sendall(_launched(control, descriptors, alive).to_bytes(NUMBER))
        elif request == KILL:
            process = int.from_bytes(control.recv(NUMBER, socket.MSG_WAITALL))
            if process in alive:  # else the number may be somebody else's by now
                os.kill(process, signal.SIGKILL)
        else:
            os._exit(0)


def _reap(alive: set[int]) -> None:
    with suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG)[0]) != 0:
            alive.discard(ended)


def _launched(control: socket.socket, descriptors: list[int], alive: set[int]) -> int:
    """The process of a new launcher; 0 where the system has none to give."""
    process = 0
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD,))  # it is known before it can be reaped
    try:
        if len(descriptors) == _GIVEN:
            with suppress(OSError):
                process = os.fork()
                if process == 0:
                    _become(control, descriptors)
                alive.add(process)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD,))
    for each in descriptors:
        os.close(each)
    return process


def _become(control: socket.socket, descriptors: list[int]) -> NoReturn:
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGCHLD,))
        control.close()
        os.setsid()
        *streams, lifeline = descriptors
        for number, each in enumerate(streams):
            os.dup2(each, number)
            os.close(each)
        if sys.platform == "linux":
            linux.prctl(linux.PR_SET_DUMPABLE, 1)  # else it could not write the maps of a user namespace
        launcher.main(str(lifeline))
    finally:
        os._exit(1)

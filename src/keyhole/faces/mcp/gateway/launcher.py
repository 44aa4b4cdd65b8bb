"""The process between the gateway and a server's program: none of the program's outlives either of them.

Run as ``python -I -S -c START`` with the reading end of a pipe, on which the gateway sends one line of JSON and keeps
the other end open. When that end closes, whatever ended the gateway, everything that the program has started is killed:
what it left behind becomes our child (``PR_SET_CHILD_SUBREAPER``). The program's environment goes through the pipe, so
that it is in no environment but its own.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

START = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from keyhole.faces.mcp.gateway.launcher import main; main(sys.argv[2])"
)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_NOT_FOUND = 127
_LONGEST = 4 * 1024 * 1024


def main(descriptor: str) -> NoReturn:
    """Serve the plan that comes through the pipe with this number; ends the process."""
    lifeline = int(descriptor)
    os.set_inheritable(lifeline, False)  # noqa: FBT003  # the function takes nothing else
    plan = _read(lifeline)
    waking, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    child = os.fork()
    if child == 0:
        _become(plan)
    for own in (0, 1):  # so that the gateway sees the program close them
        os.close(own)
    code = _wait(child, lifeline, waking)
    _end_all(child)
    os._exit(code)


def _read(lifeline: int) -> dict[str, Any]:
    text = bytearray()
    while not text.endswith(b"\n"):
        piece = os.read(lifeline, 65536)
        if not piece or len(text) > _LONGEST:
            os._exit(125)
        text += piece
    plan: dict[str, Any] = json.loads(text)
    return plan


def _become(plan: dict[str, Any]) -> NoReturn:
    try:
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        _no_core()
        os.execvpe(plan["argv"][0], plan["argv"], plan["env"])  # noqa: S606  # an administrator named it
    except OSError as error:
        os.write(2, f"keyhole: the program cannot be started: {error.strerror}\n".encode())
    finally:
        os._exit(_NOT_FOUND)


def _wait(child: int, lifeline: int, waking: int) -> int:
    """Until the program has ended, or we are told to end it."""
    while True:
        ready, _, _ = select.select([lifeline, waking], [], [])
        if lifeline in ready and not os.read(lifeline, 4096):
            return 128 + signal.SIGKILL
        if waking in ready and set(os.read(waking, 4096)) & {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}:
            return 128 + signal.SIGTERM
        while True:
            try:
                ended, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return 0
            if not ended:
                break
            if ended == child:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code


def _end_all(child: int) -> None:
    """Kill everything below us; what loses its parent becomes our child and is next."""
    _kill(-child)
    while True:
        for pid in _children():
            _kill(pid)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:  # noqa: PTH123  # no pathlib here
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415  # Linux only

        ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0)


def _no_core() -> None:
    import resource  # noqa: PLC0415  # POSIX only

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

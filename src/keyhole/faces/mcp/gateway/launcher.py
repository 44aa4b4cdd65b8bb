"""The process between the gateway and a server's program: none of the program's outlives either of them.

Forked by ``forkserver`` with a socket, on which the gateway sends one line of JSON, is answered one, and then keeps its
end open. When that closes, whatever ended the gateway, everything that the program has started is killed:
what it left behind becomes our child (``PR_SET_CHILD_SUBREAPER``), or lies in a pid namespace that ends. The program's
environment goes through the socket, so that it is in no environment but its own.

Each way of shutting the program in is tried in a process of its own, because a namespace once entered cannot be left.
With a pid namespace there is one more, process 1 inside, which reaps and watches in our place.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys

from keyhole.faces.mcp.gateway import watch
from keyhole.process import sandbox

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_NOT_FOUND, _OWN = 127, 125
_LONGEST = 4 * 1024 * 1024
_TOLD = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(descriptor: str) -> NoReturn:
    """Serve the plan that comes through the socket with this number; ends the process."""
    lifeline = socket.socket(fileno=int(descriptor))
    lifeline.set_inheritable(False)
    plan = _read(lifeline)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    refusals: list[str] = []
    for mode in plan["modes"]:
        child, said = _start(plan, mode)
        if "unavailable" not in said:
            break
        refusals.append(f"{mode}: {said['unavailable']}")
    else:
        _say(lifeline, {"refused": "; ".join(refusals)})
        os._exit(_OWN)
    watching = plan["memory"] if not sandbox.has_pid_namespace(mode) else 0
    del plan
    if sys.platform == "linux":
        sandbox.close_to_debuggers()
    _say(lifeline, {"sandbox": mode, "missing": said["missing"], "tried": refusals})
    for own in (0, 1):  # so that the gateway sees the program close them
        os.close(own)
    code = _wait(child, watching, lifeline)
    _end_all(child)
    os._exit(code)


def _read(lifeline: socket.socket) -> dict[str, Any]:
    text = bytearray()
    while not text.endswith(b"\n"):
        piece = lifeline.recv(65536)
        if not piece or len(text) > _LONGEST:
            os._exit(_OWN)
        text += piece
    plan: dict[str, Any] = json.loads(text)
    return plan


def _say(lifeline: socket.socket, what: dict[str, Any]) -> None:
    try:
        lifeline.sendall(json.dumps(what).encode() + b"\n")
    except OSError:
        os._exit(_OWN)  # nobody is there any more; the program goes with us


def _start(plan: dict[str, Any], mode: str) -> tuple[int, dict[str, Any]]:
    """Try one way of shutting the program in; the process that becomes it, and what that says before it does."""
    hear, word = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(hear)
        _shut_in(plan, mode, word)
    os.close(word)
    text = b""
    while piece := os.read(hear, 65536):
        text += piece
    os.close(hear)
    said: dict[str, Any] = json.loads(text) if text else {"unavailable": "it ended"}
    if "unavailable" in said:
        os.waitpid(child, 0)
    return child, said


def _shut_in(plan: dict[str, Any], mode: str, word: int) -> NoReturn:
    said: dict[str, Any] = {"unavailable": "it ended"}
    try:
        sandbox.enter(mode)
        if sandbox.has_pid_namespace(mode):
            _go_inside(word)
        named = [*plan["argv"], *plan["env"].values()]
        missing = sandbox.furnish(mode, plan["vault"], plan["others"], named=named, code=plan["code"])
        said = {"unavailable": "; ".join(missing)} if missing and plan["whole"] else {"missing": missing}
    except sandbox.Unavailable as refusal:
        said = {"unavailable": str(refusal)}
    except OSError as error:
        said = {"unavailable": error.strerror or str(error)}
    finally:
        os.write(word, json.dumps(said).encode())
        os.close(word)
        if "unavailable" in said:
            os._exit(_OWN)
    if not sandbox.has_pid_namespace(mode):
        _become(plan, mode)
    sandbox.close_to_debuggers()
    child = os.fork()
    if child == 0:
        _become(plan, mode)
    for own in (0, 1):
        os.close(own)
    os._exit(_wait(child, plan["memory"], None))  # and the kernel ends all that is left in the namespace


def _go_inside(word: int) -> None:
    """Go on as process 1 of the new pid namespace; whoever was before waits for it, and ends it by ending."""
    inner = os.fork()
    if inner == 0:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        return
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    sandbox.close_to_debuggers()
    os.close(word)
    for own in (0, 1):
        os.close(own)
    _, status = os.waitpid(inner, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _become(plan: dict[str, Any], mode: str) -> NoReturn:
    try:
        os.setpgid(0, 0)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, *_TOLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        try:
            os.chdir(os.getcwd())  # noqa: PTH109  # by its path: the old reference would lead below the mounts
        except OSError:
            os.chdir("/")
        sandbox.lock(mode)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # after the capabilities: a change of credentials clears it
        watch.limit(plan["memory"])
        os.execvpe(plan["argv"][0], plan["argv"], plan["env"])  # noqa: S606  # an administrator named it
    except OSError as error:
        os.write(2, f"keyhole: the program cannot be started: {error.strerror}\n".encode())
    finally:
        os._exit(_NOT_FOUND)


def _wait(child: int, memory: int, lifeline: socket.socket | None) -> int:
    """Until the program has ended, or takes too much, or we are told to end it."""
    waking, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    for number in (signal.SIGCHLD, *_TOLD):
        signal.signal(number, lambda *_: None)
    watched = [waking, *([lifeline.fileno()] if lifeline is not None else [])]
    pause = 0.0
    while True:
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
        if memory:
            pause, excess = watch.look(memory)
            if excess:
                os.write(2, f"keyhole: {excess}, and was ended\n".encode())
                return 128 + signal.SIGKILL
        ready, _, _ = select.select(watched, [], [], pause or None)
        if lifeline is not None and lifeline.fileno() in ready and not lifeline.recv(4096):
            return 128 + signal.SIGKILL
        if waking in ready and set(os.read(waking, 4096)) & set(_TOLD):
            return 128 + signal.SIGTERM


def _end_all(child: int) -> None:
    """Kill everything below us; what loses its parent becomes our child and is next."""
    watch.kill(-child)
    while True:
        for pid in watch.below():
            watch.kill(pid)
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415  # Linux only

        ctypes.CDLL(None).prctl(option, ctypes.c_ulong(value), 0, 0, 0)

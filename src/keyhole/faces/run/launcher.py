"""The process between ``keyhole run`` and the command: enters the sandbox, starts it, passes signals on.

Run as ``python -I -S -c START`` with a socket whose other end is ``child``; every message is a line of JSON.

1. ``child`` sends the plan.
2. We answer ``{"unavailable": why}`` and end, with ``"network": true`` where that alone cannot be shut, or
   ``{"sandbox": [missing, …]}``. Sockets of a network that was shut have gone through a second socket before.
3. ``child`` sends ``{"go": true}``, or closes.
4. ``{"stopped": signal}`` each time the command was stopped; at the end ``{"exit": code}``, or ``{"error": errno}``
   when the command could not be executed.

With a pid namespace there are two of us: the launcher, and process 1 inside, which reaps what the command leaves
behind and takes it all along when it ends.

Signals. Everybody stays in the process group of ``keyhole run``, so that job control and pipelines work as for any
command of the shell. What the terminal or a shell sends to the whole group has reached the command already, and
reaches us directly; what was sent to ``keyhole run`` alone comes from there by ``sigqueue``, which marks it
(``SI_QUEUE``). Only the latter is passed on, and not when the group had the same signal just before.

With ``apart`` the command has a terminal of its own, which is our stdin: the process that starts it leads the session
of that terminal, and the command the foreground group in it (a leader would be in an orphaned group, which no Ctrl-Z
stops). No signal of our own group reaches it then, so each one is passed on.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import time

from keyhole.process import linux, sandbox

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

START = "import sys; sys.path.insert(0, sys.argv[1]); from keyhole.faces.run.launcher import main; main(*sys.argv[2:])"

FORWARDED = tuple(
    getattr(signal, name)
    for name in (
        "SIGINT",
        "SIGTERM",
        "SIGHUP",
        "SIGQUIT",
        "SIGWINCH",
        "SIGUSR1",
        "SIGUSR2",
        "SIGTSTP",
        "SIGCONT",
    )
    if hasattr(signal, name)
)

_SAME_EVENT = 1.0  # seconds in which the group's copy and the one passed on are taken for one


def main(descriptor: str, handover: str = "") -> NoReturn:
    """Serve the plan that comes through the socket with this number; ends the process.

    Args:
        descriptor: of the socket for messages.
        handover: of the socket through which those of a network that was shut are handed over.
    """
    code = 125
    try:
        code = _launch(socket.socket(fileno=int(descriptor)), socket.socket(fileno=int(handover)) if handover else None)
    except (BrokenPipeError, ConnectionResetError, EOFError):
        pass  # keyhole run is gone, so nobody is waiting for the command
    finally:
        os._exit(code)


def _launch(channel: socket.socket, handover: socket.socket | None) -> int:
    channel.set_inheritable(False)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # an inherited SIG_IGN would reap before we could
    signal.pthread_sigmask(signal.SIG_BLOCK, {*FORWARDED, signal.SIGCHLD})
    sandbox.die_with_parent()
    lines = channel.makefile("rb", buffering=0)
    plan = json.loads(lines.readline() or b"null")
    if not plan or os.getppid() != plan["parent"]:
        raise EOFError
    mode = plan["mode"]
    try:
        sandbox.enter(mode)
    except sandbox.Unavailable as refusal:
        _send(channel, {"unavailable": str(refusal)})
        return 125
    if handover is not None:
        try:
            _shut(plan["network"], handover)
        except OSError as error:
            why = f"network namespaces are not allowed ({error.strerror or error})"
            _send(channel, {"unavailable": why, "network": True})
            return 125
    sandbox.close_to_debuggers()
    if not sandbox.has_pid_namespace(mode):
        code = _serve(channel, lines, plan)
    else:
        inner = os.fork()
        if inner == 0:
            sandbox.die_with_parent()
            os._exit(_guarded(channel, lines, plan))
        code = _supervise(inner, linux.sigqueue, lambda _number: None, apart=plan["apart"])
    _send(channel, {"exit": code})
    return code


def _shut(wanted: dict[str, Any], handover: socket.socket) -> None:
    from keyhole.faces.run.shut import shut  # noqa: PLC0415  # some commands keep the network

    sockets = shut(wanted)
    socket.send_fds(handover, [b"."], [each.fileno() for each in sockets])
    for each in (*sockets, handover):
        each.close()  # neither process 1 nor the command is to have them


def _guarded(channel: socket.socket, lines: Any, plan: dict[str, Any]) -> int:
    try:
        return _serve(channel, lines, plan)
    except (BrokenPipeError, ConnectionResetError, EOFError):
        return 125


def _serve(channel: socket.socket, lines: Any, plan: dict[str, Any]) -> int:
    """Furnish the sandbox, wait for the word, run the command; its exit code."""
    try:
        named = [plan["cwd"], *plan["argv"], *plan["env"].values(), *plan["sockets"]]
        missing = sandbox.furnish(
            plan["mode"], plan["vault"], plan["others"], plan["resolver"], named, plan["code"], plan["private"]
        )
    except sandbox.Unavailable as refusal:
        _send(channel, {"unavailable": str(refusal)})
        return 125
    _send(channel, {"sandbox": missing})
    if not lines.readline():
        raise EOFError
    if plan["apart"]:
        _lead_session()
    failure, failed = os.pipe()
    us = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(plan, us, failed)
    os.close(failed)
    said = os.read(failure, 64)
    os.close(failure)
    if said:
        step, number = said.decode().split()
        os.waitpid(pid, 0)
        _send(channel, {"error": int(number), "step": step})
        return 127 if int(number) in {errno.ENOENT, errno.ENOTDIR} else 126
    send = _send_to_group if plan["apart"] else os.kill
    return _supervise(pid, send, lambda number: _send(channel, {"stopped": number}), apart=plan["apart"])


def _lead_session() -> None:
    """Have the terminal that is our stdin control a session of our own."""
    import fcntl  # noqa: PLC0415  # few commands have a terminal of their own
    import termios  # noqa: PLC0415  # the same

    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _send_to_group(pid: int, number: int) -> None:
    """To the command; what goes on after Ctrl-Z are all that were stopped by it."""
    if number == signal.SIGCONT:
        os.killpg(pid, number)
    else:
        os.kill(pid, number)


def _become(plan: dict[str, Any], parent: int, failed: int) -> NoReturn:
    """Turn this process into the command; on failure tell the step and errno through ``failed``."""
    step = "chdir"
    try:
        # By its path and only now: the old reference would lead below the mounts.
        os.chdir(_bytes(plan["cwd"]))
        step = "lock"
        sandbox.lock(plan["mode"], shut=plan["network"] is not None)
        sandbox.die_with_parent()  # after the capabilities: a change of credentials clears it
        if os.getppid() != parent:
            os._exit(125)
        if plan["apart"]:
            os.setpgid(0, 0)
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTTOU})
            os.tcsetpgrp(0, os.getpid())
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):  # those that Python takes for itself
            if number not in plan["ignored"]:
                signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, plan["mask"])
        step = "exec"
        _execute([_bytes(word) for word in plan["argv"]], {_bytes(k): _bytes(v) for k, v in plan["env"].items()})
    except OSError as error:
        os.write(failed, f"{step} {error.errno or errno.EIO}".encode())
    finally:
        os._exit(125)


def _execute(argv: list[bytes], env: dict[bytes, bytes]) -> None:
    """``execvpe``, with the rule of POSIX that a file without a magic number is a script for ``sh``."""
    name = argv[0]
    folders = [b""] if b"/" in name else (env.get(b"PATH") or os.defpath.encode()).split(b":")
    denied: OSError | None = None
    for folder in folders:
        path = os.path.join(folder, name)  # noqa: PTH118  # no pathlib on this path
        try:
            os.execve(path, argv, env)  # noqa: S606  # running the user's command is what we are for
        except OSError as error:
            if error.errno == errno.ENOEXEC:
                os.execve("/bin/sh", [b"sh", path, *argv[1:]], env)  # noqa: S606
            if error.errno not in {errno.ENOENT, errno.ENOTDIR}:
                denied = error
    raise denied or FileNotFoundError(errno.ENOENT, "not found")


def _supervise(pid: int, send: Callable[[int, int], None], stopped: Callable[[int], None], *, apart: bool) -> int:
    """Wait for ``pid``, passing signals on; its exit code, or 128 and the signal that ended it."""
    had_by_group: dict[int, float] = {}
    while True:
        while True:
            ended, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
            if ended == 0:
                break
            if ended == pid and os.WIFSTOPPED(status):
                stopped(os.WSTOPSIG(status))
            elif ended == pid:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
        event = signal.sigwaitinfo({*FORWARDED, signal.SIGCHLD})
        if event.si_signo == signal.SIGCHLD:
            continue
        now = time.monotonic()
        if event.si_code != linux.SI_QUEUE:
            had_by_group[event.si_signo] = now
            # A command with a group of its own has not had it. It is not left to the one that is passed on: of two that
            # are pending at once the system keeps the first. Its size it has from its own terminal.
            if apart and event.si_signo != signal.SIGWINCH:
                send(pid, event.si_signo)
        elif now - had_by_group.get(event.si_signo, -_SAME_EVENT) >= _SAME_EVENT:
            send(pid, event.si_signo)


def _send(channel: socket.socket, message: dict[str, Any]) -> None:
    channel.sendall(json.dumps(message).encode() + b"\n")


def _bytes(text: str) -> bytes:
    """The plan carries bytes as Latin-1, whatever encoding either process thinks its file names have."""
    return text.encode("latin-1")

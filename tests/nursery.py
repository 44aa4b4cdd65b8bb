"""Processes of `keyhole` that start in an eighth of the time: forked from one that has imported the program already.

`program(folder)` puts a command `keyhole` into a folder. Who runs it gets a process of its own with the same words,
environment, working directory, umask and open files, whose exit code and signals are passed on; all that it shares with
others is what Python made of the modules. That every command starts by itself too is for the real program to show:
leave to it, as `real`, whatever a test is the first to start.
"""

import array
import atexit
import contextlib
import gc
import importlib
import marshal
import os
import pkgutil
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Collection
from functools import cache
from pathlib import Path

KEYHOLE = Path(sys.executable).with_name("keyhole")
_SPARE = 1000  # numbers of open files from here on belong to nobody
_MOST_FILES = 100
_STREAMS = ((0, "r", "surrogateescape"), (1, "w", "surrogateescape"), (2, "w", "backslashreplace"))
# Without `site` and modules that are not built in it takes 15 ms.
_SHIM = """#!{python} -IS
import _signal, _socket, marshal, os, sys
words = sys.argv[1:]
real = {real}
asked = words or "_KEYHOLE_COMPLETE" in os.environ
if not asked or real.intersection((*words[:1], " ".join(words[:2]))) or os.isatty(0) or os.isatty(1):
    os.execv({keyhole}, [{keyhole}, *words])
files = []
for number in map(int, os.listdir("/proc/self/fd")):
    try:
        os.fstat(number)
    except OSError:
        continue
    files.append(number)
os.umask(mask := os.umask(0))
line = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
line.connect({address})
said = marshal.dumps((words, dict(os.environb), os.getcwd(), mask, files))
line.sendmsg([said], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, b"".join(n.to_bytes(4, sys.byteorder) for n in files))])
child = int(line.recv(100))
for number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP):
    if _signal.getsignal(number) != _signal.SIG_IGN:
        _signal.signal(number, lambda number, frame: os.kill(child, number))
code = int(line.recv(100))
if code < 0:
    _signal.signal(-code, _signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""


def program(folder: Path, *, real: Collection[str] = ()) -> Path:
    """Make the command in a folder. What is in `real`, by its first word or two, is left to the real program."""
    made = folder / "keyhole"
    said = {"real": frozenset(real), "keyhole": str(KEYHOLE), "address": _address()}
    made.write_text(_SHIM.format(python=sys.executable, **{name: repr(value) for name, value in said.items()}))
    made.chmod(0o700)
    return made


@cache
def _address() -> str:
    """Where the process listens that all others are forked from; it lives as long as this one."""
    address = str(Path(tempfile.mkdtemp(prefix="nursery-"), "line"))
    env = {name: value for name, value in os.environ.items() if not name.startswith(("KEYHOLE_", "VAULT_"))}
    process = subprocess.Popen(
        [sys.executable, __file__, address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=env,
        start_new_session=True,
    )
    atexit.register(process.communicate)  # an end of its input is its end
    assert process.stdout is not None
    assert process.stdout.readline(), "the nursery did not start"
    return address


def _import_all() -> None:
    import keyhole  # who only asks for the command needs none of it

    for found in pkgutil.walk_packages(keyhole.__path__, "keyhole."):
        with contextlib.suppress(ImportError):
            importlib.import_module(found.name)


def _serve(address: str) -> None:
    _import_all()
    gc.freeze()  # looking at them would copy their pages into each process
    assert threading.active_count() == 1, "a thread would not be there in a forked process"
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(address)
    listener.listen(100)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(0, selectors.EVENT_READ)
    children: dict[int, tuple[int, socket.socket]] = {}  # the file that tells of its end, and who waits for that
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            if key.fileobj is listener:
                _take(listener, selector, children)
            elif key.fileobj == 0:
                for pid in children:
                    os.kill(pid, signal.SIGKILL)
                shutil.rmtree(Path(address).parent)
                return
            else:
                _end(key.data, selector, children)


def _take(listener: socket.socket, selector: selectors.BaseSelector, children: dict[int, tuple[int, socket.socket]]):
    line, _ = listener.accept()
    numbers = array.array("i")
    said, more, _, _ = line.recvmsg(1 << 20, socket.CMSG_SPACE(_MOST_FILES * numbers.itemsize))
    if not said:  # who asked is gone
        line.close()
        return
    for _, _, data in more:
        numbers.frombytes(data)
    pid = os.fork()
    if pid == 0:
        _become(*marshal.loads(said), given=list(numbers))
    for number in numbers:
        os.close(number)
    told = os.pidfd_open(pid)
    children[pid] = told, line
    line.send(str(pid).encode())
    selector.register(told, selectors.EVENT_READ, pid)
    selector.register(line, selectors.EVENT_READ, pid)  # who waits says no more: it is gone


def _end(pid: int, selector: selectors.BaseSelector, children: dict[int, tuple[int, socket.socket]]):
    if pid not in children:
        return
    told, line = children.pop(pid)
    selector.unregister(told)
    selector.unregister(line)
    with contextlib.suppress(ProcessLookupError):
        if not _ended(told):
            os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    with contextlib.suppress(OSError):
        line.send(str(os.waitstatus_to_exitcode(status)).encode())
    line.close()
    os.close(told)


def _ended(told: int) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(told, selectors.EVENT_READ)
        return bool(selector.select(0))


def _become(words: list[str], env: dict[bytes, bytes], folder: str, mask: int, files: list[int], *, given: list[int]):
    """Be what was asked for, as if this process had been started so."""
    try:
        spare = range(_SPARE, _SPARE + len(given))
        for number, there in zip(given, spare, strict=True):
            os.dup2(number, there, inheritable=False)
        os.closerange(0, _SPARE)
        for there, number in zip(spare, files, strict=True):
            os.dup2(there, number)
            os.close(there)
        os.environb.clear()
        os.environb.update(env)
        time.tzset()
        os.chdir(folder)
        os.umask(mask)
        sys.argv = [str(KEYHOLE), *words]
        sys.stdin, sys.stdout, sys.stderr = (
            os.fdopen(number, mode, encoding="utf-8", errors=errors, closefd=False) if number in files else None
            for number, mode, errors in _STREAMS
        )
        from keyhole.__main__ import program

        program()
    except BaseException:  # noqa: BLE001  # a fault of this file is seen by whoever started the command
        traceback.print_exc()
    os._exit(70)


if __name__ == "__main__":
    _serve(sys.argv[1])

"""What a program and all that it started take of the machine, in the launcher: memory and processes are bounded.

A limit on address space (``RLIMIT_AS``) would stop runtimes that reserve much and use little, such as Node's, so what
is there in memory is counted, from ``/proc``. Between two looks one process is stopped by the limit on its writable
memory (``RLIMIT_DATA``, since Linux 4.7 private mappings too), which is twice as much, because a stack or a heap that
was made writable need not be used.
"""

from __future__ import annotations

import os
import signal

_PROCESSES = 512
_SELDOM, _OFTEN = 1.0, 0.1  # seconds between two looks
_COUNTED = (b"RssAnon:", b"RssShmem:", b"VmSwap:")  # files that are mapped cost nobody anything
_KIB = 1024


def limit(memory: int) -> None:
    """Bound this process, which is about to become the program: its memory, and no file with what was in it."""
    import resource  # noqa: PLC0415  # POSIX only

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if memory:
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        most = 2 * memory if hard == resource.RLIM_INFINITY else min(2 * memory, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def look(memory: int) -> tuple[float, str]:
    """Seconds until the next look, and what there is too much of; empty for nothing.

    Args:
        memory: bytes that everything below this process may take together.
    """
    found = below()
    if len(found) > _PROCESSES:
        return _OFTEN, f"the program has more than {_PROCESSES} processes"
    taken = sum(map(_taken, found))
    if taken > memory:
        return _OFTEN, f"the program takes more than {memory // _KIB**2} MiB of memory"
    return (_OFTEN if taken > memory // 2 else _SELDOM), ""


def below() -> list[int]:
    """The processes that descend from this one."""
    children: dict[int, list[int]] = {}
    try:
        names = os.listdir("/proc")  # noqa: PTH208  # no pathlib here: it costs more than the call
    except OSError:
        return []
    for name in names:
        if name.isdigit() and (stat := _read(f"/proc/{name}/stat")):
            # The name of a program may have spaces and parentheses; what follows the last one has none.
            parent = int(stat.rpartition(b")")[2].split()[1])
            children.setdefault(parent, []).append(int(name))
    found = [os.getpid()]
    for process in found:
        found += children.get(process, [])
    return found[1:]


def kill(process: int) -> None:
    """End one, or with a minus its group, if it is there."""
    try:
        os.kill(process, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _taken(process: int) -> int:
    lines = _read(f"/proc/{process}/status").splitlines()
    return sum(int(line.split()[1]) * _KIB for line in lines if line.startswith(_COUNTED))


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123  # as above
            return file.read()
    except OSError:
        return b""

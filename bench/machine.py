"""The machine: which core does what, what a process has cost, how fast the disk is."""

from __future__ import annotations

import os
import platform
import socket
import sys
import time
from pathlib import Path

_SCHEDULED = 2  # CPUCLOCK_SCHED: a clock of a whole process in nanoseconds, as clock_getcpuclockid(3) makes it


def cores() -> tuple[set[int], set[int]]:
    """The subject's core and the generator's; the same one where there is only one."""
    available = sorted(os.sched_getaffinity(0))
    return {available[0]}, {available[-1]}


def pair() -> set[int]:
    """Two cores, for a subject of two processes; fewer where there are fewer."""
    return set(sorted(os.sched_getaffinity(0))[:2])


def free_cores() -> float:
    """How many cores nobody used in the last minute."""
    available = len(os.sched_getaffinity(0))
    return max(0.0, available - os.getloadavg()[0])


def pinned(core: set[int], *command: str) -> list[str]:
    """The command line of a program that runs on a core only."""
    return ["taskset", "-c", ",".join(map(str, core)), *command]


def program() -> str:
    """The command ``keyhole`` of this interpreter's environment."""
    return str(Path(sys.executable).with_name("keyhole"))


def free_port() -> int:
    """A TCP port of loopback that nobody uses."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for one in found:
        for listing in Path(f"/proc/{one}/task").glob("*/children"):
            found += map(int, listing.read_text().split())
    return found


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and its descendants, in user and kernel mode."""
    return sum(time.clock_gettime((~one << 3) | _SCHEDULED) for one in family(pid))


def rss_bytes(pid: int) -> int:
    """Resident memory of a process and its descendants."""
    pages = sum(int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in family(pid))
    return pages * os.sysconf("SC_PAGE_SIZE")


def sync_rate(folder: Path, seconds: float) -> float:
    """``fdatasync`` calls a second on the disk of a folder, each after 4 KiB were appended."""
    path = folder / "sync"
    fd = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        count, begin = 0, time.perf_counter()
        while (took := time.perf_counter() - begin) < seconds or not count:
            os.write(fd, bytes(4096))
            os.fdatasync(fd)
            count += 1
            if count % 4096 == 0:
                os.lseek(fd, 0, os.SEEK_SET)
        return count / took
    finally:
        os.close(fd)
        path.unlink()


def describe() -> dict[str, object]:
    """What a reader of the results wants to know of the machine."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    model = next((line.partition(": ")[2] for line in cpuinfo.splitlines() if line.startswith("model name")), "?")
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "load": [round(value, 2) for value in os.getloadavg()],
    }

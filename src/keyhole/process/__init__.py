"""What a process that holds keys does to itself before it opens a vault, and what shuts in those that it starts.

``hide`` says which files a sandbox covers, ``sandbox`` makes one out of namespaces, with ``seccomp`` and the system
calls of ``linux``. They import little: launchers, which are fresh interpreters, wait for them.
"""

from __future__ import annotations

import ctypes
import os
import sys

_PR_SET_DUMPABLE = 4
_FILES = 65_536


def harden_process() -> tuple[str, ...]:
    """Keep other processes of the same user out of this one's memory, and its memory out of core files.

    A process that is not dumpable cannot be attached to, and its ``/proc/PID/{mem,environ,fd}`` belong to root
    (prctl(2), proc(5)). Call it before the first key is in memory. The limit on core files is inherited by children.

    Returns:
        What this system could not do, in words for the user; empty when all was done.
    """
    if os.name != "posix":
        return ("core dumps and debuggers are left to the system's settings",)
    missing = []
    import resource  # noqa: PLC0415  # the module exists on POSIX only

    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (OSError, ValueError) as error:
        missing.append(f"core dumps could not be turned off ({error})")
    if not sys.platform.startswith("linux"):
        missing.append("debuggers of the same user are left to the system's settings")
    elif ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        missing.append(f"debuggers of the same user could not be kept out ({os.strerror(ctypes.get_errno())})")
    return tuple(missing)


def raise_file_limit() -> int:
    """Let this process have 65,536 open files, or as many as the system allows it; each call needs two.

    Programs that it starts inherit the limit (getrlimit(2)).

    Returns:
        how many there may be; 0 where nobody says.
    """
    if os.name != "posix":
        return 0
    import resource  # noqa: PLC0415  # the module exists on POSIX only

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # macOS says that there is no limit, and has one
        return soft
    return wanted

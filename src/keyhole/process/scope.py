"""Signals end at the command (Landlock, since Linux 6.12).

A pid namespace hides processes outside, and ``kill(0, …)`` still reaches those of one's own process group, among them
``keyhole run`` itself, which a command shares its group with for the sake of job control.
"""

from __future__ import annotations

import ctypes
import os
import struct

from keyhole.process import linux

_CREATE_RULESET, _RESTRICT_SELF = 444, 446  # the same everywhere
_VERSION, _WITH_SCOPES = 1, 6
_SIGNAL = 2  # linux/landlock.h

_libc = ctypes.CDLL(None, use_errno=True)


def known() -> bool:
    """Whether this kernel can."""
    return bool(_libc.syscall(_CREATE_RULESET, None, 0, _VERSION) >= _WITH_SCOPES)


def limit_signals() -> bool:
    """Let this process, and all that it will start, signal nobody else; whether this kernel can.

    Needs ``PR_SET_NO_NEW_PRIVS`` first (landlock(7)).

    Raises:
        OSError: it can and does not.
    """
    if not known():
        return False
    rules = struct.pack("=QQQ", 0, 0, _SIGNAL)  # nothing of files, nothing of the network
    ruleset = _libc.syscall(_CREATE_RULESET, ctypes.c_char_p(rules), ctypes.c_size_t(len(rules)), 0)
    if ruleset < 0:
        raise linux.failure("landlock_create_ruleset")
    try:
        if _libc.syscall(_RESTRICT_SELF, ruleset, 0) != 0:
            raise linux.failure("landlock_restrict_self")
    finally:
        os.close(ruleset)
    return True

"""The next step for a file that cannot be read: a merge by git alone leaves the lines of both sides in it. Pure."""

from __future__ import annotations

_RESTORE = "restore it from its history"
_ABORT = "git has put the lines of two sides into it: git merge --abort, or git rebase --abort, then: keyhole repo pull"


def next_step(data: bytes) -> str:
    """What to do about a file with these bytes."""
    marks = (b"\n<<<<<<< ", b"\n=======\n", b"\n>>>>>>> ")
    return _ABORT if all(mark in b"\n" + data for mark in marks) else _RESTORE

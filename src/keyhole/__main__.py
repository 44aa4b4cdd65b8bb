"""The program ``keyhole``, and ``python -m keyhole``."""

import contextlib
import gc
import os
import sys
from typing import NoReturn

from keyhole.cli import main

_INTERRUPTED = 130
_OBJECTS_BEFORE_A_LOOK = 200_000  # a command that makes fewer ends before anything could be found
_OBJECTS_BETWEEN_LOOKS = 10_000  # Python's own number (700, 2000 from 3.14 on) looks 80 times while a command starts


def program() -> NoReturn:
    """Run one command and end the process.

    Python's own tidying up is left out, which would take longer than most commands do: here the vault is closed
    already, and the system takes back the rest.
    """
    _put_off_looking()
    try:
        _open_streams()
        code = main()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):  # whoever printed has said so
                stream.flush()
    except KeyboardInterrupt:  # while modules are imported, or once more at the end
        code = _INTERRUPTED
    os._exit(code)


def _put_off_looking() -> None:
    """Let Python look for garbage late, and as often as usual from then on."""
    gc.set_threshold(_OBJECTS_BEFORE_A_LOOK)
    gc.callbacks.append(_look_more_often)


def _look_more_often(_phase: str, _found: dict[str, int]) -> None:
    """Python looks for garbage, so this command goes on for a while."""
    gc.set_threshold(_OBJECTS_BETWEEN_LOOKS)
    gc.callbacks.remove(_look_more_often)


def _open_streams() -> None:
    """Give the standard streams that are closed their numbers back, or the next file to be opened would get them.

    Reading from such a stdin fails, and so does writing to such a stdout; what goes to a closed stderr is lost.
    """
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_WRONLY), encoding="utf-8")
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w", encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")


if __name__ == "__main__":
    program()

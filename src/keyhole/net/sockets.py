"""Listening on a path: sockets of this machine (unix(7))."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from pathlib import Path

from keyhole.core.errors import InvalidRequest

_ONLY_OURS = 0o177  # umask: 0600


def bind_path(path: Path) -> socket.socket:
    """A bound socket that only its owner may connect to. One that nobody listens on any more is replaced.

    Raises:
        InvalidRequest: something else lies there, somebody listens there, or it cannot be made.
    """
    _clear(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(_ONLY_OURS)
    try:
        sock.bind(str(path))
    except OSError as error:
        sock.close()
        why = os.strerror(error.errno).lower() if error.errno else "the path is too long"
        raise InvalidRequest(f"cannot listen on {path}: {why}", "choose a path of yours, shorter than 100") from None
    finally:
        os.umask(before)
    return sock


def _clear(path: Path) -> None:
    try:
        there = path.lstat()
    except OSError:
        return
    if not stat.S_ISSOCK(there.st_mode):
        raise InvalidRequest(f"cannot listen on {path}: something else lies there", "choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe, contextlib.suppress(OSError):
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
        else:
            raise InvalidRequest(f"cannot listen on {path}: somebody listens there", "choose another path")

"""Launchers are forked from a process that may be slow to answer."""

import os
import signal
import socket

import pytest

from keyhole.faces.mcp.gateway.launched import _Forks


def test_an_answer_that_comes_late_is_not_taken_for_that_of_another_program():
    forks = _Forks()
    forks._control.settimeout(0.2)
    nothing = os.open(os.devnull, os.O_RDWR)
    ours, theirs = socket.socketpair()
    try:
        os.kill(forks._process.pid, signal.SIGSTOP)
        for _ in range(2):
            with pytest.raises(OSError, match=r"timed out|Bad file descriptor"):
                forks.launch([nothing, nothing, nothing, theirs.fileno()])
            os.kill(forks._process.pid, signal.SIGCONT)
        forks._process.wait(60)  # it ends, and with it what would be out of step
        assert not forks.alive
    finally:
        os.close(nothing)
        ours.close()
        theirs.close()
        forks._control.close()
        forks._process.kill()
        forks._process.wait()

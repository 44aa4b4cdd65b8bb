"""Signals that the launcher passes on: those of its group, and those that are queued for it."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import pytest

from keyhole.faces.run import launcher
from keyhole.process import linux

PID = 4711
GROUP, QUEUED = 0, linux.SI_QUEUE


def passed_on(monkeypatch, events, *, apart):
    """Numbers of what the command got, of signals that came one after the other."""
    waiting, sent = list(events), []
    monkeypatch.setattr(os, "waitpid", lambda *_: (0, 0) if waiting else (PID, 0))

    def next_event(_numbers):
        number, code = waiting.pop(0)
        return SimpleNamespace(si_signo=number, si_code=code)

    monkeypatch.setattr(signal, "sigwaitinfo", next_event)
    assert launcher._supervise(PID, lambda _pid, number: sent.append(number), lambda _: None, apart=apart) == 0
    return sent


CONT, TERM, WINCH = signal.SIGCONT, signal.SIGTERM, signal.SIGWINCH


@pytest.mark.parametrize(
    ("events", "sent"),
    [
        ([(CONT, GROUP)], [CONT]),  # the one that was queued too is none of its own while this one is pending
        ([(CONT, GROUP), (CONT, QUEUED)], [CONT]),
        ([(CONT, QUEUED)], [CONT]),
        ([(TERM, GROUP), (TERM, QUEUED)], [TERM]),
        ([(TERM, QUEUED), (TERM, QUEUED)], [TERM, TERM]),
        ([(WINCH, GROUP)], []),
    ],
)
def test_a_command_with_a_terminal_of_its_own_has_each_signal_once(monkeypatch, events, sent):
    assert passed_on(monkeypatch, events, apart=True) == sent


@pytest.mark.parametrize(
    ("events", "sent"),
    [([(TERM, GROUP), (TERM, QUEUED)], []), ([(TERM, QUEUED)], [TERM]), ([(TERM, GROUP)], [])],
)
def test_a_command_in_our_group_has_what_the_group_has_from_the_system(monkeypatch, events, sent):
    assert passed_on(monkeypatch, events, apart=False) == sent

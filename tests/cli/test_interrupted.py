"""Ctrl-C, whenever it comes, ends a command with 130 and says nothing."""

import signal

import pytest

import keyhole.__main__ as entrance
from keyhole.cli import main


class _Ended(BaseException):
    pass


@pytest.mark.parametrize("where", ["_open_streams", "main"])
def test_an_interrupt_before_a_command_has_begun_is_quiet(monkeypatch, capfd, where):
    def interrupted(*_):
        raise KeyboardInterrupt

    def ended(code):
        raise _Ended(code)

    monkeypatch.setattr(entrance, where, interrupted)
    monkeypatch.setattr(entrance.os, "_exit", ended)
    monkeypatch.setattr(entrance, "_put_off_looking", lambda: None)
    with pytest.raises(_Ended) as found:
        entrance.program()
    assert found.value.args == (130,)
    assert capfd.readouterr() == ("", "")


def test_an_interrupt_just_as_a_loop_begins_to_run_is_quiet(local, monkeypatch, capfd):
    install = signal.signal

    def interrupted(number, handler):
        before = install(number, handler)
        if number == signal.SIGINT and callable(handler) and handler is not signal.default_int_handler:
            monkeypatch.setattr(signal, "signal", install)
            signal.raise_signal(signal.SIGINT)  # before the runner counts: it cancels, and says nothing of a signal
        return before

    capfd.readouterr()
    monkeypatch.setattr(signal, "signal", interrupted)
    assert main(["list"]) == 130
    assert signal.signal is install, "nothing was interrupted"
    assert capfd.readouterr() == ("", "")

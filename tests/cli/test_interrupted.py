"""Ctrl-C, whenever it comes, ends a command with 130 and says nothing."""

import signal

import pytest

import keyhole.__main__ as entrance
from cli_driver import ok
from keyhole.cli import main
from keyhole.faces.workflow.state import StateFile


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


@pytest.fixture
def interrupting(monkeypatch):
    """Makes Ctrl-C come just as a loop begins to run: the runner cancels then, and says nothing of a signal."""
    install = signal.signal

    def begin():
        monkeypatch.setattr(signal, "signal", interrupted)

    def interrupted(number, handler):
        before = install(number, handler)
        if number == signal.SIGINT and callable(handler) and handler is not signal.default_int_handler:
            monkeypatch.setattr(signal, "signal", install)
            signal.raise_signal(signal.SIGINT)
        return before

    yield begin
    assert signal.signal is install, "nothing was interrupted"


def test_an_interrupt_just_as_a_loop_begins_to_run_is_quiet(local, interrupting, capfd):
    capfd.readouterr()
    interrupting()
    assert main(["list"]) == 130
    assert capfd.readouterr() == ("", "")


def test_a_workflow_that_is_interrupted_then_says_how_it_goes_on(local, interrupting, monkeypatch, tmp_path, capfd):
    file = tmp_path / "flow.yaml"
    file.write_text("workflow: flow\nsteps:\n  - id: one\n    call: {url: 'https://a.test/'}\n")
    ok("agent", "add", "coder")
    create = StateFile.create

    def created(*args):
        made = create(*args)
        interrupting()
        return made

    monkeypatch.setattr(StateFile, "create", created)
    assert main(["workflow", "run", str(file), "--agent", "coder"]) == 130
    assert "go on with: keyhole workflow resume" in capfd.readouterr().err

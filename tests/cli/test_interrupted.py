"""Ctrl-C, whenever it comes, ends a command with 130 and says nothing."""

import pytest

import keyhole.__main__ as entrance


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

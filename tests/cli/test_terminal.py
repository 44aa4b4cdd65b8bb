"""With a person at a terminal: what is asked, what is shown, and what is not."""

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli_driver import environment, ok

VALUE = "sk_live_0123456789"


class Terminal:
    """A command that has a terminal for its three streams, or for some of them."""

    def __init__(self, *words, env, **streams):
        self.leader, follower = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", _START, *words],
            **{"stdin": follower, "stdout": follower, "stderr": follower, **streams},
            env=env,
            start_new_session=True,
        )
        os.close(follower)
        self.seen = ""

    def until(self, text):
        deadline = time.monotonic() + 60
        while text not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if select.select([self.leader], [], [], 1)[0]:
                try:
                    self.seen += os.read(self.leader, 4096).decode()
                except OSError:  # Linux: the last of the other side is gone
                    break
        assert text in self.seen, self.seen

    def type(self, text):
        os.write(self.leader, text.encode())

    def end(self):
        code = self.process.wait(60)
        while select.select([self.leader], [], [], 0)[0]:
            try:
                self.seen += os.read(self.leader, 4096).decode()
            except OSError:
                break
        os.close(self.leader)
        return code


# The first terminal that a session leader opens becomes its own.
_START = """
import fcntl, os, sys, termios
for number in (0, 1, 2):
    if os.isatty(number):
        fcntl.ioctl(number, termios.TIOCSCTTY, 0)
        break
from keyhole.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def env(local):
    ok("set", "a/b", stdin=VALUE)
    return environment(KEYHOLE_HOME=str(local), TERM="xterm")


def test_a_value_is_shown_on_a_terminal_only_after_a_yes(env):
    asked = Terminal("get", "a/b", env=env)
    asked.until("[y/N]")
    asked.type("n\n")
    assert asked.end() == 4
    assert VALUE not in asked.seen
    agreed = Terminal("get", "a/b", env=env)
    agreed.until("[y/N]")
    agreed.type("y\n")
    assert agreed.end() == 0
    assert VALUE in agreed.seen
    said = Terminal("get", "a/b", "--reveal", env=env)
    assert said.end() == 0
    assert "[y/N]" not in said.seen
    assert VALUE in said.seen


def test_a_value_goes_into_a_pipe_at_once(env):
    piped = Terminal("get", "a/b", env=env, stdout=subprocess.PIPE)
    assert piped.process.stdout.read().decode() == f"{VALUE}\n"
    piped.process.stdout.close()
    assert piped.end() == 0
    assert piped.seen == ""


def test_a_typed_value_is_not_echoed(env):
    typed = Terminal("set", "typed/one", env=env)
    typed.until("Value of typed/one#value: ")
    typed.type(f"{VALUE}-typed\n")
    assert typed.end() == 0
    assert VALUE not in typed.seen
    assert "stored typed/one" in typed.seen


def test_interrupting_a_question_ends_quietly(env):
    asked = Terminal("set", "never/stored", env=env)
    asked.until("Value of")
    asked.type("\x03")
    assert asked.end() == 130
    assert "Traceback" not in asked.seen


def test_removing_for_good_is_asked_about(env):
    asked = Terminal("rm", "a/b", "--all", env=env)
    asked.until("[y/N]")
    asked.type("\n")
    assert asked.end() == 4
    agreed = Terminal("rm", "a/b", "--all", "--yes", env=env)
    assert agreed.end() == 0


def test_a_new_vault_asks_for_its_passphrase_twice_and_a_used_one_once(tmp_path):
    env = environment(KEYHOLE_HOME=str(tmp_path / "fresh"), TERM="xterm")
    differing = Terminal("init", "--seal", "passphrase", env=env)
    differing.until("New passphrase: ")
    differing.type("correct horse battery\n")
    differing.until("again: ")
    differing.type("correct horse buttery\n")
    assert differing.end() == 3
    made = Terminal("init", "--seal", "passphrase", env=env)
    for prompt in ("New passphrase: ", "again: "):
        made.until(prompt)
        made.type("correct horse battery\n")
    assert made.end() == 0
    used = Terminal("list", env=env)
    used.until("Passphrase of the vault: ")
    used.type("correct horse battery\n")
    assert used.end() == 0
    assert "correct horse" not in differing.seen + made.seen + used.seen


def test_colours_are_for_terminals_that_want_them(env):
    coloured = Terminal("list", env={**env, "NO_COLOR": ""})
    assert coloured.end() == 0
    plain = Terminal("list", env={**env, "NO_COLOR": "1"})
    assert plain.end() == 0
    assert "\x1b[" in coloured.seen
    assert "\x1b[" not in plain.seen


def test_no_value_and_no_token_stands_in_the_command_line_of_a_running_command(env):
    waiting = Terminal("get", "a/b", env=env)
    waiting.until("[y/N]")
    assert VALUE.encode() not in Path(f"/proc/{waiting.process.pid}/cmdline").read_bytes()
    waiting.process.send_signal(signal.SIGINT)
    assert waiting.end() == 130

"""What a command prints that was given a value: without it, and otherwise byte for byte, on pipes and on terminals."""

import base64
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest

from children import child
from faces.run_fixtures import runner_for
from keyhole.faces.run.output import Output
from keyhole.scrub import Scrubber

VALUE = "sk_live_Zm9vYmFyQ7xW2pLk"
PRIVATE = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END KEY-----\n"
GIVEN = {"scrub": True, "reveal": {"KEY": VALUE}}


@pytest.fixture(scope="module")
def runner():
    with runner_for(nobody=False) as found:
        yield found


@pytest.fixture(params=["auto", "off"])
def sandbox(request):
    return request.param


def python(code):
    return [sys.executable, "-c", code]


class Terminal:
    """A driver that leads the foreground of a new terminal, and our end of it."""

    def __init__(self, runner, argv, **given):
        command = runner.command(argv, **{**GIVEN, **given})
        self.pid, self.end = pty.fork()
        if self.pid == 0:
            os.chdir(command["cwd"])
            os.execve(command["args"][0], command["args"], command["env"])
        self.seen = b""

    def until(self, text):
        """Everything up to a text; ``None`` reads to the end."""
        while text is None or text not in self.seen:
            ready, _, _ = select.select([self.end], [], [], 30)
            assert ready, f"waited for {text!r}, saw {self.seen!r}"
            try:
                data = os.read(self.end, 65536)
            except OSError:
                break
            self.seen += data
        assert text is None or text in self.seen, self.seen
        return self.seen

    def type(self, data):
        os.write(self.end, data)

    def code(self):
        self.until(None)
        found = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.end)
        print(self.seen.decode(errors="replace"))
        return found


# Pipes.


def test_a_value_is_masked_in_every_form_however_the_writes_cut_it(runner):
    code = "import os, base64\n"
    code += "v = os.environ['KEY'].encode()\n"
    code += "for form in (v, base64.b64encode(v), v.hex().encode(), v.upper(), b'x' + v + b'y'):\n"
    code += "    for byte in form + b'\\n':\n        os.write(1, bytes((byte,)))\n"
    code += "os.write(2, b'err ' + v)\nos.write(1, os.environ['PEM'].encode())\n"
    done = runner.run(python(code), scrub=True, reveal={"KEY": VALUE, "PEM": PRIVATE})
    assert done.code == 0
    size = len(VALUE)
    first, second, third, fourth, fifth, *private = done.out.splitlines()
    assert first == fourth == "*" * size
    assert len(second) == len(base64.b64encode(VALUE.encode()))
    assert set(second) == {"*"}
    assert third == "*" * (2 * size)
    assert "MIIE" not in "".join(private)
    assert fifth == "x" + "*" * size + "y"
    assert done.err.endswith("err " + "*" * size)


def test_nothing_is_lost_and_nothing_changes_when_much_is_printed_at_the_end(runner):
    code = (
        "import os, sys\ndata = bytes(range(256)) * 8192\nwhile data:\n    data = data[os.write(1, data):]\nsys.exit(9)"
    )
    command = runner.command(python(code), **GIVEN)
    done = subprocess.run(**command, capture_output=True, check=False, timeout=60)
    assert done.returncode == 9
    assert done.stdout == bytes(range(256)) * 8192


def test_two_streams_that_are_one_keep_their_order(runner):
    script = "for i in 1 2 3 4 5 6 7 8 9; do echo out $i; echo err $i >&2; done"
    command = runner.command(["sh", "-c", script], **GIVEN)
    done = subprocess.run(**command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=True)
    wanted = [f"{name} {i}" for i in range(1, 10) for name in ("out", "err")]
    assert [line for line in done.stdout.splitlines() if line[:3] in {"out", "err"}] == wanted


def test_a_prompt_appears_before_the_command_goes_on(runner):
    script = 'printf "Name (s): s"; read name; echo "hello $name $KEY"'
    with child(
        **runner.command(["sh", "-c", script], **GIVEN), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        seen = b""
        while seen != b"Name (s): s":  # its last letter begins the value, too
            piece = os.read(process.stdout.fileno(), 100)
            assert piece, seen
            seen += piece
        process.stdin.write(b"me\n")
        process.stdin.close()
        assert process.stdout.read() == b"hello me " + b"*" * len(VALUE) + b"\n"
    assert process.returncode == 0


def test_a_command_notices_that_nobody_reads(runner):
    command = runner.command(["sh", "-c", "trap '' HUP; while echo line; do :; done; exit 3"], **GIVEN)
    with child(**command, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) in {3, 128 + signal.SIGPIPE}


def test_what_was_left_behind_does_not_hold_the_end_up(runner):
    begin = time.monotonic()
    done = runner.run(["sh", "-c", "sleep 50 & echo started"], sandbox="off", **GIVEN)
    assert done.out == "started\n"
    assert time.monotonic() - begin < 40


def test_output_is_the_callers_own_where_a_value_is_too_short_to_be_looked_for(runner):
    given = {"scrub": True, "reveal": {"KEY": "short"}}
    command = runner.command(python("import os; print(os.readlink('/proc/self/fd/1'))"), **given)
    with child(**command, stdout=subprocess.PIPE, text=True) as process:
        name = str(Path(f"/proc/self/fd/{process.stdout.fileno()}").readlink())
        assert process.stdout.read().strip() == name


# Terminals.


def test_on_a_terminal_the_command_has_one_and_the_value_does_not_reach_ours(runner):
    code = "import os, sys\nprint([os.isatty(n) for n in (0, 1, 2)], os.get_terminal_size(), os.ttyname(0))\n"
    code += "with open('/dev/tty', 'w') as terminal:\n    print('tty', os.environ['KEY'], file=terminal)\n"
    code += "for char in os.environ['KEY']:\n    sys.stdout.write(char)\n    sys.stdout.flush()\nsys.exit(7)"
    terminal = Terminal(runner, python(code))
    assert terminal.code() == 7
    assert b"[True, True, True]" in terminal.seen
    assert VALUE.encode() not in terminal.seen
    assert b"tty " + b"*" * len(VALUE) + b"\r\n" + b"*" * len(VALUE) in terminal.seen


def test_the_command_hears_of_a_new_size(runner):
    code = "import os, signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH])\n"
    code += "print('ready', flush=True)\nsignal.sigwait([signal.SIGWINCH])\nprint('now', *os.get_terminal_size())"
    terminal = Terminal(runner, python(code))
    terminal.until(b"ready")
    fcntl.ioctl(terminal.end, termios.TIOCSWINSZ, struct.pack("HHHH", 41, 123, 0, 0))
    assert terminal.code() == 0
    assert b"now 123 41" in terminal.seen


def test_keys_reach_a_program_in_raw_mode_one_by_one(runner):
    code = "import os, tty\ntty.setraw(0)\nos.write(1, b'ready')\n"
    code += "for _ in range(4):\n    os.write(1, b'<%d>' % os.read(0, 1)[0])\nos.write(1, b'\\n.')"
    terminal = Terminal(runner, python(code))
    terminal.until(b"ready")
    for number, key in enumerate((b"\x03", b"\r", b"s", b"\x04"), 1):
        terminal.type(key)
        terminal.until(b"<%d>" % key[0])
        assert terminal.seen.count(b"<") == number
    assert terminal.code() == 0
    assert terminal.seen.endswith(b"\n.")
    assert b"\r\n." not in terminal.seen


def test_what_is_typed_is_seen_and_the_end_of_input_is_one(runner):
    terminal = Terminal(runner, ["sh", "-c", "echo ready; cat; echo end"])
    terminal.until(b"ready")
    terminal.type(b"s")  # begins the value, too
    terminal.until(b"ready\r\ns")
    terminal.type(b"o\n\x04")
    assert terminal.code() == 0
    assert terminal.seen.endswith(b"so\r\nso\r\nend\r\n")


def test_control_c_ends_it_and_our_terminal_is_what_it_was(runner):
    terminal = Terminal(runner, ["sh", "-c", "echo ready; exec sleep 50"])
    before = termios.tcgetattr(terminal.end)
    terminal.until(b"ready")
    terminal.type(b"\x03")
    ended = os.waitpid(terminal.pid, 0)[1]
    assert os.waitstatus_to_exitcode(ended) == 128 + signal.SIGINT
    assert termios.tcgetattr(terminal.end) == before
    os.close(terminal.end)


def test_signals_of_others_reach_it(runner):
    script = "trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.02; done"
    terminal = Terminal(runner, ["sh", "-c", script])
    terminal.until(b"ready")
    os.kill(terminal.pid, signal.SIGTERM)
    assert terminal.code() == 5
    assert terminal.seen.count(b"got") == 1


SHELL = """
import json, os, signal, subprocess, sys, termios
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
command = json.loads(sys.argv[1])
modes = termios.tcgetattr(0)
job = subprocess.Popen(command["args"], env=command["env"], cwd=command["cwd"], process_group=0)
os.tcsetpgrp(0, job.pid)
_, status = os.waitpid(job.pid, os.WUNTRACED)
os.tcsetpgrp(0, os.getpgrp())
print("stopped", os.WIFSTOPPED(status), termios.tcgetattr(0) == modes, flush=True)
input()
os.tcsetpgrp(0, job.pid)
os.killpg(job.pid, signal.SIGCONT)
_, status = os.waitpid(job.pid, os.WUNTRACED)
os.tcsetpgrp(0, os.getpgrp())
print("ended", os.waitstatus_to_exitcode(status), termios.tcgetattr(0) == modes, flush=True)
"""


def test_control_z_stops_the_job_and_fg_goes_on_with_it(runner, sandbox):
    command = runner.command(
        ["sh", "-c", "echo ready; read line; echo line $line $KEY; exit 4"], sandbox=sandbox, **GIVEN
    )
    given = json.dumps({name: command[name] for name in ("args", "env", "cwd")})
    terminal = object.__new__(Terminal)
    terminal.seen = b""
    terminal.pid, terminal.end = pty.fork()
    if terminal.pid == 0:
        os.execve(sys.executable, [sys.executable, "-c", SHELL, given], command["env"])
    terminal.until(b"ready")
    terminal.type(b"\x1a")
    terminal.until(b"stopped True True")
    terminal.type(b"\n")
    terminal.type(b"hello\n")
    terminal.until(b"ended 4 True")
    assert b"line hello " + b"*" * len(VALUE) in terminal.seen
    assert terminal.code() == 0


def test_only_the_output_is_a_terminal(runner):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 70, 0, 0))
    code = "import os\nprint(os.isatty(0), os.isatty(1), os.get_terminal_size())\nprint(os.environ['KEY'])"
    command = runner.command(python(code), **GIVEN)
    done = subprocess.run(**command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE, check=False)
    os.close(theirs)
    seen = b""
    try:
        while data := os.read(ours, 1000):
            seen += data
    except OSError:
        pass
    os.close(ours)
    assert done.returncode == 0, done.stderr
    assert seen == b"False True os.terminal_size(columns=70, lines=50)\r\n" + b"*" * len(VALUE) + b"\r\n"


def test_what_was_given_to_a_command_that_runs_already_is_found_as_well():
    source, target = os.pipe(), os.pipe()
    with Output(Scrubber.compile([b"the first value"]), session=False) as output:
        copy = threading.Thread(target=output._copy, args=(source[0], target[1]))
        copy.start()
        os.write(source[1], b"a the first value ")
        seen = os.read(target[0], 100)
        output.know(Scrubber.compile([b"the first value", b"the second one"]))
        os.write(source[1], b"b the second one, the first value.")
        os.close(source[1])
        copy.join()
    os.close(target[1])
    with os.fdopen(target[0], "rb") as rest:
        seen += rest.read()
    os.close(source[0])
    assert seen == b"a *************** b **************, ***************."

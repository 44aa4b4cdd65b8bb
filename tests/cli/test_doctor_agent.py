"""`doctor --agent`: the ways out, tried from inside of a sandbox and from outside."""

import json
import os
import pty
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import keyhole
from cli_driver import run
from faces.run_fixtures import namespaces_allowed, runner_for
from keyhole.trial.escapes import network


def test_outside_it_says_what_is_open_and_fails(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "a-real-value-0d5f2a")
    monkeypatch.setenv("OTHER_API_KEY", "sk_test_keyhole000000")
    done = run("doctor", "--agent", "--json")
    found = {escape["name"]: escape for escape in done.json}
    assert done.code == 1
    assert {escape["state"] for escape in done.json} <= {"held", "open", "not tried"}
    assert found["environment"]["state"] == "open"
    assert "SOME_API_KEY" in found["environment"]["detail"]
    assert "OTHER_API_KEY" not in found["environment"]["detail"]
    assert found["proxy"]["state"] == "not tried"
    assert found["covers"]["state"] == "not tried"
    assert found["Keyhole's own code"]["state"] == ("open" if os.access(keyhole.__file__, os.W_OK) else "held")
    assert found["signals"]["state"] == "open"
    assert "a-real-value" not in done.out


@pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is made of Linux namespaces")
def test_inside_everything_is_held():
    if not namespaces_allowed(nobody=False):
        pytest.skip("this system forbids user namespaces, so nothing was held")
    with runner_for(nobody=False) as runner:
        vault = runner.place / "user" / ".local" / "share" / "keyhole"
        vault.mkdir(parents=True)
        (vault / "vault.db").write_text("canary")
        outcome = runner.run(
            [sys.executable, "-m", "keyhole", "doctor", "--agent", "--json"],
            env={"HOME": str(runner.place / "user"), "PYTHONPATH": str(runner.source)},
            pinned=True,
            hidden=[str(vault)],
            network="broker",
        )
    found = {escape["name"]: escape for escape in json.loads(outcome.out)}
    assert [name for name, escape in found.items() if escape["state"] == "open"] == []
    assert outcome.code == 0
    assert found["covers"]["state"] == "held"
    assert found["vault"]["state"] == "held"
    assert len(found) >= 28
    assert str(runner.place / "user" / ".bashrc") in found["files that run later"]["detail"]


linux = pytest.mark.skipif(sys.platform != "linux", reason="it looks at what only Linux shows")


@linux
def test_memory_and_sockets_of_others_are_found(tmp_path):
    stream, datagrams = tmp_path / "a.sock", tmp_path / "b.sock"
    with (
        tempfile.NamedTemporaryFile(dir="/dev/shm", prefix="kh-") as shared,
        socket.socket(socket.AF_UNIX) as one,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as two,
    ):
        one.bind(str(stream))
        one.listen()
        two.bind(str(datagrams))
        seen = subprocess.run(
            [sys.executable, "-c", TRIED, str(stream), str(datagrams)], capture_output=True, text=True, check=True
        )
        memory, sockets, reached = json.loads(seen.stdout)
        assert (memory, sockets, reached) == ("open", "open", [True, True])
        assert os.access(shared.name, os.R_OK)


TRIED = """
import json, sys
from pathlib import Path
from keyhole.process.hide import cover
from keyhole.trial.escapes import files, processes
[memory], [sockets] = processes._memory(), files._sockets()
places = cover((), {}, shut=True).others
reached = [path in places and files._connects(Path(path)) for path in sys.argv[1:]]
print(json.dumps([memory.state, sockets.state, reached]))
"""


@linux
def test_whoever_started_keyhole_run_is_not_the_commands_own():
    script = "from keyhole.trial.escapes.processes import _targets; import os; print(_targets(), os.getppid())"
    with runner_for(nobody=False) as runner:
        words = ["sh", "-c", '"$0" -c "$1"; true', sys.executable, script]
        outcome = runner.run(words, env={"PYTHONPATH": str(runner.source)}, sandbox="off")
    targets, _, parent = outcome.out.strip().rpartition(" ")
    assert os.getpid() in json.loads(targets)
    assert int(parent) not in json.loads(targets)


ROUTES = """Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask
eth0\t000012AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
eth1\t000013AC\t00000000\t0000\t0\t0\t0\t0000FFFF\t0\t0\t0
"""
ROUTES_6 = """fd000000000000000000000000000000 40 00 00 00 00000400 00000001 00000000 00000001 eth0
fe800000000000000000000000000000 40 00 00 00 00000400 00000001 00000000 00000001 eth0
00000000000000000000000000000001 80 00 00 00 00000000 00000002 00000000 80200001 lo
"""


def test_a_network_beside_the_machine_is_found_that_is_no_way_to_the_internet(monkeypatch):
    files = {"/proc/net/route": ROUTES, "/proc/net/ipv6_route": ROUTES_6}
    monkeypatch.setattr(network, "text_of", lambda path: files.get(path, ""))
    [found] = network._networks()
    assert found.state == "open"
    assert found.detail.endswith(": 172.18.0.0/255.255.0.0 by eth0, fd00::/64 by eth0")
    files.clear()
    [found] = network._networks()
    assert found.state == "held"


@linux
def test_typing_at_a_terminal_is_open_where_the_kernel_lets_it():
    process, terminal = pty.fork()
    if process == 0:
        script = "from keyhole.trial.escapes.processes import _typing; [found] = _typing(); print(found.state)"
        os.execv(sys.executable, [sys.executable, "-c", script])
    said = b""
    while b"\n" not in said:
        said += os.read(terminal, 1000)
    os.waitpid(process, 0)
    os.close(terminal)
    setting = Path("/proc/sys/dev/tty/legacy_tiocsti")
    allowed = os.geteuid() == 0 or not setting.exists() or setting.read_text().strip() != "0"
    assert said.strip() == (b"open" if allowed else b"held")


def test_the_name_of_an_agent_is_still_taken_for_one():
    done = run("doctor", "--agent", "nobody-of-that-name", "--client", "no-such-client")
    assert done.code == 3
    assert "no client of this name" in done.err

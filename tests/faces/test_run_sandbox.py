"""What a command can and cannot reach from inside the sandbox."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from children import child
from faces.run_fixtures import SYSTEM_PYTHON, Runner, namespaces_allowed, runner_for
from keyhole.process import scope

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the sandbox is made of Linux namespaces")

CANARY = "canary-0d5f2a"


@pytest.fixture(scope="module", params=["this user", "ordinary user"])
def runner(request):
    nobody = request.param == "ordinary user"
    if nobody and os.geteuid() != 0:
        pytest.skip("this user is an ordinary user already")
    if nobody and not Path(SYSTEM_PYTHON).exists():
        pytest.skip(f"{SYSTEM_PYTHON} is not there, so nothing ran as another user")
    if not namespaces_allowed(nobody=nobody):
        pytest.skip("this system forbids user namespaces, so the sandbox itself was not tested")
    with runner_for(nobody=nobody) as found:
        yield found


@pytest.fixture
def vault(runner: Runner):
    home = runner.place / "vault-home"
    home.mkdir(exist_ok=True)
    (home / "vault.db").write_text(CANARY)
    home.chmod(0o755)
    return home


def sh(script: str) -> list[str]:
    return ["sh", "-c", script]


def test_the_vaults_files_are_not_there(runner, vault):
    outcome = runner.run(sh(f"ls -A {vault}; cat {vault}/vault.db"), hidden=[str(vault)])
    assert outcome.level == "full"
    assert outcome.out == ""
    assert "vault.db" in outcome.err
    assert (vault / "vault.db").read_text() == CANARY


def test_a_single_vault_file_and_its_journal_read_empty(runner, vault):
    (vault / "vault.db-wal").write_text(CANARY)
    outcome = runner.run(sh(f"cat {vault}/vault.db {vault}/vault.db-wal"), hidden=[str(vault / "vault.db")])
    assert (outcome.code, outcome.out) == (0, "")


def test_a_link_to_the_vault_hides_its_target(runner, vault):
    link = runner.place / "link"
    link.unlink(missing_ok=True)
    link.symlink_to(vault)
    assert CANARY not in runner.run(sh(f"cat {vault}/vault.db {link}/vault.db"), hidden=[str(link)]).out


@pytest.mark.parametrize(
    "trick",
    [
        "umount {home}; umount -l {home}; cat {db}",
        "unshare -Urm sh -c 'umount {home}; cat {db}'",
        "unshare -Urm sh -c 'mount --bind {place} /mnt; cat /mnt/vault-home/vault.db'",
        "unshare -Urm sh -c 'mount --rbind {place} /mnt; umount /mnt/vault-home; cat /mnt/vault-home/vault.db'",
        "unshare -Urmpf --mount-proc sh -c 'cat {db}; cat /proc/1/root{db}'",
        "for p in /proc/[0-9]*; do cat $p/root{db}; cat $p/cwd/vault.db; nsenter -t ${{p#/proc/}} -m cat {db}; done",
        "mount --move {home} /mnt; cat {db}",
    ],
)
def test_the_command_cannot_take_the_cover_off(runner, vault, trick):
    script = trick.format(home=vault, db=vault / "vault.db", place=runner.place)
    outcome = runner.run(sh(script), hidden=[str(vault)])
    assert outcome.level == "full"
    assert CANARY not in outcome.out


@pytest.mark.parametrize("what", ["{place}", "{home}", "{db}"])
def test_other_names_of_what_is_hidden_hide_it_too(runner, vault, what):
    second = runner.place / "second"
    second.mkdir(exist_ok=True)
    (runner.place / "second file").touch()
    source = what.format(place=runner.place, home=vault, db=vault / "vault.db")
    target = runner.place / "second file" if source.endswith(".db") else second
    look = f'grep -rs {CANARY} "{target}"; echo looked'
    command = runner.command(sh(look), hidden=[str(vault)], told=str(runner.place / "told"))
    wrap = f'mount --bind "{source}" "{target}" && exec unshare -Urm "$@"'
    command["args"] = ["unshare", "-Urm", "sh", "-c", wrap, "sh", *command["args"]]
    done = subprocess.run(**command, capture_output=True, text=True, timeout=60, check=False)
    assert "looked" in done.stdout, done.stderr
    assert CANARY not in done.stdout


def test_queues_of_others_are_not_there(runner):
    place = runner.place / "queues"
    place.mkdir(exist_ok=True)
    command = runner.command(sh(f"ls -A {place}; echo looked"))
    wrap = f'mount -t mqueue mqueue {place} && touch {place}/canary && exec "$@"'
    command["args"] = ["unshare", "-Urmi", "sh", "-c", wrap, "sh", *command["args"]]
    done = subprocess.run(**command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "looked\n", done.stderr


def test_a_working_directory_among_the_hidden_is_refused(runner, vault):
    (vault / "sub").mkdir(exist_ok=True)
    outcome = runner.run(sh("cat ../vault.db"), hidden=[str(vault)], cwd=str(vault / "sub"))
    assert (outcome.code, outcome.out) == (125, "")
    assert "working directory" in outcome.messages[0]


CONNECT = r"""
import base64, os, re, socket
script = base64.b64decode(os.environ["auto_proxy"].partition("base64,")[2]).decode()
with socket.create_connection(("127.0.0.1", int(re.search(r"127\.0\.0\.1:(\d+)", script)[1]))) as port:
    port.sendall(b"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n")
    print(port.recv(100).split()[1].decode())
"""


def test_the_command_is_served_by_its_own_port_whoever_it_is(runner):
    with socket.socket() as nobody:  # bound and not listening: there is no proxy behind the port
        nobody.bind(("127.0.0.1", 0))
        proxy = f"http://agent:tok@127.0.0.1:{nobody.getsockname()[1]}"
        outcome = runner.run([SYSTEM_PYTHON, "-c", CONNECT], proxy=proxy)
    assert (outcome.level, outcome.out, outcome.messages) == ("full", "502\n", [])


def test_keyhole_itself_cannot_be_seen(runner):
    outcome = runner.run(sh("cat /proc/[0-9]*/comm; tr '\\0' ' ' < /proc/1/environ; readlink /proc/1/exe /proc/1/cwd"))
    assert "run_driver" not in outcome.out
    assert "PYTHONPATH" not in outcome.out
    listed = runner.run(sh("echo /proc/[0-9]*"))
    assert len(listed.out.split()) == 2, "only the launcher inside and the shell"


def test_the_launcher_beside_the_command_cannot_be_read(runner):
    outcome = runner.run(sh("dd if=/proc/1/mem bs=1 count=1; cat /proc/1/environ /proc/1/maps; readlink /proc/1/fd/*"))
    assert outcome.out == ""


def test_agent_sockets_and_the_session_bus_are_out_of_reach(runner):
    runtime = runner.place / "runtime"
    (runtime / "keyring").mkdir(parents=True, exist_ok=True)
    (runtime / "keyring" / "control").write_text(CANARY)
    agent = runner.place / "agent.sock"
    bus = runtime / "bus"
    for path in (agent, bus):
        path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two:
        for listener, path in ((one, agent), (two, bus)):
            listener.bind(str(path))
            listener.listen()
            path.chmod(0o777)
        connect = f"""
import socket
for path in ("{agent}", "{bus}"):
    try:
        socket.socket(socket.AF_UNIX).connect(path)
        print("reached", path)
    except OSError:
        pass
try: print(open("{runtime}/keyring/control").read())
except OSError: pass
"""
        env = {"SSH_AUTH_SOCK": str(agent), "XDG_RUNTIME_DIR": str(runtime)}
        env["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={bus}"
        inside = runner.run([SYSTEM_PYTHON, "-c", connect], env=env)
        outside = runner.run([SYSTEM_PYTHON, "-c", connect], env=env, sandbox="off")
    assert (inside.level, inside.out) == ("full", "")
    assert outside.out.count("reached") == 2


def test_the_key_of_an_owner_of_repo_vaults_is_not_there_and_that_of_the_agent_is(runner):
    keys = runner.place / "user" / ".agent-vault"
    (keys / "agents").mkdir(parents=True, exist_ok=True)
    (keys / "owner.key").write_text(CANARY)
    (keys / "agents" / "coder.key").write_text("its own")
    for path in (keys.parent, keys, keys / "agents", keys / "owner.key", keys / "agents" / "coder.key"):
        path.chmod(0o755)
    outcome = runner.run(sh(f"cat {keys}/*.key; cat {keys}/agents/*"), env={"HOME": str(keys.parent)})
    assert (outcome.level, outcome.out) == ("full", "its own")


def test_an_abstract_session_bus_is_admitted_as_a_gap_where_the_network_is_the_machines(runner):
    env = {"DBUS_SESSION_BUS_ADDRESS": "unix:abstract=/tmp/dbus-x"}
    outcome = runner.run(["true"], env=env, network="host")
    assert outcome.level == "partial"
    assert "abstract" in outcome.missing[0]
    required = runner.run(["true"], env=env, sandbox="require", network="host")
    assert required.code == 125
    assert "abstract" in required.messages[0]


def test_the_command_has_no_capability_over_mounts_and_gains_none(runner):
    status = runner.run(["cat", "/proc/self/status"]).out
    assert re.search(r"NoNewPrivs:\s+1", status)
    over_mounts_and_processes = (
        1 << 21 | 1 << 19 | 1 << 2 | 1 << 17 | 1 << 27
    )  # SYS_ADMIN PTRACE READ_SEARCH RAWIO MKNOD
    for line in re.findall(r"Cap(?:Inh|Prm|Eff|Bnd|Amb):\s+([0-9a-f]+)", status):
        assert int(line, 16) & over_mounts_and_processes == 0


def test_the_user_stays_the_same_and_may_still_write_his_files(runner):
    target = runner.place / "written"
    outcome = runner.run(sh(f"id -u; echo hello > {target}; stat -c %u {target}"))
    expected = str(target.stat().st_uid)
    assert outcome.out.split() == [expected, expected]


def test_nobody_can_read_the_disk_below_or_change_the_kernel(runner):
    script = "for d in /dev/* /dev/mapper/*; do [ -b $d ] && [ -r $d ] && echo disk $d; done; "
    script += "for d in /dev/tty[0-9]* /dev/vcs* /dev/console /dev/input/*; do "
    script += "[ -c $d ] && [ -r $d ] && [ $(stat -c %t:%T $d) != 1:3 ] && echo seat $d; done; "
    script += "for s in sysrq-trigger irq/default_smp_affinity mtrr; do [ -w /proc/$s ] && echo setting $s; done; "
    script += "echo x > /proc/sys/kernel/core_pattern && echo written"
    outcome = runner.run(sh(script))
    assert outcome.out == ""


def test_the_command_cannot_type_into_the_terminal(runner):
    typed = "import fcntl, sys; fcntl.ioctl(0, 0x5412, b'x')"
    outcome = runner.run([SYSTEM_PYTHON, "-c", typed])
    if Path("/proc/sys/dev/tty/legacy_tiocsti").exists():
        assert re.search(r"Errno (1|5|25)\]", outcome.err)
    else:
        assert "Errno 1]" in outcome.err


def test_the_command_knows_the_terminal_that_it_was_started_on_by_its_name(runner):
    keyboard, terminal = os.openpty()
    try:
        command = runner.command(["tty"])
        done = subprocess.run(**command, stdin=terminal, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (0, f"{os.ttyname(terminal)}\n"), done.stderr
    finally:
        os.close(keyboard)
        os.close(terminal)


@pytest.mark.skipif(not scope.known(), reason="this kernel cannot limit signals: Landlock of Linux 6.12 can")
def test_the_command_ends_nobody_in_the_group_that_it_shares_with_keyhole(runner):
    told = runner.place / "told group"
    told.unlink(missing_ok=True)
    command = runner.command(sh("kill -9 0"), told=str(told))
    done = subprocess.run(**command, start_new_session=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == 128 + signal.SIGKILL
    assert told.exists(), "keyhole run has come to its own end"


def test_what_the_command_left_behind_ends_with_it(runner):
    mark = runner.place / "alive"
    mark.unlink(missing_ok=True)
    script = f"(trap '' HUP TERM; while :; do date +%N > {mark}; sleep 0.02; done) & "
    script += f"while [ ! -s {mark} ]; do sleep 0.01; done"
    outcome = runner.run(sh(script + " >/dev/null 2>&1 </dev/null"), sandbox="require")
    assert outcome.code == 0
    seen = mark.read_text()
    time.sleep(0.1)
    assert mark.read_text() == seen


@pytest.mark.parametrize("sandbox", ["require", "off"])
def test_the_command_dies_when_keyhole_is_killed(runner, sandbox):
    command = runner.command(sh("echo $$; exec sleep 60"), sandbox=sandbox)
    with child(**command, stdout=subprocess.PIPE, text=True) as driver:
        driver.stdout.readline()
        driver.kill()
        # The pipe ends only when the last process that holds it is gone.
        assert driver.stdout.read() == ""
    assert driver.returncode == -signal.SIGKILL


def test_a_required_sandbox_that_is_forbidden_is_a_failure_and_auto_says_what_is_missing(runner):
    limit = Path("/proc/sys/user/max_user_namespaces")
    # A user namespace inside of which no further one may be made.
    wrapped = [
        "unshare",
        "-Ur",
        "sh",
        "-c",
        'echo 0 > "$1"; shift; exec setpriv --bounding-set=-all "$@"',
        "sh",
        str(limit),
    ]
    outcomes = {}
    for sandbox in ("require", "auto"):
        command = runner.command(sh("echo ran"), sandbox=sandbox)
        command["args"] = [*wrapped, *command["args"]]
        outcomes[sandbox] = subprocess.run(**command, capture_output=True, text=True, timeout=60, check=False)
    assert (outcomes["require"].returncode, outcomes["require"].stdout) == (125, "")
    assert (outcomes["auto"].returncode, outcomes["auto"].stdout) == (0, "ran\n")


def test_a_masked_proc_costs_the_pid_namespace_but_not_the_hiding(runner, vault):
    command = runner.command(
        sh(f"echo ran; cat {vault}/vault.db"), hidden=[str(vault)], told=str(runner.place / "told")
    )
    mask = 'mount -t tmpfs none /proc/driver && exec unshare -Urm "$@"'  # as container engines do
    command["args"] = ["unshare", "-Urm", "sh", "-c", mask, "sh", *command["args"]]
    done = subprocess.run(**command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "ran\n"
    assert '"partial"' in (runner.place / "told").read_text()

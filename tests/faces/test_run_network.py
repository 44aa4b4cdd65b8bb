"""What a hostile command reaches from inside the network that it is given."""

import ctypes
import errno
import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from children import child
from faces.run_fixtures import SYSTEM_PYTHON, namespaces_allowed, runner_for
from keyhole.process import scope

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the network is shut by a Linux namespace")

LIBC = ctypes.CDLL(None)
HOSTILE = Path(__file__).parent / "hostile_child.py"
NOWHERE = {errno.ENETUNREACH, errno.ECONNREFUSED, errno.EADDRNOTAVAIL, errno.EHOSTUNREACH}


@pytest.fixture(scope="module", params=["this user", "ordinary user"])
def runner(request):
    nobody = request.param == "ordinary user"
    if nobody and os.geteuid() != 0:
        pytest.skip("this user is an ordinary user already")
    if not namespaces_allowed(nobody=nobody):
        pytest.skip("this system forbids user namespaces, so the sandbox itself was not tested")
    with runner_for(nobody=nobody) as found:
        yield found


@pytest.fixture(scope="module")
def plain():
    """As this user alone: what follows is the same for all."""
    if not namespaces_allowed(nobody=False):
        pytest.skip("this system forbids user namespaces, so the sandbox itself was not tested")
    with runner_for(nobody=False) as found:
        yield found


class World:
    """Servers outside, each of which a command could want to reach."""

    def __init__(self, place: Path) -> None:
        self.stack = ExitStack()
        self.tcp = self.listen(socket.AF_INET, ("127.0.0.1", 0))
        self.everywhere = self.listen(socket.AF_INET, ("", 0))
        self.local = self.listen(socket.AF_INET, ("127.0.0.1", 0))
        self.udp = self.bind(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0))
        self.abstract = self.listen(socket.AF_UNIX, f"\0keyhole-test-{os.getpid()}-{place.parent.name}")
        self.file = self.listen(socket.AF_UNIX, str(place / "outside.sock"))
        self.allowed = self.listen(socket.AF_UNIX, str(place / "allowed.sock"))
        self.datagrams = self.bind(socket.AF_UNIX, socket.SOCK_DGRAM, str(place / "datagrams.sock"))
        for each in (self.file, self.allowed, self.datagrams):
            Path(each.getsockname()).chmod(0o777)
        self.terminal = self.sit_down()
        self.memory = 0x4B48_0000 | os.getpid() & 0xFFFF
        self.share()

    def sit_down(self) -> str:
        """A terminal that everybody may open, at which somebody has typed something."""
        keyboard, terminal = os.openpty()
        for descriptor in (keyboard, terminal):
            self.stack.callback(os.close, descriptor)
        os.fchmod(terminal, 0o666)
        os.write(keyboard, b"canary\n")
        return os.ttyname(terminal)

    def share(self) -> None:
        """Put a piece of shared memory there for everybody, and a key where those who are started find it."""
        identity = LIBC.shmget(self.memory, 4096, 0o1666)  # IPC_CREAT
        assert identity >= 0
        self.stack.callback(LIBC.shmctl, identity, 0, None)  # IPC_RMID
        self.named = Path(f"/dev/shm/keyhole-test-{os.getpid()}-{self.memory}")
        self.named.write_text("canary")
        self.named.chmod(0o666)
        self.stack.callback(self.named.unlink)
        join, add = {"x86_64": (250, 248), "aarch64": (219, 217)}[os.uname().machine]
        LIBC.syscall(join, 1, None)
        LIBC.syscall(add, b"user", b"keyhole-canary", b"canary", 6, ctypes.c_int(-3))

    def bind(self, family, kind, address):
        found = self.stack.enter_context(socket.socket(family, kind))
        found.bind(address)
        found.settimeout(0)
        return found

    def listen(self, family, address):
        found = self.bind(family, socket.SOCK_STREAM, address)
        found.listen()
        return found

    @property
    def aims(self) -> dict:
        return {
            "tcp": self.tcp.getsockname()[1],
            "local": self.local.getsockname()[1],
            "udp": self.udp.getsockname()[1],
            "abstract": self.abstract.getsockname()[1:].decode(),
            "file": self.file.getsockname(),
            "datagrams": self.datagrams.getsockname(),
            "terminal": self.terminal,
            "allowed": self.allowed.getsockname(),
            "address": machine_address(),
            "memory": self.memory,
            "named memory": self.named.name,
        }


def machine_address() -> str:
    """An address of this machine other than loopback, as far as it has one; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        try:
            handle.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.2"
        return handle.getsockname()[0]


@pytest.fixture(scope="module")
def tried(runner):
    """What the hostile command found, and the world that it tried."""
    world = World(runner.place)
    with world.stack:
        script = runner.place / "hostile.py"
        script.write_text(HOSTILE.read_text())
        outcome = runner.run(
            [SYSTEM_PYTHON, str(script), json.dumps(world.aims)],
            local=[world.aims["local"]],
            sockets=[world.aims["allowed"]],
            network="broker",
            env={"KEYHOLE_CANARY": "1"},
        )
        assert (outcome.code, outcome.network) == (0, "broker"), outcome
        found = json.loads(outcome.out)
        found["reached by datagrams"] = received(world.udp)
        yield found


def received(handle) -> bool:
    try:
        return bool(handle.recv(100))
    except BlockingIOError:
        return False


@pytest.mark.parametrize(
    "what",
    [
        "TCP to loopback outside",
        "TCP to loopback outside, version 6",
        "TCP to the machine's address",
        "TCP to the internet",
        "TCP to the internet, version 6",
        "metadata of a cloud",
        "UDP to the internet",
    ],
)
def test_no_address_outside_is_reached(tried, what):
    assert tried[what] in NOWHERE


def test_no_name_is_looked_up(tried):
    assert tried["names"] == "no answer"
    assert not tried["reached by datagrams"]


def test_sockets_of_servers_outside_are_not_there_unless_they_were_allowed(tried):
    assert tried["an abstract socket outside"] == errno.ECONNREFUSED
    assert tried["a socket file outside"] == errno.ECONNREFUSED
    assert tried["a socket file for datagrams outside"] == errno.ECONNREFUSED
    assert tried["a socket file that was allowed"] == "reached"
    assert tried["a mount taken off"] is False


LISTEN = (
    "import socket, sys; s = socket.socket(1); s.bind(sys.argv[1]); s.listen(); print(flush=True); sys.stdin.read()"
)


def test_a_socket_that_was_opened_by_a_relative_name_is_not_there(runner):
    place = runner.place / "relative"
    place.mkdir(exist_ok=True)
    if runner.user:
        os.chown(place, runner.user["user"], -1)
    serve = [SYSTEM_PYTHON, "-c", LISTEN, f"{os.getpid()}.sock"]
    with child(serve, cwd=place, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **runner.user) as server:
        server.stdout.readline()
        path = place / serve[-1]
        connect = f"import socket; print(socket.socket(1).connect_ex({str(path)!r}))"
        assert runner.run([SYSTEM_PYTHON, "-c", connect], network="host").out == "0\n"
        assert runner.run([SYSTEM_PYTHON, "-c", connect]).out == f"{errno.ECONNREFUSED}\n"
        server.stdin.close()


def test_memory_and_keys_of_others_of_the_same_user_are_not_there(tried):
    assert tried["shared memory of others"] == errno.ENOENT
    assert tried["memory of others by its name"] == errno.ENOENT
    assert tried["a key of who started it"] in {errno.ENOKEY, errno.EPERM, errno.ENOSYS}


def test_what_others_type_is_not_read_and_its_own_terminals_work(tried):
    assert tried["what others type"] == errno.ENOENT
    assert tried["a terminal of its own"].startswith("/dev/pts/")


def test_no_process_outside_can_be_moved_frozen_or_ended_by_its_cgroup(tried):
    assert tried["a cgroup of its own"] == []


def test_what_the_command_names_in_shared_memory_is_there_and_the_rest_is_its_own(plain, tmp_path):
    named, other = (Path(f"/dev/shm/keyhole-{what}-{os.getpid()}-{tmp_path.name}") for what in ("named", "other"))
    left = other.with_suffix(".left")
    named.mkdir(mode=0o755)
    try:
        other.touch()
        (named / "file").write_text("mine ")
        script = f'cat "$0/file"; ls /dev/shm; echo x > /dev/"shm"/{left.name}'
        outcome = plain.run(["/bin/sh", "-c", script, str(named)])
        assert outcome.out.startswith("mine ")
        assert named.name in outcome.out
        assert other.name not in outcome.out
        assert not left.exists()
    finally:
        other.unlink()
        (named / "file").unlink()
        named.rmdir()


def test_sockets_that_are_opened_later_where_those_of_users_are_do_not_appear(runner):
    user = runner.user.get("user", os.geteuid())
    folder = Path(f"/run/user/{user}")
    try:
        folder.mkdir(0o700, parents=True, exist_ok=True)
        os.chown(folder, user, -1)
    except OSError:
        pytest.skip("there is no folder for what programs of this user open, and none can be made")
    named, later = (folder / f"keyhole-{what}-{os.getpid()}" for what in ("named", "later"))
    script = 'echo ready; read go; cat "$0"; ls "$1" >/dev/null && echo "it is there"'
    named.write_text("mine\n")
    named.chmod(0o644)
    try:
        command = runner.command(["sh", "-c", script, str(named), str(later)])
        with child(**command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as driver:
            assert driver.stdout.readline() == b"ready\n"
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(str(later))
                assert driver.communicate(b"go\n", 60)[0] == b"mine\n"
    finally:
        named.unlink()
        later.unlink(missing_ok=True)


def test_a_local_port_that_was_allowed_is_reached(tried):
    assert tried["a port that was allowed"] == "reached"


@pytest.mark.parametrize(
    ("what", "refusals"),
    [
        ("the host of a virtual machine", {errno.EAFNOSUPPORT}),
        ("raw sockets", {errno.EPERM}),
        ("packets", {errno.EAFNOSUPPORT, errno.EPERM}),
        ("io_uring", {errno.ENOSYS}),
        ("a route", {errno.EPERM}),
    ],
)
def test_nothing_lets_it_past_the_namespace(tried, what, refusals):
    assert tried[what] in refusals


def test_what_is_beside_it_cannot_be_entered_traced_or_ended(tried):
    assert tried["ptrace of what is beside it"] == errno.EPERM
    assert set(tried["descriptors of what is beside it"]) <= {errno.EPERM, errno.EBADF}
    assert tried["namespaces of what is beside it"] == errno.EACCES
    assert tried["a kill of what is beside it"] == (errno.EPERM if scope.known() else "alive")


@pytest.mark.parametrize(
    "what",
    ["a namespace of its own", "the network of process 1", "the network of process 1, as root of a namespace"],
)
def test_no_other_namespace_leads_out(tried, what):
    assert tried[what] is False


def test_nothing_is_inherited_but_the_three_streams(tried):
    assert tried["inherited descriptors"] == []
    assert tried["environments with the canary"] == []


def test_the_machines_network_is_left_to_who_asks_for_it(plain):
    with socket.create_server(("127.0.0.1", 0)) as server:
        reach = (
            f"import socket; socket.create_connection(('127.0.0.1', {server.getsockname()[1]}), 5); print('reached')"
        )
        outcome = plain.run([SYSTEM_PYTHON, "-c", reach], network="host")
    assert (outcome.level, outcome.network, outcome.out) == ("full", "open", "reached\n")


FORBID = 'echo 0 > /proc/sys/user/max_net_namespaces; exec "$@"'


@pytest.mark.parametrize("wish", ["broker", "auto"])
def test_a_system_without_network_namespaces_is_said_to_be_one(plain, wish):
    told = plain.place / "told"
    told.unlink(missing_ok=True)
    command = plain.command(["echo", "ran"], network=wish, told=str(told))
    command["args"] = ["unshare", "-Ur", "sh", "-c", FORBID, "sh", *command["args"]]
    done = subprocess.run(**command, capture_output=True, text=True, timeout=60, check=False)
    said = json.loads(told.read_text())
    if wish == "broker":
        assert (done.returncode, done.stdout) == (125, "")
        assert "network namespaces are not allowed" in said["messages"][0]
    else:
        assert (done.returncode, done.stdout) == (0, "ran\n")
        assert (said["level"], said["network"]) == ("partial", "open")
        assert any("past the broker" in line for line in said["missing"])


def test_without_a_sandbox_a_network_of_its_own_is_refused(plain):
    outcome = plain.run(["true"], sandbox="off", network="broker")
    assert outcome.code == 125
    assert "network of its own" in outcome.messages[0]

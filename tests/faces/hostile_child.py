"""A command that tries to get out of the network that `keyhole run` gave it; what came of each try, as JSON.

Run by the interpreter of the system, as whoever the test wants. Argument: what to try things on, as JSON.
"""

import ctypes
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
FOUND = {}
GIVEN = json.loads(sys.argv[1])


def attempt(name):
    def decorate(function):
        try:
            FOUND[name] = function()
        except OSError as error:
            FOUND[name] = error.errno
        return function

    return decorate


def reach(family, kind, address):
    with socket.socket(family, kind) as handle:
        handle.settimeout(5)
        handle.connect(address)
        handle.send(b"canary\n")
        return "reached"


def call(number, *arguments):
    result = LIBC.syscall(number, *arguments)
    return "done" if result >= 0 else ctypes.get_errno()


STREAM, DATAGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM


@attempt("inherited descriptors")
def _():
    return [path.name for path in sorted(Path("/proc/self/fd").iterdir()) if int(path.name) > 2 and path.is_symlink()]


attempt("TCP to loopback outside")(lambda: reach(socket.AF_INET, STREAM, ("127.0.0.1", GIVEN["tcp"])))
attempt("TCP to loopback outside, version 6")(lambda: reach(socket.AF_INET6, STREAM, ("::1", GIVEN["tcp"])))
attempt("TCP to the machine's address")(lambda: reach(socket.AF_INET, STREAM, (GIVEN["address"], GIVEN["tcp"])))
attempt("TCP to the internet")(lambda: reach(socket.AF_INET, STREAM, ("192.0.2.1", 443)))
attempt("TCP to the internet, version 6")(lambda: reach(socket.AF_INET6, STREAM, ("2001:db8::1", 443)))
attempt("metadata of a cloud")(lambda: reach(socket.AF_INET, STREAM, ("169.254.169.254", 80)))
attempt("UDP to the internet")(lambda: reach(socket.AF_INET, DATAGRAM, ("192.0.2.1", 53)))
attempt("UDP to loopback outside")(lambda: reach(socket.AF_INET, DATAGRAM, ("127.0.0.1", GIVEN["udp"])))
attempt("an abstract socket outside")(lambda: reach(socket.AF_UNIX, STREAM, "\0" + GIVEN["abstract"]))
attempt("a socket file outside")(lambda: reach(socket.AF_UNIX, STREAM, GIVEN["file"]))
attempt("a socket file for datagrams outside")(lambda: reach(socket.AF_UNIX, DATAGRAM, GIVEN["datagrams"]))
attempt("a socket file that was allowed")(lambda: reach(socket.AF_UNIX, STREAM, GIVEN["allowed"]))
attempt("a port that was allowed")(lambda: reach(socket.AF_INET, STREAM, ("127.0.0.1", GIVEN["local"])))
attempt("the host of a virtual machine")(lambda: socket.socket(40, STREAM) and "opened")
attempt("raw sockets")(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1) and "opened")
attempt("packets")(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW) and "opened")
attempt("io_uring")(lambda: call(425, 1, ctypes.create_string_buffer(120)))


@attempt("names")
def _():
    try:
        return socket.getaddrinfo("example.com", 443) and "answered"
    except socket.gaierror:
        return "no answer"


@attempt("a route")
def _():
    route = struct.pack("=BBBBBBBBI", socket.AF_INET, 0, 0, 0, 254, 3, 0, 1, 0) + struct.pack("=HHI", 8, 4, 1)
    head = struct.pack("=IHHII", 16 + len(route), 24, 0x605, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as kernel:
        kernel.bind((0, 0))
        kernel.send(head + route)
        number = struct.unpack("=IHHIIi", kernel.recv(4096)[:20])[5]
        return -number or "added"


@attempt("shared memory of others")
def _():
    identity = LIBC.shmget(GIVEN["memory"], 0, 0)
    return "found" if identity >= 0 else ctypes.get_errno()


@attempt("a key of who started it")
def _():
    number = {"x86_64": 250, "aarch64": 219}[os.uname().machine]
    found = LIBC.syscall(number, 10, ctypes.c_int(-3), b"user", b"keyhole-canary", 0)  # search the session's keyring
    return "found" if found >= 0 else ctypes.get_errno()


@attempt("memory of others by its name")
def _():
    return Path("/dev/shm", GIVEN["named memory"]).read_bytes().decode() or "read"


@attempt("what others type")
def _():
    terminal = os.open(GIVEN["terminal"], os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    return os.read(terminal, 100).decode()


@attempt("a terminal of its own")
def _():
    _, terminal = os.openpty()
    return os.ttyname(terminal)


@attempt("a cgroup of its own")
def _():
    made = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place = line.split()[4]
        if place.startswith("/sys/fs/cgroup"):
            with suppress(OSError):
                Path(place, "keyhole-test").mkdir()
                made.append(place)
                Path(place, "keyhole-test").rmdir()
    return made


@attempt("ptrace of what is beside it")
def _():
    return call({"x86_64": 101, "aarch64": 117}[os.uname().machine], 16, 1, 0, 0)


@attempt("descriptors of what is beside it")
def _():
    pidfd = os.pidfd_open(1) if hasattr(os, "pidfd_open") else LIBC.syscall(434, 1, 0)
    return [call(438, pidfd, number, 0) for number in range(12)]


@attempt("namespaces of what is beside it")
def _():
    return str(Path("/proc/1/ns/net").readlink())


@attempt("a kill of what is beside it")
def _():
    for number in (signal.SIGKILL, signal.SIGSTOP):
        os.kill(1, number)
    return "alive"


def run(*argv):
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    return "canary" in done.stdout + done.stderr or done.returncode == 0


PYTHON = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5).send(b'canary')"
AGAIN = [sys.executable, "-c", PYTHON, str(GIVEN["tcp"])]
attempt("a namespace of its own")(lambda: run("unshare", "-Urn", *AGAIN))
attempt("the network of process 1")(lambda: run("nsenter", "-t", "1", "-n", *AGAIN))
attempt("the network of process 1, as root of a namespace")(
    lambda: run("unshare", "-Ur", "nsenter", "-t", "1", "-n", *AGAIN)
)
UNDO = "umount {0}; umount -l {0}; {1} -c \"import socket; socket.socket(1).connect('{0}'); print('canary')\""
attempt("a mount taken off")(lambda: run("unshare", "-Urm", "sh", "-c", UNDO.format(GIVEN["file"], sys.executable)))


@attempt("environments with the canary")
def _():
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if b"KEYHOLE_CANARY" in (process / "environ").read_bytes():
                found.append(process.name)
    return found


print(json.dumps(FOUND))

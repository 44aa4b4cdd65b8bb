"""The cases. Each measures every subject once a round, in turn, and gives numbers by the subject's name."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol, TypeVar

from bench import api, leases, peers, tools
from bench.growth import GROWN, Grown, Size
from bench.growth import growth as grown
from bench.load import Job
from bench.machine import cores, cpu_seconds, free_cores, pair, pinned, program, rss_bytes, sync_rate
from bench.scrubbing import scrubbing
from bench.subjects import Direct, Keyhole, NginxProxy, Subject
from bench.tenants import tenants
from bench.upstream import LARGE, Upstream

Numbers = dict[str, float]
_DURABLE = frozenset({"write", "login", "create"})


class _Closing(Protocol):
    def close(self) -> None: ...


_Started = TypeVar("_Started", bound=_Closing)


@dataclass
class Field:
    """Everything that takes part.

    Attributes:
        folder: a real directory; the vault lies in it.
        seconds: for each measurement.
        large: bytes of the large file.
        tunnels: idle ones.
        leases: of databases that end within two seconds; ten times as many one-time passwords within one.
        many: leases in a store that a server starts on.
        tools: of one server, in a list.
        servers: of tools, at once.
        size: of the vault that has grown.
        peers: other programs that take part, by name.
    """

    folder: Path
    seconds: float
    large: int
    tunnels: int
    leases: int = 1000
    many: int = 100_000
    tools: int = 500
    servers: int = 50
    size: Size = GROWN
    peers: list[Subject] = field(default_factory=list)
    ending: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @cached_property
    def upstream(self) -> Upstream:
        """Started when a case asks for it, as all that follow."""
        return self._until_the_end(Upstream(self.folder / "upstream", cores()[1], self.large))

    @cached_property
    def direct(self) -> Direct:
        return Direct(self.upstream)

    @cached_property
    def nginx(self) -> NginxProxy:
        return self._until_the_end(NginxProxy(self.folder / "nginx", cores()[0], self.upstream))

    @cached_property
    def keyhole(self) -> Keyhole:
        return self._until_the_end(Keyhole(self.folder / "keyhole", cores()[0], self.upstream))

    @cached_property
    def workers(self) -> dict[str, Keyhole]:
        """The same server as one process and as two, on the same two cores."""
        return {
            name: self._until_the_end(Keyhole(self.folder / f"workers-{name}", pair(), self.upstream, count))
            for name, count in (("one", 1), ("keyhole", 2))
        }

    @cached_property
    def sqlite(self) -> api.Server:
        return self._until_the_end(api.Server(self.folder / "sqlite", cores()[0]))

    @cached_property
    def memory(self) -> api.Server:
        return self._until_the_end(api.Server(self.folder / "memory", cores()[0], memory=True))

    @cached_property
    def small(self) -> Grown:
        return self._until_the_end(Grown(self.folder / "small", cores()[0], self.upstream, self.size.small()))

    @cached_property
    def grown(self) -> Grown:
        return self._until_the_end(Grown(self.folder / "grown", cores()[0], self.upstream, self.size))

    def start_peer(self, name: str) -> None:
        """Let another program take part."""
        self.peers.append(self._until_the_end(peers.start(name, self.folder / name, cores()[0], self.upstream)))

    def _until_the_end(self, started: _Started) -> _Started:
        self.ending.callback(started.close)
        return started

    @property
    def subjects(self) -> list[Subject]:
        return [self.direct, self.nginx, self.keyhole, *self.peers]


@contextlib.contextmanager
def playing(
    seconds: float,
    *,
    large: int = LARGE,
    tunnels: int = 1000,
    leases: int = 1000,
    many: int = 100_000,
    tools: int = 500,
    servers: int = 50,
    size: Size = GROWN,
    folder: str | None = None,
    with_peers: Sequence[str] = (),
) -> Iterator[Field]:
    """A directory that is removed at the end; what the cases ask for is started in it."""
    with contextlib.ExitStack() as stack:
        where = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="keyhole-bench-", dir=folder)))
        where.chmod(0o755)  # workers of nginx may run as another user
        field_ = Field(where, seconds, large, tunnels, leases, many, tools, servers, size)
        stack.enter_context(field_.ending)
        for name in with_peers:
            field_.start_peer(name)
        yield field_


def generate(job: Job) -> Numbers:
    """Run the load generator on its core."""
    with _generator() as process:
        out, _ = process.communicate(job.encode() + b"\n", timeout=300)
    if process.returncode:
        raise SystemExit("the load generator failed")
    numbers: Numbers = json.loads(out)
    return numbers


def _generator() -> subprocess.Popen[bytes]:
    _, other = cores()
    command = pinned(other, sys.executable, "-m", "bench.load")
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def _loaded(job: Job, pid: int) -> Numbers:
    """Run a job; also what it cost the subject, in microseconds of processor time a request."""
    before = cpu_seconds(pid) if pid else 0.0
    begin = time.perf_counter()
    numbers = generate(job)
    took = time.perf_counter() - begin
    if pid:
        used = cpu_seconds(pid) - before
        numbers["cpu"] = used / numbers["all"] * 1e6
        numbers["used"] = used / took
    return numbers


def _flood(scheme: str, connections: int, mode: str = "keepalive") -> Callable[[Field], dict[str, Numbers]]:
    def run(field_: Field) -> dict[str, Numbers]:
        found = {}
        for subject in field_.subjects:
            with contextlib.suppress(LookupError):  # some do not speak this scheme
                job = subject.job(scheme, "/small", mode, connections=connections, seconds=field_.seconds)
                found[subject.name] = _loaded(job, subject.pid)
        return found

    return run


def http2(field_: Field) -> dict[str, Numbers]:
    """HTTP/2 of clients beside their HTTP/1.1: 64 requests at once over TLS, on few connections and on as many."""
    keyhole, seconds = field_.keyhole, field_.seconds
    jobs = {
        "http1": keyhole.job("https", "/small", "keepalive", connections=64, seconds=seconds),
        "http2": keyhole.http2_job("/small", connections=4, count=16, seconds=seconds),
        "http2-64": keyhole.http2_job("/small", connections=64, count=1, seconds=seconds),
    }
    return {name: _loaded(job, keyhole.pid) for name, job in jobs.items()}


def workers(field_: Field) -> dict[str, Numbers]:
    """A second worker: requests over 64 connections with TLS, to one process and to two on the same two cores."""
    free = free_cores()  # before anything runs here
    found: dict[str, Numbers] = {"machine": {"free": free}}
    for name, keyhole in field_.workers.items():
        job = keyhole.job("https", "/small", "keepalive", connections=64, seconds=field_.seconds)
        found[name] = _loaded(job, keyhole.pid)
    return found


def stream(field_: Field) -> dict[str, Numbers]:
    """Events: time to the first, and delay of each on its way."""
    found = {}
    for subject in field_.subjects:
        found[subject.name] = generate(subject.job("https", "/events", "stream", count=5))
    return found


def large(field_: Field) -> dict[str, Numbers]:
    """One large body over TLS: megabytes a second, and how much the subject's memory grows."""
    found = {}
    for subject in field_.subjects:
        generate(subject.job("https", "/small", "download"))
        before = rss_bytes(subject.pid) if subject.pid else 0
        numbers = generate(subject.job("https", "/large", "download"))
        if subject.pid:
            numbers["growth_mb"] = (rss_bytes(subject.pid) - before) / 1e6
        found[subject.name] = numbers
    return found


def idle(field_: Field) -> dict[str, Numbers]:
    """Memory with tunnels that have served one request each and wait."""
    found: dict[str, Numbers] = {}
    for subject in (field_.nginx, field_.keyhole):
        before = rss_bytes(subject.pid)
        job = subject.job("https", "/small", "idle", connections=field_.tunnels)
        with _generator() as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(job.encode() + b"\n")
            process.stdin.flush()
            state = json.loads(process.stdout.readline())
            found[subject.name] = {"rss_mb": rss_bytes(subject.pid) / 1e6, "before_mb": before / 1e6, **state}
            process.stdin.close()
            process.stdout.read()
    return found


def _api(asked: str, connections: int) -> Callable[[Field], dict[str, Numbers]]:
    """A request to the API, beside a static file of nginx and, where it is durable, the disk's own rate of syncs."""

    def run(field_: Field) -> dict[str, Numbers]:
        settings = {"connections": connections, "seconds": field_.seconds}
        found = {"nginx": _loaded(field_.nginx.static_job("keepalive", **settings), field_.nginx.pid)}
        if asked in _DURABLE:
            with tempfile.TemporaryDirectory(dir=field_.folder) as folder:
                found["disk"] = {"rate": sync_rate(Path(folder), min(0.5, field_.seconds))}
        for name, server in (("keyhole", field_.sqlite), ("memory", field_.memory)):
            found[name] = _loaded(api.JOBS[asked](server)(**settings), server.pid)
        return found

    return run


def audited(field_: Field) -> dict[str, Numbers]:
    """Audited reads at 64 at once, through the door and over HTTP; the disk's own rate of syncs before and after."""
    subject, _ = cores()
    with tempfile.TemporaryDirectory(dir=field_.folder) as folder:
        part = min(0.5, field_.seconds / 2)
        sync = sync_rate(Path(folder), part)
        command = pinned(subject, sys.executable, "-m", "bench.door", folder, str(field_.seconds))
        out = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        sync = (sync + sync_rate(Path(folder), part)) / 2
    api = _loaded(field_.sqlite.read(connections=64, seconds=field_.seconds), field_.sqlite.pid)
    return {"disk": {"rate": sync}, "door": json.loads(out), "api": api}


def _in_a_folder(measure: Callable[[Path], dict[str, Numbers]], field_: Field) -> dict[str, Numbers]:
    with tempfile.TemporaryDirectory(dir=field_.folder) as folder:
        return measure(Path(folder))


def lease_issue(field_: Field) -> dict[str, Numbers]:
    """Users of a real PostgreSQL made and taken back, a second."""
    return _in_a_folder(lambda folder: leases.issue(folder, field_.seconds), field_)


def lease_end(field_: Field) -> dict[str, Numbers]:
    """How late users of a real PostgreSQL are gone when all their leases end within two seconds."""
    return _in_a_folder(lambda folder: leases.end(folder, field_.leases), field_)


def lease_burst(field_: Field) -> dict[str, Numbers]:
    """Ten times as many one-time passwords that end within one second, and the API meanwhile."""
    return _in_a_folder(lambda folder: leases.burst(folder, field_.leases * 10), field_)


def lease_many(field_: Field) -> dict[str, Numbers]:
    """A server that starts over very many leases."""
    return _in_a_folder(lambda folder: leases.many(folder, field_.many), field_)


def mcp_call(field_: Field) -> dict[str, Numbers]:
    """A call of a tool, bare and through the gateway in turn."""
    return _in_a_folder(lambda folder: tools.one(folder, field_.seconds), field_)


def mcp_list(field_: Field) -> dict[str, Numbers]:
    """A list of very many tools, the same."""
    return _in_a_folder(lambda folder: tools.listed(folder, field_.seconds, field_.tools), field_)


def mcp_many(field_: Field) -> dict[str, Numbers]:
    """Very many servers behind one gateway, beside one."""
    return _in_a_folder(lambda folder: tools.many(folder, field_.seconds, field_.servers), field_)


def of_tenants(field_: Field) -> dict[str, Numbers]:
    """Calls of an org while another one floods."""
    return tenants(field_.keyhole, field_.seconds)


def growth(field_: Field) -> dict[str, Numbers]:
    """The same requests to a vault with a hundred of each thing, and to one with very many."""
    return grown(field_.small, field_.grown, field_.seconds, generate)


def cli(field_: Field) -> dict[str, Numbers]:
    """Start-up: seconds that a command takes, beside an empty Python program."""
    subject, _ = cores()
    commands = {
        "python": [sys.executable, "-c", "pass"],
        "help": [program(), "--help"],
        "list": [program(), "list", *field_.keyhole.command],
    }
    found = {}
    for name, command in commands.items():
        took = []
        for _ in range(max(1, min(5, int(field_.seconds * 5)))):
            begin = time.perf_counter()
            subprocess.run(pinned(subject, *command), capture_output=True, check=True)
            took.append(time.perf_counter() - begin)
        found[name] = {"seconds": sorted(took)[len(took) // 2]}
    return found


def scrubbed(field_: Field) -> dict[str, Numbers]:
    """Logs through the scrubbers of known values and of shapes, as far as a tenth of the large body."""
    return scrubbing(max(field_.large // 10, 100_000))


CASES: dict[str, Callable[[Field], dict[str, Numbers]]] = {
    "plain-1": _flood("http", 1),
    "plain-64": _flood("http", 64),
    "tls-1": _flood("https", 1),
    "tls-64": _flood("https", 64),
    "connect-16": _flood("https", 16, "fresh"),
    "http2": http2,
    "workers": workers,
    "stream": stream,
    "large": large,
    "tenants": of_tenants,
    "idle": idle,
    "audited": audited,
    **{f"api-{asked}-{number}": _api(asked, number) for asked in api.JOBS for number in api.CONNECTIONS},
    "leases-issue": lease_issue,
    "leases-end": lease_end,
    "leases-burst": lease_burst,
    "leases-many": lease_many,
    "scrubbing": scrubbed,
    "mcp-call": mcp_call,
    "mcp-list": mcp_list,
    "mcp-many": mcp_many,
    "cli": cli,
    "growth": growth,
}
ON_REQUEST = frozenset({"growth", "workers"})

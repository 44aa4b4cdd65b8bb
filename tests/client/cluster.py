"""Two servers over one vault in a file, whose mount ``database`` makes users of the tests' PostgreSQL."""

import contextlib
import itertools
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg

import database_server
import postgres_server
from cli_driver import environment, serving, spawn
from engines.database_world import CONFIG, CREATION
from keyhole.client import Client
from keyhole.client.failover import Failover
from keyhole.client.http import HttpTransport
from keyhole.core.errors import Expired

ROLES = {"long": ("1h", "2h"), "brief": ("10s", "1h"), "short": ("4s", "1h"), "capped": ("2s", "3s")}


@dataclass
class Server:
    url: str
    process: object
    pid: int

    def freeze(self):
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self):
        os.kill(self.pid, signal.SIGCONT)

    def kill(self):
        os.kill(self.pid, signal.SIGKILL)
        self.process.wait()


@dataclass
class Cluster:
    token: str
    start: Callable[[], Any]
    servers: list[Server] = field(default_factory=list)

    @property
    def address(self):
        return ",".join(server.url for server in self.servers)

    def client(self, *servers, last=30.0):
        """A client of these servers, which waits long for the last of them only."""
        timeouts = [0.3] * (len(servers) - 1) + [last]
        transports = [
            HttpTransport(each.url, token=self.token, timeout=timeout)
            for each, timeout in zip(servers, timeouts, strict=True)
        ]
        return Client(transport=Failover(transports))

    def ask(self, method, *args):
        with Client(self.servers[-1].url, token=self.token) as client:
            return getattr(client, method)(*args)

    def thaw(self):
        for server in self.servers:
            with contextlib.suppress(ProcessLookupError):
                server.thaw()


@contextlib.contextmanager
def cluster(folder, count=2):
    url = database_server.started()
    database_server.reset_root()
    env = environment(KEYHOLE_HOME=str(folder / "home"))
    seal = f"keyfile:{folder / 'key'}"
    where = ("--vault", f"sqlite:{folder / 'vault' / 'vault.db'}")
    made = spawn("init", *where, "--seal", seal, "--make-keyfile", "--json", env=env)
    assert made.code == 0, made
    with contextlib.ExitStack() as stack:
        numbers = itertools.count()

        @contextlib.contextmanager
        def start():
            data = ("--data", folder / f"data{next(numbers)}")
            with serving(*where, "--seal", seal, *data, env=env) as (process, started):
                yield Server(started["api"], process, started["pid"])

        found = Cluster(made.json["root_token"], start)
        found.servers += [stack.enter_context(start()) for _ in range(count)]
        stack.callback(found.thaw)
        found.ask("write", "sys/mounts/database", {"type": "database"})
        found.ask("write", "database/config/pg", {**CONFIG, "connection_url": url})
        for name, (ttl, longest) in ROLES.items():
            role = {"db_name": "pg", "creation_statements": CREATION, "default_ttl": ttl, "max_ttl": longest}
            found.ask("write", f"database/roles/{name}", role)
        yield found


def users():
    with postgres_server.superuser() as connection:
        return {name for (name,) in connection.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%'")}


def gets_in(fields):
    try:
        database_server.log_in(fields["username"], fields["password"]).close()
    except psycopg.OperationalError:
        return False
    return True


def works(creds):
    try:
        return gets_in(creds.fields())
    except Expired:
        return False


def until(true, seconds=40.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it has not come to be"
        time.sleep(0.02)

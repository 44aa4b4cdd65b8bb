"""Load on the API: what machines ask most, of a server on a SQLite store and of one in memory.

Every server has a token of an ordinary policy, a secret for each connection, a transit key, and an AppRole role.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.load import Job
from bench.machine import pinned, program

CONNECTIONS = (1, 8, 64)
_POLICY = """
path "secret/data/bench/*" { capabilities = ["create", "read", "update"] }
path "transit/encrypt/bench" { capabilities = ["update"] }
path "auth/token/create" { capabilities = ["update"] }
"""
_VALUE = "v" * 64
_PLAINTEXT = base64.b64encode(_VALUE.encode()).decode()


class Server:
    """``keyhole server`` with what the cases ask of it.

    Args:
        folder: for its files; with ``memory`` it is not used for the vault.
        core: where it runs.
        memory: keep the vault in memory (``--dev``).

    Attributes:
        pid: of its process.
        folder: of its files.
    """

    def __init__(self, folder: Path, core: set[int], *, memory: bool = False) -> None:
        folder.mkdir(parents=True, mode=0o700)
        command = [program(), "server", "--listen", "127.0.0.1:0", "--proxy-listen", "127.0.0.1:0", "--json"]
        command += ["--data", str(folder)]
        environment = {**os.environ, "KEYHOLE_HOME": str(folder)}
        root = ""
        if memory:
            command.append("--dev")
        else:
            where = ["--vault", f"sqlite:{folder}/vault.db", "--seal", f"keyfile:{folder}/key"]
            made = subprocess.run(
                [program(), "init", *where, "--make-keyfile", "--json"],
                env=environment,
                check=True,
                stdout=subprocess.PIPE,
            )
            root = json.loads(made.stdout)["root_token"]
            command += where
        self.folder = folder
        self._started = pinned(core, *command), environment
        self._login: dict[str, str] = {}
        self._token = root
        self.start()
        self._prepare()

    def start(self) -> None:
        """Start it, again after ``close``."""
        command, environment = self._started
        self._process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert self._process.stdout is not None
        started = json.loads(self._process.stdout.readline() or b"{}")
        if not started:
            raise SystemExit("the server of the benchmark did not start")
        self.pid = self._process.pid
        host, _, port = started["api"].rpartition("/")[2].rpartition(":")
        self._address = host, int(port)
        self._token = self._token or started["root_token"]

    def _prepare(self) -> None:
        self._ask("POST", "sys/mounts/transit", {"type": "transit"})
        self._ask("POST", "sys/auth/approle", {"type": "approle"})
        self._ask("POST", "transit/keys/bench", {})
        self._ask("POST", "sys/policies/acl/bench", {"policy": _POLICY})
        self._ask("POST", "auth/approle/role/bench", {"token_policies": "bench", "token_ttl": "1h"})
        role = self._ask("GET", "auth/approle/role/bench/role-id")["data"]["role_id"]
        secret = self._ask("POST", "auth/approle/role/bench/secret-id", {})["data"]["secret_id"]
        self._login = {"role_id": role, "secret_id": secret}
        for number in range(max(CONNECTIONS)):
            self._ask("POST", f"secret/data/bench/{number:02}", {"data": {"value": _VALUE}})
        self._token = self._ask("POST", "auth/approle/login", self._login)["auth"]["client_token"]

    def _ask(self, method: str, path: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
        connection = http.client.HTTPConnection(*self._address)
        body = None if data is None else json.dumps(data)
        connection.request(method, f"/v1/{path}", body, {"X-Vault-Token": self._token})
        response = connection.getresponse()
        text = response.read()
        connection.close()
        if response.status >= 300:
            raise SystemExit(f"{method} {path}: {text[:500]!r}")
        answer: dict[str, Any] = json.loads(text or b"{}")
        return answer

    def _job(self, path: str, data: dict[str, Any] | None, *, token: bool = True) -> Callable[..., Job]:
        body = "" if data is None else json.dumps(data)
        lines = [
            f"{'GET' if data is None else 'POST'} /v1/{path} HTTP/1.1",
            f"Host: {self._address[0]}:{self._address[1]}",
            *([f"X-Vault-Token: {self._token}"] if token else []),
            *([f"Content-Type: application/json\r\nContent-Length: {len(body)}"] if body else []),
        ]
        request = "\r\n".join([*lines, "", body])
        return lambda **settings: Job("keepalive", self._address, request, **settings)

    @property
    def read(self) -> Callable[..., Job]:
        """KV v2: every connection reads a secret of its own."""
        return self._job("secret/data/bench/NUMBER", None)

    @property
    def write(self) -> Callable[..., Job]:
        """KV v2: every connection writes new versions of a secret of its own."""
        return self._job("secret/data/bench/NUMBER", {"data": {"value": _VALUE}})

    @property
    def encrypt(self) -> Callable[..., Job]:
        """Transit: 64 bytes under one key."""
        return self._job("transit/encrypt/bench", {"plaintext": _PLAINTEXT})

    @property
    def login(self) -> Callable[..., Job]:
        """AppRole: role id and secret id for a new token, which is stored."""
        return self._job("auth/approle/login", self._login, token=False)

    @property
    def create(self) -> Callable[..., Job]:
        """Tokens: a child of the token that asks, which is stored."""
        return self._job("auth/token/create", {"ttl": "1h"})

    def close(self) -> None:
        """End the server."""
        self._process.terminate()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


JOBS: dict[str, Callable[[Server], Callable[..., Job]]] = {
    "read": lambda server: server.read,
    "write": lambda server: server.write,
    "encrypt": lambda server: server.encrypt,
    "login": lambda server: server.login,
    "create": lambda server: server.create,
}

"""A real server on a real port: started sealed, opened over HTTP, and careful with what it knows."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import postgres_server

PASSPHRASE = "correct horse battery staple"
SERVER = """
import asyncio, ctypes, json, sys
from keyhole.app import assemble, serve
from keyhole.config import Config
from keyhole.core.value import Secret
given = json.loads(sys.stdin.readline())
config = Config(vault=given["vault"], listen="127.0.0.1:0", proxy_listen="127.0.0.1:0", data=given["data"])
async def main():
    if given["init"]:
        keyhole = await assemble(config, create=True)
        print(json.dumps({"token": await keyhole.node.init("passphrase", Secret(given["passphrase"]))}), flush=True)
        await keyhole.close()
    def ready(started):
        dumpable = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) if sys.platform == "linux" else 0
        print(json.dumps({"api": started.api, "proxy": started.proxy, "dumpable": dumpable}), flush=True)
    await serve(config, passphrase=Secret(given["passphrase"]) if given["open"] else None, on_ready=ready)
asyncio.run(main())
"""


class Server:
    def __init__(self, folder, *, init, opened, vault):
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        given = {
            "vault": vault or f"sqlite:{folder}/private/vault.db",
            "data": str(folder / "data"),
            "init": init,
            "open": opened,
        }
        self.process.stdin.write(json.dumps({**given, "passphrase": PASSPHRASE}) + "\n")
        self.process.stdin.flush()
        self.token = json.loads(self.process.stdout.readline())["token"] if init else ""
        started = json.loads(self.process.stdout.readline())
        self.dumpable = started["dumpable"]
        self.port = int(started["api"].rpartition(":")[2])

    def ask(self, method, path, body=None, *, token=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            sent = {"X-Vault-Token": token or self.token, **(headers or {})}
            connection.request(method, path, json.dumps(body) if body is not None else None, sent)
            answer = connection.getresponse()
            raw = answer.read()
            return answer.status, json.loads(raw) if raw else None
        finally:
            connection.close()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=30)
        return errors


@contextlib.contextmanager
def serving(folder, *, init=False, opened=True, vault=""):
    server = Server(folder, init=init, opened=opened, vault=vault)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()


def test_a_server_keeps_what_it_was_told_over_a_restart_and_starts_sealed_without_its_passphrase(tmp_path):
    with serving(tmp_path, init=True) as server:
        token = server.token
        assert server.ask("POST", "/v1/secret/data/a/b", {"data": {"v": "kept"}})[0] == 200
        assert server.ask("LIST", "/v1/secret/metadata/a")[1]["data"]["keys"] == ["b"]
        assert server.ask("GET", "/v1/secret/metadata?list=true")[0] == 200
        assert server.ask("GET", "/v1/secret/data/a/b", headers={"Host": "evil.example"})[0] == 403
        assert server.stop() == ""
        assert server.process.returncode == 0
    with serving(tmp_path, opened=False) as server:
        assert server.ask("GET", "/readyz")[0] == 503
        assert server.ask("GET", "/v1/sys/health")[0] == 503
        assert server.ask("GET", "/v1/secret/data/a/b", token=token) == (503, {"errors": ["Vault is sealed"]})
        assert server.ask("PUT", "/v1/sys/init", {"passphrase": "another passphrase"})[0] == 400
        for key, words in (("wrong", "does not open"), ("", "must be specified")):
            status, answer = server.ask("PUT", "/v1/sys/unseal", {"key": key})
            assert status == 400
            assert words in answer["errors"][0]
        assert server.ask("GET", "/v1/sys/seal-status")[1]["sealed"]
        assert server.ask("PUT", "/v1/sys/unseal", {"key": PASSPHRASE})[1]["sealed"] is False
        assert server.ask("GET", "/readyz")[0] == 200
        assert server.ask("GET", "/v1/secret/data/a/b", token=token)[1]["data"]["data"] == {"v": "kept"}
        assert server.ask("GET", "/v1/sys/audit-log/verify", token=token)[1]["data"]["valid"]


@pytest.mark.skipif(sys.platform != "linux", reason="/proc and prctl are Linux")
def test_a_server_shows_its_passphrase_to_no_other_process(tmp_path):
    with serving(tmp_path, init=True) as server:
        proc = Path("/proc") / str(server.process.pid)
        for name in ("environ", "cmdline"):
            assert PASSPHRASE.encode() not in (proc / name).read_bytes()
        assert server.dumpable == 0
        if os.geteuid() == 0:
            script = f"import os; os.setuid(65534); open('/proc/{server.process.pid}/mem', 'rb')"
            peeping = subprocess.run(["/usr/bin/env", "python3", "-c", script], capture_output=True, check=False)
            assert peeping.returncode != 0
        assert PASSPHRASE not in server.stop()


@pytest.mark.parametrize("member", ["sqlite", "postgres"])
def test_two_servers_on_one_store_are_two_nodes_of_one_vault(tmp_path, member):
    vault = postgres_server.location() if member == "postgres" else ""
    with serving(tmp_path, init=True, vault=vault) as one, serving(tmp_path, vault=vault) as two:
        two.token = one.token
        statuses = []

        def write(server, name):
            statuses.extend(server.ask("POST", f"/v1/secret/data/{name}{n}", {"data": {"n": n}})[0] for n in range(15))

        threads = [
            threading.Thread(target=write, args=(s, n)) for s, n in ((one, "a"), (two, "b"), (one, "c"), (two, "c"))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert statuses == [200] * 60
        assert one.ask("GET", "/v1/secret/data/b3")[1]["data"]["data"] == {"n": 3}
        assert two.ask("GET", "/v1/secret/metadata/c3")[1]["data"]["current_version"] == 2
        made = one.ask("POST", "/v1/auth/token/create", {"policies": ["default"]})[1]["auth"]["client_token"]
        assert two.ask("GET", "/v1/auth/token/lookup-self", token=made)[0] == 200
        assert one.ask("POST", "/v1/auth/token/revoke", {"token": made})[0] == 204
        assert two.ask("GET", "/v1/auth/token/lookup-self", token=made)[0] == 403
        one.process.kill()
        one.process.communicate()
        assert two.ask("GET", "/v1/secret/data/a3")[1]["data"]["data"] == {"n": 3}
        assert two.ask("GET", "/v1/sys/audit-log/verify")[1]["data"]["valid"]

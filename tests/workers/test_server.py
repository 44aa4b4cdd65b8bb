"""One server of two workers, as a process: what its users notice, and who looks at its processes."""

import asyncio
import base64
import http.client
import json
import os
import signal
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from cli_driver import environment, serving, spawn
from keyhole.core.value import Secret
from keyhole.seals import open_seal
from keyhole.stores import open_store
from keyhole.vault.keys import read_header

PASSPHRASE = "correct horse battery staple"
PATIENCE = 60.0


class _Upstream(BaseHTTPRequestHandler):
    """Says who it is told to be; below `/events` it goes on for ever."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path != "/events":
            body = self.headers.get("authorization", "nobody").encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            while not self.server.ending.wait(0.2):
                self.wfile.write(b"data: tick\n\n")
        except OSError:
            pass
        self.close_connection = True

    def log_message(self, *_about):
        pass


@pytest.fixture(scope="module")
def upstream():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Upstream)
    server.daemon_threads = True
    server.ending = threading.Event()
    serve = threading.Thread(target=server.serve_forever, args=(0.05,))
    serve.start()
    yield server.server_address[1]
    server.ending.set()
    server.shutdown()
    serve.join()
    server.server_close()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A vault with a passphrase."""
    folder = tmp_path_factory.mktemp("workers")
    (folder / "pass").write_text(PASSPHRASE + "\n")
    env = environment(KEYHOLE_HOME=str(folder / "home"), KEYHOLE_VAULT=f"sqlite:{folder / 'vault.db'}")
    made = spawn("init", "--seal", "passphrase", "--passphrase-file", folder / "pass", "--json", env=env)
    return folder, env, made.json["root_token"]


@pytest.fixture(scope="module")
def server(place):
    folder, env, token = place
    options = ("--workers", "2", "--passphrase-file", folder / "pass", "--proxy-socket", folder / "proxy.sock")
    with serving(*options, env=env) as (_, started):
        yield Server(started, token, folder)


class Server:
    def __init__(self, started, token, folder):
        self.pid = started["pid"]
        self.started = started
        self.api = urlsplit(started["api"]).netloc
        self.proxy = urlsplit(started["proxy"]).netloc
        self.token = token
        self.folder = folder

    def ask(self, method, path, data=None, *, token=None):
        """One request over a connection of its own: its status and what came."""
        connection = http.client.HTTPConnection(self.api, timeout=PATIENCE)
        try:
            body = json.dumps(data) if data is not None else None
            connection.request(method, path, body, {"X-Vault-Token": self.token if token is None else token})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def data(self, method, path, data=None):
        status, text = self.ask(method, path, data)
        assert status < 300, (path, status, text)
        return json.loads(text).get("data") if text else None

    def born(self):
        """When the worker that answers began; no two of them say the same."""
        _, text = self.ask("GET", "/v1/sys/metrics?format=prometheus")
        lines = [line for line in text.splitlines() if line.startswith("keyhole_start_time_seconds ")]
        return lines[0] if lines else None

    def workers(self):
        return sorted(pid for pid, parent in _processes() if parent == self.pid)

    def both(self, say, wanted=2):
        """What is said over connections, until that many workers have answered."""
        found = {}
        _until(lambda: found.update({self.born(): None}) or len(found) >= wanted, "only one worker answers")
        return [say() for _ in range(16)]

    def call(self, url, agent, *, proxy=None):
        connection = http.client.HTTPConnection(proxy or self.proxy, timeout=PATIENCE)
        try:
            proof = base64.b64encode(f"agent:{agent}".encode()).decode()
            connection.request("GET", url, headers={"Proxy-Authorization": f"Basic {proof}"})
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()


def _processes():
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if fields[0] != "Z":
                yield int(entry.name), int(fields[1])


def _until(found, what):
    deadline = time.monotonic() + PATIENCE
    while True:
        answer = found()
        if answer:
            return answer
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def _sealed(server):
    return json.loads(server.ask("GET", "/v1/sys/health?sealedcode=200")[1])["sealed"]


def _root_key(folder):
    async def found():
        store = await open_store(f"sqlite:{folder / 'vault.db'}")
        try:
            header = await read_header(store)
        finally:
            await store.close()
        seal = open_seal("passphrase", passphrase=Secret(PASSPHRASE), vault_id=header.vault_id)
        return seal.unwrap(header.root)

    return asyncio.run(found())


@pytest.fixture(scope="module")
def agent(server, upstream):
    server.data("POST", "/v1/secret/data/pay/key", {"data": {"value": "the-value-of-the-key"}})
    bound = {
        "hosts": [f"127.0.0.1:{upstream}"],
        "schemes": ["http"],
        "secret": "pay/key",
        "inject": {"kind": "bearer"},
        "allow_addresses": ["127.0.0.1/32"],
    }
    server.data("POST", "/v1/services/pay", bound)
    server.data("POST", "/v1/sys/policies/acl/payer", {"policy": 'path "services/pay" { capabilities = ["use"] }'})
    made = server.ask("POST", "/v1/auth/token/create", {"policies": ["payer"], "no_default_policy": True})
    return json.loads(made[1])["auth"]["client_token"]


def test_both_workers_answer_on_one_port_that_was_picked_once(server):
    assert len(server.workers()) == 2
    assert set(server.both(lambda: server.ask("GET", "/readyz")[0])) == {200}
    assert Path(server.started["ca_file"]).read_text().startswith("-----BEGIN CERTIFICATE")


def test_no_key_is_in_what_others_see_of_the_processes(server):
    key = _root_key(server.folder)
    spellings = [key, key.hex().encode(), base64.b64encode(key), PASSPHRASE.encode(), server.token.encode()]
    for pid in (server.pid, *server.workers()):
        seen = [Path(f"/proc/{pid}/cmdline").read_bytes()]
        try:
            seen.append(Path(f"/proc/{pid}/environ").read_bytes())
        except PermissionError:  # it belongs to root
            assert os.geteuid() != 0
        assert not [each for each in spellings for text in seen if each in text]
        assert os.stat(f"/proc/{pid}/environ").st_uid == 0, "its memory is open to its user"


def test_calls_go_through_every_worker_with_one_certificate_authority(server, agent, upstream):
    url = f"http://127.0.0.1:{upstream}/who"
    answers = server.both(lambda: server.call(url, agent))
    assert {status for status, _ in answers} == {200}
    assert {body for _, body in answers} == {"*" * len("Bearer ") + "*" * len("the-value-of-the-key")} or all(
        "the-value-of-the-key" not in body and body.startswith("Bearer ") for _, body in answers
    )
    certificates = server.both(lambda: server.data("GET", "/v1/sys/keyhole")["ca"])
    assert set(certificates) == {Path(server.started["ca_file"]).read_text()}


def test_the_socket_at_a_path_is_served_too(server, agent, upstream):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(server.folder / "proxy.sock"))
        proof = base64.b64encode(f"agent:{agent}".encode())
        host = b"127.0.0.1:%d" % upstream
        sock.sendall(
            b"GET http://%b/who HTTP/1.1\r\nHost: %b\r\nProxy-Authorization: Basic %b\r\nConnection: close\r\n\r\n"
            % (host, host, proof)
        )
        assert sock.recv(12) == b"HTTP/1.1 200"


def test_rates_are_counted_by_all_workers_together(server, upstream):
    bound = {
        "hosts": [f"127.0.0.1:{upstream}"],
        "schemes": ["http"],
        "paths": ["/rated"],
        "secret": "pay/key",
        "inject": {"kind": "bearer"},
        "allow_addresses": ["127.0.0.1/32"],
        "limits": {"rate": "3/d"},
    }
    server.data("POST", "/v1/services/rated", bound)
    server.data("POST", "/v1/sys/policies/acl/rated", {"policy": 'path "services/rated" { capabilities = ["use"] }'})
    made = server.ask("POST", "/v1/auth/token/create", {"policies": ["rated"], "no_default_policy": True})
    token = json.loads(made[1])["auth"]["client_token"]
    answers = server.both(lambda: server.call(f"http://127.0.0.1:{upstream}/rated", token)[0])
    assert sorted(answers) == [200] * 3 + [429] * (len(answers) - 3)


def test_what_one_worker_counts_is_in_the_figures_of_all(server):
    def total():
        lines = server.ask("GET", "/metrics")[1].splitlines()
        counted = [line for line in lines if line.startswith('keyhole_api_responses_total{status="404"}')]
        return float(counted[0].split()[-1]) if counted else 0.0

    before = total()
    server.both(lambda: server.ask("GET", "/nowhere"))
    assert total() == before + 16


def test_a_revoked_token_is_dead_in_every_worker_and_so_are_its_streams(server, upstream):
    made = server.ask("POST", "/v1/auth/token/create", {"policies": ["payer"], "no_default_policy": True})
    token = json.loads(made[1])["auth"]["client_token"]
    url = f"http://127.0.0.1:{upstream}/events"
    proof = base64.b64encode(f"agent:{token}".encode()).decode()
    streams = []
    for _ in range(8):
        connection = http.client.HTTPConnection(server.proxy, timeout=PATIENCE)
        connection.request("GET", url, headers={"Proxy-Authorization": f"Basic {proof}"})
        answer = connection.getresponse()
        assert (answer.status, answer.readline()) == (200, b"data: tick\n")
        streams.append((connection, answer))
    server.data("POST", "/v1/auth/token/revoke", {"token": token})
    assert {server.call(url, token)[0] for _ in range(8)} == {407}
    begun = time.monotonic()
    for connection, answer in streams:
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            while answer.read1():
                pass
            raise ConnectionError("it was ended")
        connection.close()
    assert time.monotonic() - begun < PATIENCE


def test_sealing_one_worker_has_sealed_all_before_it_answers_and_unsealing_opens_all(server):
    assert set(server.both(lambda: _sealed(server))) == {False}
    assert server.ask("PUT", "/v1/sys/seal")[0] == 204
    assert {_sealed(server) for _ in range(24)} == {True}
    assert {server.ask("GET", "/readyz")[0] for _ in range(12)} == {503}
    assert server.ask("PUT", "/v1/sys/unseal", {"key": "not the passphrase"}, token="")[0] == 400
    assert _sealed(server)
    assert server.ask("PUT", "/v1/sys/unseal", {"key": PASSPHRASE}, token="")[0] == 200
    assert {_sealed(server) for _ in range(24)} == {False}
    assert set(server.both(lambda: server.data("GET", "/v1/secret/data/pay/key")["data"]["value"])) == {
        "the-value-of-the-key"
    }


def test_a_worker_that_is_killed_is_missed_by_nobody_and_another_comes_open(server, agent, upstream):
    killed, left = server.workers()
    os.kill(killed, signal.SIGKILL)
    _until(lambda: killed not in server.workers(), "it lives")
    url = f"http://127.0.0.1:{upstream}/who"
    assert {server.call(url, agent)[0] for _ in range(8)} == {200}
    _until(lambda: len(server.workers()) == 2, "no other worker was started")
    assert left in server.workers()
    assert set(server.both(lambda: _sealed(server))) == {False}


def test_at_sigterm_all_workers_drain_and_the_records_of_all_are_right(place):
    folder, env, token = place
    with serving("--workers", "2", "--passphrase-file", folder / "pass", env=env, real=True) as (process, started):
        server = Server(started, token, folder)
        workers = server.workers()
        server.both(lambda: server.ask("GET", "/v1/secret/data/nothing"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    assert not {pid for pid, _ in _processes()} & set(workers)
    verified = spawn("audit", "verify", "--passphrase-file", folder / "pass", env=env)
    assert verified.code == 0, verified

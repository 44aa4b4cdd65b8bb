"""One server of two workers, as a process: what its users notice, and who looks at its processes."""

import asyncio
import base64
import contextlib
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

PATIENCE = 60.0
TIMES = 8  # connections; each goes to one of two workers


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
def running(tmp_path_factory):
    """Starts a server over a vault with shares, unless one is there that nobody has ended."""
    folder = tmp_path_factory.mktemp("workers")
    env = environment(KEYHOLE_HOME=str(folder / "home"), KEYHOLE_VAULT=f"sqlite:{folder / 'vault.db'}")
    made = spawn("init", "--seal", "shares:2:2", "--json", env=env).json
    found = []
    with contextlib.ExitStack() as stack:

        def start():
            if not found or found[-1].process.poll() is not None:
                options = ("--workers", "2", "--proxy-socket", folder / "proxy.sock")
                process, started = stack.enter_context(serving(*options, env=env))
                found.append(Server(process, started, made["root_token"], made["keys_base64"], folder))
                assert found[-1].ask("GET", "/readyz")[0] == 503
                found[-1].unseal()
            return found[-1]

        yield start


@pytest.fixture
def server(running):
    return running()


class Server:
    def __init__(self, process, started, token, shares, folder):
        self.process = process
        self.pid = started["pid"]
        self.started = started
        self.api = urlsplit(started["api"]).netloc
        self.proxy = urlsplit(started["proxy"]).netloc
        self.token = token
        self.shares = shares
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

    def unseal(self):
        """Enter the shares, each over a connection of its own, as their holders do."""
        said = [self.ask("PUT", "/v1/sys/unseal", {"key": share}, token="") for share in self.shares]
        assert [(status, json.loads(text)["sealed"]) for status, text in said] == [(200, True), (200, False)]

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
        return [say() for _ in range(TIMES)]

    def agent(self, service, port, **more):
        """The token of somebody who may use this service at the upstream, and nothing else."""
        bound = {
            "hosts": [f"127.0.0.1:{port}"],
            "schemes": ["http"],
            "secret": "pay/key",
            "inject": {"kind": "bearer"},
            "allow_addresses": ["127.0.0.1/32"],
        }
        self.data("POST", f"/v1/services/{service}", bound | more)
        policy = f'path "services/{service}" {{ capabilities = ["use"] }}'
        self.data("POST", f"/v1/sys/policies/acl/{service}", {"policy": policy})
        made = self.ask("POST", "/v1/auth/token/create", {"policies": [service], "no_default_policy": True})
        return json.loads(made[1])["auth"]["client_token"]

    def call(self, url, agent):
        connection = http.client.HTTPConnection(self.proxy, timeout=PATIENCE)
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


def _root_key(server):
    async def found():
        store = await open_store(f"sqlite:{server.folder / 'vault.db'}")
        try:
            return await read_header(store)
        finally:
            await store.close()

    header = asyncio.run(found())
    seal = open_seal(header.seal, passphrase=Secret(" ".join(server.shares)), vault_id=header.vault_id)
    return seal.unwrap(header.root)


@pytest.fixture
def agent(server, upstream):
    """The token of an agent that may use a service."""
    server.data("POST", "/v1/secret/data/pay/key", {"data": {"value": "the-value-of-the-key"}})
    return server.agent("pay", upstream)


def test_both_workers_answer_on_one_port_that_was_picked_once(server):
    assert len(server.workers()) == 2
    assert set(server.both(lambda: server.ask("GET", "/readyz")[0])) == {200}
    assert Path(server.started["ca_file"]).read_text().startswith("-----BEGIN CERTIFICATE")


def test_no_key_is_in_what_others_see_of_the_processes(server):
    key = _root_key(server)
    spellings = [key, key.hex().encode(), base64.b64encode(key), *(share.encode() for share in server.shares)]
    for pid in (server.pid, *server.workers()):
        seen = [Path(f"/proc/{pid}/cmdline").read_bytes()]
        try:
            seen.append(Path(f"/proc/{pid}/environ").read_bytes())
        except PermissionError:  # it belongs to root
            assert os.geteuid() != 0
        assert not [each for each in spellings for text in seen if each in text]
        assert Path(f"/proc/{pid}/environ").stat().st_uid == 0, "its memory is open to its user"


def test_calls_go_through_every_worker_with_one_certificate_authority(server, agent, upstream):
    url = f"http://127.0.0.1:{upstream}/who"
    answers = server.both(lambda: server.call(url, agent))
    assert {status for status, _ in answers} == {200}
    assert {body for _, body in answers} == {"Bearer " + "*" * len("the-value-of-the-key")}  # it came, and was masked
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


def test_rates_are_counted_by_all_workers_together(server, agent, upstream):
    token = server.agent("rated", upstream, paths=["/rated"], limits={"rate": "3/d"})
    answers = server.both(lambda: server.call(f"http://127.0.0.1:{upstream}/rated", token)[0])
    assert sorted(answers) == [200] * 3 + [429] * (len(answers) - 3)


def test_what_one_worker_counts_is_in_the_figures_of_all(server):
    def total():
        lines = server.ask("GET", "/metrics")[1].splitlines()
        counted = [line for line in lines if line.startswith('keyhole_api_responses_total{status="404"}')]
        return float(counted[0].split()[-1]) if counted else 0.0

    before = total()
    server.both(lambda: server.ask("GET", "/nowhere"))
    assert total() == before + TIMES


def test_a_capture_holds_the_calls_of_all_workers_whoever_is_asked(server, agent, upstream):
    begun = server.data("POST", "/v1/sys/capture", {"for": "5m"})
    calls = server.both(lambda: server.call(f"http://127.0.0.1:{upstream}/who", agent)[0])
    assert calls == [200] * TIMES
    path = f"/v1/sys/capture/{begun['id']}"
    for _ in range(TIMES):
        found = server.data("GET", path)
        assert [each["number"] for each in found["calls"]] == list(range(1, TIMES + 1))
        assert found["count"] == TIMES
    assert {each["target"] for each in found["calls"]} == {"/who"}
    assert server.ask("DELETE", path)[0] == 204
    assert {server.ask("GET", path)[0] for _ in range(TIMES)} == {404}


def test_calls_of_all_workers_are_in_one_table(server, agent, upstream):
    token = server.agent("counted", upstream, paths=["/counted"])
    server.both(lambda: server.call(f"http://127.0.0.1:{upstream}/counted", token)[0])
    wanted = {"calls": TIMES, "timed": TIMES}

    def counted():
        found = server.data("GET", "/v1/sys/latency")["services"].get("counted")
        return found and {"calls": found["calls"], "timed": found["stages"]["vault"]["count"]}

    _until(lambda: counted() == wanted, "the calls of all workers are not in one table")
    line = 'keyhole_calls_total{org="root",service="counted",outcome="allowed",code="ok"}'
    assert f"{line} {TIMES}\n" in server.ask("GET", "/v1/sys/metrics?format=prometheus")[1]


def test_a_revoked_token_is_dead_in_every_worker_and_so_are_its_streams(server, agent, upstream):
    token = agent
    url = f"http://127.0.0.1:{upstream}/events"
    proof = base64.b64encode(f"agent:{token}".encode()).decode()
    streams = []
    for _ in range(6):
        connection = http.client.HTTPConnection(server.proxy, timeout=PATIENCE)
        connection.request("GET", url, headers={"Proxy-Authorization": f"Basic {proof}"})
        answer = connection.getresponse()
        assert (answer.status, answer.readline()) == (200, b"data: tick\n")
        streams.append((connection, answer))
    server.data("POST", "/v1/auth/token/revoke", {"token": token})
    assert {server.call(url, token)[0] for _ in range(TIMES)} == {407}
    for connection, answer in streams:
        with contextlib.suppress(http.client.IncompleteRead, ConnectionError):
            while answer.read1():  # a stream that goes on would keep this until the test's time is up
                pass
        connection.close()


def test_sealing_one_worker_has_sealed_all_before_it_answers_and_unsealing_opens_all(server, agent):
    assert agent
    assert set(server.both(lambda: _sealed(server))) == {False}
    assert server.ask("PUT", "/v1/sys/seal")[0] == 204
    assert {_sealed(server) for _ in range(2 * TIMES)} == {True}
    assert {server.ask("GET", "/readyz")[0] for _ in range(TIMES)} == {503}
    server.unseal()
    assert {_sealed(server) for _ in range(2 * TIMES)} == {False}
    assert set(server.both(lambda: server.data("GET", "/v1/secret/data/pay/key")["data"]["value"])) == {
        "the-value-of-the-key"
    }


def test_a_worker_that_is_killed_is_missed_by_nobody_and_another_comes_open(server, agent, upstream):
    killed, left = server.workers()
    os.kill(killed, signal.SIGKILL)
    # Until it is reaped a thread of it may hold its sockets for a moment more, though its first one is gone.
    _until(lambda: not Path(f"/proc/{killed}").exists(), "it lives")
    url = f"http://127.0.0.1:{upstream}/who"
    assert {server.call(url, agent)[0] for _ in range(TIMES)} == {200}
    _until(lambda: len(server.workers()) == 2, "no other worker was started")
    assert left in server.workers()
    assert set(server.both(lambda: _sealed(server))) == {False}


def test_the_records_of_all_workers_are_right_and_at_sigterm_all_drain(server):
    workers = server.workers()
    server.both(lambda: server.ask("GET", "/v1/secret/data/nothing"))
    assert len(server.data("GET", "/v1/sys/audit-log/checkpoint")["heads"]) > 1
    found = server.data("GET", "/v1/sys/audit-log/verify")
    assert (found["valid"], found["problems"], found["anomalies"]) == (True, [], [])
    os.kill(server.pid, signal.SIGTERM)
    assert server.process.wait(PATIENCE) == 0
    assert not {pid for pid, _ in _processes()} & set(workers)
    assert not (server.folder / "proxy.sock").exists()

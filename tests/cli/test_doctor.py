"""`doctor`: the machine, the vault, the HTTP clients that are here, and the way to a service."""

import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import trustme

from cli_driver import ok, run
from e2e.compatibility import ROWS
from keyhole import Client
from keyhole.trial import load_clients

KEY = "sk_test_51ExampleExampleExample00"


@pytest.fixture
def bin_(tmp_path, monkeypatch):
    """A folder before all others in PATH, for clients that behave badly."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def put(name, script):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return put


@pytest.fixture
def curl():
    found = shutil.which("curl")
    assert found, "these tests need curl"
    return found


def tried(*names):
    """What `doctor` found of the clients, by name, and its exit code."""
    done = run("doctor", "--json", *(word for name in names for word in ("--client", name)))
    return {f["data"]["client"]: f["data"] for f in done.json if "data" in f}, done


@pytest.mark.parametrize("name", ["curl", "git", "python"])
def test_a_client_that_gets_through_is_said_to(name):
    found, done = tried(name)
    assert (found[name]["outcome"], found[name]["said"], done.code) == ("through", "", 0), done
    assert found[name]["version"]


def test_a_client_that_ignores_the_proxy_is_told_from_others(bin_, curl):
    bin_("curl", f'exec {curl} --noproxy "*" "$@"')
    found, done = tried("curl")
    assert (found["curl"]["outcome"], done.code) == ("no_proxy", 1)


def test_a_client_that_does_not_trust_the_ca_is_told_what_to_do(bin_, curl, tmp_path):
    (tmp_path / "other.pem").write_bytes(trustme.CA().cert_pem.bytes())
    bin_("wget", f'exec {curl} -sS --cacert {tmp_path / "other.pem"} "$(for last; do :; done; echo "$last")"')
    found, done = tried("wget")
    assert (found["wget"]["outcome"], done.code) == ("no_trust", 1)
    assert "--ca-certificate" in found["wget"]["next"]


def test_a_client_that_does_not_log_in_to_the_proxy_is_told_what_to_do(bin_, curl):
    # What Java does: the proxy is known, its password is not.
    bin_("java", f'exec {curl} -sS --proxy "http://${{HTTPS_PROXY#*@}}" https://doctor.keyhole.test:1/')
    found, done = tried("java")
    assert (found["java"]["outcome"], done.code) == ("no_login", 1)
    assert "Authenticator" in found["java"]["next"]


def test_a_client_that_brings_a_key_of_its_own_to_another_place_was_refused_by_the_proxy(bin_, curl):
    bin_("curl", f"exec {curl} -sS https://elsewhere.keyhole.test/")
    found, done = tried("curl")
    assert (found["curl"]["outcome"], done.code) == ("refused", 1)


def test_a_client_that_never_ends_is_ended(bin_, monkeypatch):
    monkeypatch.setattr("keyhole.trial.stage.PATIENCE", 1.0)
    monkeypatch.setattr("keyhole.trial.known._PATIENCE", 1.0)
    bin_("curl", "exec sleep 600")
    found, done = tried("curl")
    assert (found["curl"]["outcome"], done.code) == ("timeout", 1)


def test_what_a_client_prints_is_shown_without_the_token_of_the_proxy(bin_):
    bin_("curl", 'echo "via $HTTPS_PROXY"; exit 1')
    found, done = tried("curl")
    assert found["curl"]["said"].startswith("via http://agent:…@127.0.0.1:")
    assert "hvs." not in done.out


def test_nothing_is_left_behind(tmp_path, monkeypatch):
    for name in ("tmp", "home_"):
        (tmp_path / name).mkdir()
    for name in ("TMPDIR", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("HOME", str(tmp_path / "home_"))
    tried("curl", "git", "python")
    assert [*(tmp_path / "tmp").iterdir(), *(tmp_path / "home_").iterdir()] == []


def test_a_client_that_was_named_and_is_not_here_is_a_finding(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run("doctor", "--client", "deno")
    assert done.code == 1
    assert "deno is not here" in done.out


def test_a_client_that_nobody_knows_is_refused_with_those_that_are_known():
    done = run("doctor", "--client", "netscape", "--json")
    assert done.code == 3
    assert "curl" in done.error["hint"]


def test_every_known_client_can_be_asked_its_version_and_makes_its_request_at_the_api():
    for client in load_clients().values():
        words = [*client.request, *client.env.values(), *client.file.values()]
        assert any("{url}" in word for word in words), client.name
        assert client.version
        assert client.steps, f"{client.name}: what if it does not get through?"


_ROWS = {"python": "urllib", "node": "fetch of Node", "go": "net/http of Go", "java": "HttpClient of Java"}
_UNTESTED = {"httpx", "ruby", "deno", "gh"}  # not in the table, since no test of this repository has them


def test_every_known_client_stands_in_the_table_of_clients():
    assert {_ROWS.get(name, name) for name in load_clients().keys() - _UNTESTED} <= ROWS.keys()
    assert not _UNTESTED & ROWS.keys(), "it is tested now"


def test_doctor_says_what_works_and_ends_with_1_where_there_is_no_vault(vault, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # no clients, which other tests are about
    done = run("doctor", "--json")
    found = {finding["name"]: finding["state"] for finding in done.json}
    assert (done.code, found["vault"], found["proxy"], found["ca"]) == (0, "ok", "ok", "ok"), done
    done = run("doctor", "--vault", f"sqlite:{tmp_path / 'none.db'}", "--json")
    assert done.code == 1
    assert {f["name"]: f["state"] for f in done.json}["vault"] == "bad"


def test_doctor_says_what_an_agent_may_use(local, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    ok("add", "stripe", "--agent", "coder", stdin=KEY)
    ok("agent", "add", "idle")
    lines = {
        name: [f["detail"] for f in run("doctor", "--agent", name, "--json").json if f["name"] == "agent"]
        for name in ("coder", "idle")
    }
    assert "may use stripe; variables: STRIPE_API_KEY" in lines["coder"][0]
    assert "keyhole grant idle SERVICE" in lines["idle"][0]
    assert run("doctor", "--agent", "nobody").code == 1


class Counted(BaseHTTPRequestHandler):
    requests = 0

    def do_GET(self):
        type(self).requests += 1

    def log_message(self, *_args):
        pass


@pytest.fixture
def api(tmp_path, monkeypatch):
    """An HTTPS server on loopback for three names, of which its certificate has two; gives its port."""
    authority = trustme.CA()
    (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("api.example.test", "inner.example.test").configure_cert(context)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Counted)
    server.handle_error = lambda *_args: None
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    monkeypatch.setenv("KEYHOLE_UPSTREAM_CA", str(tmp_path / "ca.pem"))
    names = ("api.example.test", "inner.example.test", "wrong.example.test")
    monkeypatch.setenv("KEYHOLE_RESOLVE", ",".join(f"{name}:127.0.0.1" for name in names))
    monkeypatch.setattr(Counted, "requests", 0)
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


def bind(host, *more):
    ok("set", "api/key", stdin=KEY)
    ok("service", "add", "api", "--host", host, "--secret", "api/key", "--bearer", "--path", "/v1/**", *more)
    ok("agent", "add", "coder")
    ok("grant", "coder", "api")
    done = run("doctor", "--service", "api", "--agent", "coder", "--json")
    return {finding["name"]: finding for finding in done.json}, done.code


def test_the_way_to_a_service_is_looked_at_without_a_request(local, api):
    found, code = bind(f"api.example.test:{api}", "--allow-address", "127.0.0.1/32")
    assert (code, found["host"]["state"], found["why"]["state"]) == (0, "ok", "ok"), found
    assert "proves itself by TLS" in found["host"]["detail"]
    assert Counted.requests == 0


@pytest.mark.parametrize(
    ("host", "allowed", "result"),
    [
        ("inner.example.test", False, "address_denied"),
        ("wrong.example.test", True, "upstream_tls"),
    ],
)
def test_what_is_wrong_on_the_way_to_a_service_is_named(local, api, host, allowed, result):
    found, code = bind(f"{host}:{api}", *(("--allow-address", "127.0.0.1/32") if allowed else ()))
    assert (code, found["host"]["state"], found["host"]["data"]["result"]) == (1, "bad", result), found


def test_a_service_that_the_agent_was_not_granted_is_a_finding_with_the_command(local, api):
    bind(f"api.example.test:{api}", "--allow-address", "127.0.0.1/32")
    ok("revoke", "coder", "api")
    done = run("doctor", "--service", "api", "--agent", "coder")
    assert done.code == 1
    assert "keyhole grant coder api" in done.out


def test_the_way_to_a_service_is_shown_to_those_who_may_read_it_only(local, api, monkeypatch):
    bind(f"api.example.test:{api}", "--allow-address", "127.0.0.1/32")
    ok("policy", "write", "looking", stdin='path "sys/reach" { capabilities = ["update"] }')
    with Client() as vault:
        token = vault.write("auth/token/create", {"policies": ["looking"]}).auth["client_token"]
    monkeypatch.setenv("KEYHOLE_TOKEN", token)
    done = run("doctor", "--service", "api")
    assert done.code == 1
    assert "needs read on it" in done.out


def test_doctor_runs_as_a_program_of_its_own(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "keyhole", "doctor", "--client", "curl", "--json"],
        env={**os.environ, "KEYHOLE_HOME": str(tmp_path / "h")},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done
    assert json.loads(done.stdout)[0]["state"] == "ok"
    assert done.stderr == b""

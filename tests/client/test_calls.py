"""Calls from Python through the broker: the credential arrives upstream, and never at the caller."""

import asyncio
import contextlib
import http.server
import ssl
import threading
from pathlib import Path

import pytest
import trustme

import keyhole
from cli_driver import environment, serving
from keyhole.client.road import Road
from keyhole.client.travel import Trip, resolve, send
from keyhole.core.errors import InvalidRequest, KeyholeError, NoService, PolicyDenied

VALUE = "sk_live_0123456789"


class Upstream(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append((self.path, self.headers.get("Authorization"), body))
        content = f'{{"you sent": "{self.headers.get("Authorization")}"}}'.encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST  # noqa: N815  # the library's spelling

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def answering(context=None):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    server.seen = []
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def upstream():
    with answering() as server:
        yield server


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority, tmp_path_factory):
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


@pytest.fixture(scope="module")
def server(tmp_path_factory, ca_file):
    env = environment(KEYHOLE_HOME=str(tmp_path_factory.mktemp("home")), KEYHOLE_UPSTREAM_CA=ca_file)
    with serving("--dev", "--dev-root-token-id", "root", env=env) as (_, started):
        yield started


@pytest.fixture(params=["local", "server"])
def where(request, tmp_path, monkeypatch, ca_file):
    """Location and token of a vault; the same program has to work with both."""
    monkeypatch.setenv("KEYHOLE_HOME", str(tmp_path))
    monkeypatch.setenv("KEYHOLE_UPSTREAM_CA", ca_file)
    monkeypatch.setattr("keyhole.process.harden_process", lambda: ())
    if request.param == "server":
        return request.getfixturevalue("server")["api"], "root"
    from cli_driver import ok

    location = f"sqlite:{tmp_path / 'vault.db'}"
    ok("--vault", location, "init", "--seal", f"keyfile:{tmp_path / 'key'}", "--make-keyfile", "-q")
    return location, ""


@pytest.fixture
def client(where, upstream):
    location, token = where
    host = f"127.0.0.1:{upstream.server_port}"
    common = {"hosts": [host], "schemes": ["http"], "allow_addresses": ["127.0.0.1/32"]}
    with keyhole.Client(location, token=token) as client:
        for name in ("one", "two"):
            client.write(f"secret/data/{name}", {"data": {"value": f"{VALUE}-{name}"}})
            client.write(f"services/{name}", {**common, "secret": name, "inject": {"kind": "bearer"}})
        yield client


def test_a_call_names_a_secret_and_gets_its_service(client, upstream):
    url = f"http://127.0.0.1:{upstream.server_port}/v1/things?x=1"
    answer = client.call("POST", url, bearer="two", body="payload")
    assert (answer.status, answer.service) == (200, "two")
    assert upstream.seen[-1] == ("/v1/things?x=1", f"Bearer {VALUE}-two", b"payload")
    assert VALUE not in answer.text
    assert list(answer.json()) == ["you sent"]
    client.call("GET", url, bearer="one#value")
    assert upstream.seen[-1][1] == f"Bearer {VALUE}-one"
    client.call("GET", url, service="two")
    assert upstream.seen[-1][1] == f"Bearer {VALUE}-two"


def test_a_call_to_a_tls_upstream_goes_through_a_tunnel(where, authority):
    location, token = where
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with answering(context) as upstream, keyhole.Client(location, token=token) as client:
        host = f"localhost:{upstream.server_port}"
        client.write("secret/data/tls", {"data": {"value": VALUE}})
        binding = {"hosts": [host], "secret": "tls", "inject": {"kind": "bearer"}, "paths": ["/v1/**"]}
        client.write("services/tls", {**binding, "allow_addresses": ["127.0.0.1/32", "::1/128"]})
        answer = client.call("POST", f"https://{host}/v1/things", bearer="tls", body=b"payload")
        assert answer.status == 200
        assert upstream.seen == [("/v1/things", f"Bearer {VALUE}", b"payload")]
        assert VALUE not in answer.text
        with pytest.raises(KeyholeError):
            client.call("GET", f"https://{host}/v2/things", bearer="tls")
        with pytest.raises(KeyholeError):
            client.call("GET", "https://other.example/", service="tls")
        with client.requests_session() as session:
            assert session.get(f"https://{host}/v1/more", timeout=10).status_code == 200
        assert len(upstream.seen) == 2


@pytest.mark.parametrize(
    "named", [{"basic": "one"}, {"header": {"X-Key": "one"}}, {"bearer": "other"}, {"bearer": "one#x"}]
)
def test_a_secret_goes_only_where_and_how_a_service_says(client, upstream, named):
    before = len(upstream.seen)
    with pytest.raises(NoService):
        client.call("GET", f"http://127.0.0.1:{upstream.server_port}/", **named)
    with pytest.raises((NoService, PolicyDenied)):
        client.call("GET", "https://evil.example/", bearer="one")
    assert len(upstream.seen) == before
    records = client.read("sys/audit-log", limit=20).data["records"]
    refused = next(each for each in records if "evil" in each.get("host", ""))
    assert (refused["phase"], refused["operation"], refused["method"]) == ("refused", "use", "GET")


@pytest.mark.parametrize(
    ("inject", "named", "body", "arrived"),
    [
        (
            {"kind": "query", "name": "key"},
            {"query": {"key": "placed"}},
            None,
            ("/v1?a=1&key=sk_live_0123456789", None, b""),
        ),
        (
            {"kind": "body", "field": "a.b"},
            {"body_field": {"a.b": "placed"}},
            '{"x": 1}',
            ("/v1?a=1", None, b'{"x": 1, "a": {"b": "sk_live_0123456789"}}'),
        ),
        (
            {"kind": "form", "field": "f"},
            {"form_field": {"f": "placed"}},
            "x=1",
            ("/v1?a=1", None, b"x=1&f=sk_live_0123456789"),
        ),
    ],
)
def test_a_call_names_the_place_of_its_secret(client, upstream, inject, named, body, arrived):
    host = f"127.0.0.1:{upstream.server_port}"
    client.write("secret/data/placed", {"data": {"value": VALUE}})
    binding = {"hosts": [host], "schemes": ["http"], "secret": "placed", "inject": inject}
    client.write("services/placed", {**binding, "allow_addresses": ["127.0.0.1/32"]})
    try:
        answer = client.call("POST", f"http://{host}/v1?a=1", body=body, **named)
        assert (answer.status, answer.service) == (200, "placed")
        assert upstream.seen[-1] == arrived
        [place] = named
        with pytest.raises(NoService):
            client.call("POST", f"http://{host}/v1", **{place: {"other": "placed"}})
    finally:
        client.delete("services/placed")


def test_a_session_of_requests_goes_through_the_broker(client, upstream):
    with client.requests_session() as session:
        answer = session.get(
            f"http://127.0.0.1:{upstream.server_port}/session", headers={"X-Keyhole-Service": "one"}, timeout=10
        )
    assert answer.status_code == 200
    ca = Path(session.verify)
    assert ca.exists()
    assert upstream.seen[-1][:2] == ("/session", f"Bearer {VALUE}-one")
    client.close()
    assert not ca.exists()
    assert VALUE not in answer.text


def test_the_client_for_asyncio_does_the_same(where):
    location, token = where

    async def use():
        async with keyhole.AsyncClient(location, token=token) as client:
            await client.write("secret/data/deep/a", {"data": {"value": VALUE}})
            both = await asyncio.gather(client.read("secret/data/deep/a"), client.list("secret/metadata/deep"))
            await client.delete("secret/data/deep/a")
            return both

    read, listed = asyncio.run(use())
    assert read.data["data"] == {"value": VALUE}
    assert listed.data["keys"] == ["a"]


def test_a_call_names_one_secret():
    with pytest.raises(InvalidRequest):
        resolve(lambda *_: None, Trip("GET", "https://a.example", bearer="a", basic="b"))


@pytest.mark.parametrize(
    "trip",
    [
        Trip("GET", "https://[::1/"),
        Trip("GET", "https://a:999999/"),
        Trip("GET", "https://a..\u00e9/"),
        Trip("POST", "https://a/", body="\ud800"),
    ],
)
def test_what_cannot_be_sent_is_said_before_anything_is_opened(trip):
    with pytest.raises(InvalidRequest, match="cannot be sent"):
        send(Road.at("http://127.0.0.1:1", "", "token"), trip, "service")

"""The transport to a server, against servers that answer whatever a test wants."""

import contextlib
import http.server
import json
import ssl
import threading

import pytest
import trustme

from keyhole.client import Where, connect
from keyhole.client.api import Client
from keyhole.client.http import HttpTransport
from keyhole.core.errors import InvalidRequest, Unreachable


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.server.seen.append((self.command, self.path, dict(self.headers)))
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        status, headers, content = self.server.answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET  # noqa: N815  # the library's spelling

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def answering(status=200, content=b"{}", headers=(), context=None):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.seen, server.answer = [], (status, dict(headers), content)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.url = f"{'https' if context else 'http'}://127.0.0.1:{server.server_port}"
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.contextmanager
def asking(url, **options):
    transport = HttpTransport(url, **options)
    try:
        yield transport
    finally:
        transport.close()


def test_one_connection_serves_many_requests_and_is_renewed_when_it_ended():
    answer = json.dumps({"request_id": "1", "data": {"a": 1}}).encode()
    with answering(content=answer) as server, asking(server.url, token="hvs.t") as transport:
        assert transport.ask("read", "x", {}).data == {"a": 1}
        kept = transport._connection
        transport.ask("update", "x", {"b": 2})
        assert transport._connection is kept
        kept.sock.shutdown(2)
        assert transport.ask("update", "x", {"b": 2}).data == {"a": 1}
        assert transport._connection is not kept
        assert [method for method, *_ in server.seen] == ["GET", "POST", "POST"]
        assert server.seen[0][2]["X-Vault-Token"] == "hvs.t"


def test_a_redirect_is_not_followed():
    with answering() as elsewhere, answering(307, headers={"Location": elsewhere.url}) as server:
        with asking(server.url, token="hvs.t") as transport, pytest.raises(Unreachable):
            transport.ask("read", "x", {})
        assert elsewhere.seen == []


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b'{"data":' * 100_000, b"[]", b"\xff"], ids=["list", "object", "no object", "no text"]
)
def test_an_answer_that_is_no_object_is_said_so_however_deep_it_is(content):
    said = pytest.raises(Unreachable, match="something else than a JSON object")
    with answering(content=content) as server, asking(server.url, token="hvs.t") as transport, said:
        transport.ask("read", "x", {})


def test_proxy_variables_of_the_environment_are_not_followed(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with answering() as server, asking(server.url) as transport:
        transport.ask("read", "x", {})
        assert len(server.seen) == 1


def test_a_token_leaves_this_machine_over_tls_only(monkeypatch):
    for address in (
        "http://example.com",
        "http://10.0.0.1:8200",
        "ftp://x",
        "https://u:p@x",
        "https://x/path",
        "https://",
    ):
        with pytest.raises(InvalidRequest):
            HttpTransport(address)
    for address in (
        "http://127.0.0.1:1",
        "http://localhost:1",
        "http://[::1]:1",
        "http://127.9.9.9",
        "https://example.com",
    ):
        HttpTransport(address)
    monkeypatch.setenv("KEYHOLE_INSECURE_HTTP", "1")
    HttpTransport("http://10.0.0.1:8200")


def test_a_server_is_trusted_by_its_ca_and_name_only(tmp_path, monkeypatch):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with answering(context=context) as server:
        with asking(server.url) as transport, pytest.raises(Unreachable) as raised:
            transport.ask("read", "x", {})
        assert "KEYHOLE_CACERT" in raised.value.hint
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        monkeypatch.setenv("KEYHOLE_CACERT", str(tmp_path / "ca.pem"))
        with asking(server.url) as transport:
            transport.ask("read", "x", {})
        with asking(server.url.replace("127.0.0.1", "localhost")) as transport, pytest.raises(Unreachable):
            transport.ask("read", "x", {})
        assert len(server.seen) == 1
    monkeypatch.setenv("KEYHOLE_CACERT", str(tmp_path / "missing.pem"))
    with pytest.raises(InvalidRequest):
        HttpTransport("https://127.0.0.1:1")


def test_a_server_that_is_not_there_or_not_ours_is_unreachable():
    with asking("http://127.0.0.1:1") as transport, pytest.raises(Unreachable) as raised:
        transport.ask("read", "x", {})
    assert "127.0.0.1:1" in raised.value.reason
    with answering(content=b"<html>") as server, asking(server.url) as transport, pytest.raises(Unreachable):
        transport.ask("read", "x", {})
    with answering() as server, asking(server.url.replace("http:", "https:")) as transport, pytest.raises(Unreachable):
        transport.ask("read", "x", {})


def test_a_client_of_servers_only_says_that_it_cannot_open_a_vault():
    with pytest.raises(InvalidRequest):
        connect(Where("sqlite:/nowhere", remote=False))
    with pytest.raises(InvalidRequest):
        Client("sqlite:/nowhere")

"""TLS from the server itself: renewed while it runs, and proved by clients where that is wanted."""

import asyncio
import signal
import socket
import ssl
import subprocess

import pytest
import requests
import trustme

from cli_driver import environment, serving
from keyhole.core.errors import InvalidRequest
from keyhole.faces.api.server import ApiServer
from keyhole.net.served import ServedTls

HOST = "127.0.0.1"


class Place:
    """A folder with a server's chain and key, the CA that made them, and a CA of clients."""

    def __init__(self, folder):
        self.folder = folder
        self.ca, self.clients = trustme.CA(), trustme.CA()
        self.ca.cert_pem.write_to_path(folder / "ca.pem")
        self.clients.cert_pem.write_to_path(folder / "clients.pem")
        self.renew()

    def renew(self):
        """A new chain and key over the old ones; the leaf as DER."""
        leaf = self.ca.issue_cert(HOST)
        self.write("key.pem", leaf.private_key_pem.bytes())
        self.write("cert.pem", b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
        return ssl.PEM_cert_to_DER_cert(leaf.cert_chain_pems[0].bytes().decode())

    def write(self, name, content):
        (self.folder / name).write_bytes(content)

    def path(self, name):
        return str(self.folder / name)

    def served(self):
        return ServedTls(self.path("cert.pem"), self.path("key.pem"))

    def client(self, name="client", authority=None):
        """A certificate and key of a client, in one file."""
        leaf = (authority or self.clients).issue_cert("agent@example.org", common_name=name)
        self.write(f"{name}.pem", leaf.private_key_and_cert_chain_pem.bytes())
        return self.path(f"{name}.pem")

    def context(self, chain=None):
        context = ssl.create_default_context(cafile=self.path("ca.pem"))
        if chain:
            context.load_cert_chain(chain)
        return context

    def leaf_of(self, port):
        """What the server shows, as DER."""
        with (
            socket.create_connection((HOST, port), 10) as raw,
            self.context().wrap_socket(raw, server_hostname=HOST) as tls,
        ):
            return tls.getpeercert(binary_form=True)


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def options(place, *more):
    return (
        "--dev",
        "--dev-root-token-id",
        "root",
        "--tls-cert",
        place.path("cert.pem"),
        "--tls-key",
        place.path("key.pem"),
        *more,
    )


def test_clients_reach_a_server_with_tls_and_go_on_when_its_certificate_is_renewed(place):
    env = environment(KEYHOLE_HOME=place.path("home"), KEYHOLE_CACERT=place.path("ca.pem"))
    with serving(*options(place), env=env, real=True) as (process, started):
        url = f"{started['api']}/v1/sys/health"
        assert url.startswith("https://")
        curl = ["curl", "-sS", "--cacert", place.path("ca.pem")]
        assert b'"sealed":false' in subprocess.run([*curl, url], capture_output=True, check=True, timeout=30).stdout
        refused = subprocess.run(["curl", "-sS", url], capture_output=True, check=False, timeout=30)
        assert refused.returncode == 60  # nobody it trusts has signed it
        port = int(started["api"].rpartition(":")[2])
        with requests.Session() as kept:
            kept.verify, kept.trust_env = place.path("ca.pem"), False
            assert kept.get(url, timeout=10).status_code == 200
            before, renewed = place.leaf_of(port), place.renew()
            process.send_signal(signal.SIGHUP)
            deadline = 200
            while place.leaf_of(port) == before:  # each round is a handshake
                deadline -= 1
                assert deadline, "the renewed certificate was not served"
            assert place.leaf_of(port) == renewed
            assert kept.get(url, timeout=10).status_code == 200
        plain = subprocess.run(
            ["curl", "-sS", url.replace("https", "http")], capture_output=True, check=False, timeout=30
        )
        assert plain.returncode != 0


def test_a_server_asks_its_clients_for_certificates_where_it_is_told_to(place):
    env = environment(KEYHOLE_HOME=place.path("home"), KEYHOLE_CACERT=place.path("ca.pem"))
    must = ("--tls-client-ca", place.path("clients.pem"), "--tls-require-client-cert")
    stranger = place.client("stranger", trustme.CA())
    with serving(*options(place, *must), env=env) as (_, started):
        url = f"{started['api']}/v1/sys/health"
        assert requests.get(url, verify=place.path("ca.pem"), cert=place.client(), timeout=10).status_code == 200
        for cert in (None, stranger):
            with pytest.raises(requests.exceptions.ConnectionError):
                requests.get(url, verify=place.path("ca.pem"), cert=cert, timeout=10)


@pytest.mark.parametrize("require", [False, True])
def test_the_certificate_of_a_client_comes_with_its_request(place, require):
    async def ask(port, chain):
        """What is answered; nothing, not even a head, by a server that ends the handshake."""
        try:
            reader, writer = await asyncio.open_connection(HOST, port, ssl=place.context(chain))
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = await reader.read()
            writer.close()
        except (ssl.SSLError, ConnectionError):
            return None
        return answer.partition(b"\r\n\r\n")[2] if answer else None

    async def show(scope, _receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["peer_certificate"]})

    async def main():
        server = ApiServer(show)
        tls = place.served().context(place.path("clients.pem"), require=require)
        _, port = await server.listen(HOST, 0, tls=tls)
        try:
            chain = place.client()
            pem = place.folder.joinpath("client.pem").read_text().partition("-----BEGIN CERTIFICATE")
            leaf = ssl.PEM_cert_to_DER_cert(
                (pem[1] + pem[2]).partition("END CERTIFICATE-----")[0] + "END CERTIFICATE-----"
            )
            assert await ask(port, chain) == leaf
            if not require:
                assert await ask(port, None) == b""
            for bad in [place.client("stranger", trustme.CA()), *([None] if require else [])]:
                assert await ask(port, bad) is None
        finally:
            await server.close(1)

    asyncio.run(main())


def test_clients_that_leave_are_no_news(place, caplog):
    async def empty(_scope, _receive, send):
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def main():
        server = ApiServer(empty)
        _, port = await server.listen(HOST, 0, tls=place.served().context())
        try:
            reader, writer = await asyncio.open_connection(HOST, port, ssl=place.context())
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204")
            writer.close()
            await writer.wait_closed()  # the server has said goodbye as well
        finally:
            await server.close(1)

    asyncio.run(main())
    assert caplog.messages == []


def test_files_that_do_not_fit_together_change_nothing(place, caplog):
    served = place.served()
    context = served.context()
    old_cert = (place.folder / "cert.pem").read_bytes()
    assert not served.refresh()
    place.renew()
    new_cert = (place.folder / "cert.pem").read_bytes()
    for half in (old_cert, b"", b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"):
        place.write("cert.pem", half)
        assert not served.refresh()
    (place.folder / "cert.pem").unlink()
    assert not served.refresh()
    assert len(caplog.records) == 4
    assert "PRIVATE" not in caplog.text
    place.write("cert.pem", new_cert)
    assert served.refresh()
    assert not served.refresh()
    assert context is not None


@pytest.mark.parametrize(
    "content", [b"", b"no certificate", b"\xff\xfe", b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----"]
)
def test_cas_of_clients_that_cannot_be_read_are_refused_at_start(place, content):
    place.write("clients.pem", content)
    with pytest.raises(InvalidRequest, match="CAs of clients"):
        place.served().context(place.path("clients.pem"), require=False)

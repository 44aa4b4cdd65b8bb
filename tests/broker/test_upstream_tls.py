"""An upstream that cannot prove who it is never sees a request."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import ssl
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker.stack import HOST, OK, Received, Reply, Stack, authority, until
from keyhole.config import Config
from keyhole.core.errors import InvalidRequest
from keyhole.net.trust import Trust

ECDSA = trustme.KeyType.ECDSA


def context_of(cert: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    cert.configure_cert(context)
    return context


def self_signed(folder) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    now = dt.datetime.now(dt.UTC)
    cert = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + dt.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / "self.pem"
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path.write_bytes(cert.public_bytes(encoding) + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context


@contextmanager
def old_server(version: ssl.TLSVersion) -> Iterator[tuple[int, list[bytes]]]:
    """A server that speaks nothing newer, in a thread, because asyncio closes without the alert that says so."""
    context = context_of(authority().issue_cert(HOST, key_type=ECDSA))
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = version
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    sock, _ = listener.accept()
                    with sock, suppress(OSError), context.wrap_socket(sock, server_side=True) as secure:
                        received.append(secure.recv(65536))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1], received
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def bad(kind: str, folder) -> ssl.SSLContext:
    if kind == "expired":
        past = dt.datetime.now(dt.UTC) - dt.timedelta(1)
        return context_of(authority().issue_cert(HOST, key_type=ECDSA, not_after=past))
    if kind == "wrong name":
        return context_of(authority().issue_cert("evil.test", f"sub.{HOST}", "127.0.0.1", key_type=ECDSA))
    if kind == "wildcard above":
        return context_of(authority().issue_cert("*.test", key_type=ECDSA))
    if kind == "name in the subject only":
        return context_of(authority().issue_cert("evil.test", common_name=HOST, key_type=ECDSA))
    if kind == "self-signed":
        return self_signed(folder)
    return context_of(trustme.CA(key_type=ECDSA).issue_cert(HOST, key_type=ECDSA))


KINDS = [
    "expired",
    "wrong name",
    "wildcard above",
    "name in the subject only",
    "self-signed",
    "unknown authority",
]


@pytest.fixture(scope="module", autouse=True)
def _prepared(module_stack: Stack, runner) -> None:
    runner.run(module_stack.secret("stripe/key"))


@pytest.mark.parametrize("kind", KINDS)
def test_unproven_upstream_gets_no_request_and_the_client_a_reason(stack: Stack, run, tmp_path, kind: str) -> None:
    async def ask() -> Reply:
        port = await stack.listen(stack.upstream, bad(kind, tmp_path))
        name = kind.lower().replace(" ", "-")
        await stack.service(name, hosts=[f"{HOST}:{port}"])
        token = await stack.agent(name, name)
        for _ in range(2):
            reply = await stack.get(token, port=port)
        return reply

    reply = run(ask())
    assert (reply.status, reply.code) == (502, "upstream_tls")
    assert len(reply.body) > 60
    assert stack.upstream.received.strip(b"\0") == b""
    assert b"sk_live" not in reply.raw


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_upstream_with_an_old_version_gets_no_request(stack: Stack, run, version: ssl.TLSVersion) -> None:
    async def ask(port: int) -> Reply:
        await stack.service("old", hosts=[f"{HOST}:{port}"])
        return await stack.get(await stack.agent("old", "old"), port=port)

    with old_server(version) as (port, received):
        reply = run(ask(port))
    assert (reply.status, reply.code) == (502, "upstream_tls")
    assert received == []


def test_upstream_that_speaks_no_tls_gets_no_request(stack: Stack, run) -> None:
    seen = []

    async def serve(reader, writer) -> None:
        seen.append(await reader.read(65536))
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async def ask() -> Reply:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        await stack.service("clear", hosts=[f"{HOST}:{port}"])
        reply = await stack.get(await stack.agent("clear", "clear"), port=port)
        server.close()
        return reply

    reply = run(ask())
    assert (reply.status, reply.code) == (502, "upstream_tls")
    assert all(b"sk_live" not in data and b"HTTP/" not in data for data in seen)


async def hang_up(_request: Received, writer: asyncio.StreamWriter) -> None:
    """Answer as if the connection stayed, so that its session is remembered, then close it."""
    writer.write(OK)
    await writer.drain()
    writer.close()


@pytest.mark.parametrize("same_context", [True, False])
def test_change_to_an_untrusted_certificate_between_two_connections_is_refused(
    stack: Stack, run, same_context: bool
) -> None:
    """Also when the server still honours the tickets that it gave out under its old certificate."""

    async def ask() -> tuple[Reply, Reply]:
        stack.upstream.say = hang_up
        context = context_of(authority().issue_cert(HOST, key_type=ECDSA))
        server = await asyncio.start_server(stack.upstream.serve, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        await stack.service("changing", hosts=[f"{HOST}:{port}"])
        token = await stack.agent("changing", "changing")
        first = await stack.get(token, port=port)
        if not same_context:
            server.close()
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server = await asyncio.start_server(stack.upstream.serve, "127.0.0.1", port, ssl=context)
        trustme.CA(key_type=ECDSA).issue_cert(HOST, key_type=ECDSA).configure_cert(context)
        await until(lambda: stack.keyhole.pool.idle == 0)
        second = await stack.get(token, port=port)
        server.close()
        return first, second

    first, second = run(ask())
    assert first.status == 200
    assert (second.status, second.code) == (502, "upstream_tls")
    assert len(stack.upstream.requests) == 1


def test_without_the_extra_bundle_its_upstreams_are_unknown(run) -> None:
    async def ask() -> tuple[Reply, bytes]:
        async with Stack(trust_upstream=False) as stack:
            await stack.secret("stripe/key")
            await stack.service("ours")
            reply = await stack.get(await stack.agent("coder", "ours"))
            return reply, stack.upstream.received

    reply, received = run(ask())
    assert reply.code == "upstream_tls"
    assert received.strip(b"\0") == b""


class Pki:
    """A root, an intermediate and a server's certificate under them, with lists of what each CA revoked."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.root = trustme.CA(key_type=ECDSA)
        self.intermediate = self.root.create_child_ca(key_type=ECDSA)
        self.leaf = self.intermediate.issue_cert(HOST, key_type=ECDSA)
        self.ca = folder / "root.pem"
        self.root.cert_pem.write_to_path(str(self.ca))
        self.crl = folder / "crl.pem"

    def serials(self) -> dict[str, int]:
        blobs = {
            "leaf": self.leaf.cert_chain_pems[0],
            "intermediate": self.intermediate.cert_pem,
            "root": self.root.cert_pem,
        }
        return {name: x509.load_pem_x509_certificate(blob.bytes()).serial_number for name, blob in blobs.items()}

    def publish(self, *revoked: str, issuers=("root", "intermediate"), days: float = 1.0) -> None:
        """Write the lists; what each CA issued is in its own."""
        serials = self.serials()
        lists = {
            "root": (self.root, {"root", "intermediate"}),
            "intermediate": (self.intermediate, {"leaf"}),
        }
        pem = b""
        for name in issuers:
            ca, mine = lists[name]
            pem += signed_list(ca, [serials[one] for one in revoked if one in mine], days)
        new = self.crl.with_suffix(".new")
        new.write_bytes(pem)
        new.replace(self.crl)

    def config(self) -> Config:
        return Config(upstream_ca=str(self.ca), upstream_crl=str(self.crl))


def signed_list(ca: trustme.CA, serials: list[int], days: float) -> bytes:
    now = dt.datetime.now(dt.UTC)
    issuer = x509.load_pem_x509_certificate(ca.cert_pem.bytes())
    key = serialization.load_pem_private_key(ca.private_key_pem.bytes(), None)
    made = x509.CertificateRevocationListBuilder(issuer.subject, now - dt.timedelta(9), now + dt.timedelta(days))
    for serial in serials:
        made = made.add_revoked_certificate(x509.RevokedCertificateBuilder(serial, now - dt.timedelta(8)).build())
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())
    signed = made.add_extension(identifier, critical=False).sign(key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


async def _called(stack: Stack, pki: Pki) -> Callable[[], Awaitable[Reply]]:
    await stack.secret("stripe/key")
    port = await stack.listen(stack.upstream, context_of(pki.leaf))
    await stack.service("listed", hosts=[f"{HOST}:{port}"])
    token = await stack.agent("coder", "listed")
    return lambda: stack.get(token, port=port)


REVOKED = {
    "nothing": ((), {}, ""),
    "leaf": (("leaf",), {}, "revoked"),
    "intermediate": (("intermediate",), {}, "revoked"),
    "root": (("root",), {}, "revoked"),
    "no list of the leaf's CA": ((), {"issuers": ("root",)}, "no revocation list"),
    "no list of the root": ((), {"issuers": ("intermediate",)}, "no revocation list"),
    "lists that have expired": ((), {"days": -1.0}, "expired"),
}


@pytest.mark.parametrize("kind", REVOKED)
def test_a_chain_with_a_revoked_certificate_or_without_lists_gets_no_request(run, tmp_path, kind: str) -> None:
    revoked, lists, reason = REVOKED[kind]
    pki = Pki(tmp_path)
    pki.publish(*revoked, **lists)

    async def ask() -> tuple[Reply, bytes]:
        async with Stack(pki.config()) as stack:
            call = await _called(stack, pki)
            return await call(), stack.upstream.received

    reply, received = run(ask())
    if not reason:
        assert (reply.status, received.count(b"GET /v1/x")) == (200, 1)
        return
    assert (reply.status, reply.code) == (502, "upstream_tls")
    assert reason in reply.body.decode()
    assert received.strip(b"\0") == b""


@pytest.mark.parametrize("change", ["revoked", "removed from the bundle"])
def test_trust_that_ends_while_the_server_runs_ends_for_open_connections_and_sessions(
    run, tmp_path, change: str
) -> None:
    pki = Pki(tmp_path)
    pki.publish()

    async def ask() -> tuple[list[Reply], int]:
        async with Stack(pki.config()) as stack:
            call = await _called(stack, pki)
            replies = [await call(), await call()]
            assert stack.keyhole.pool.idle == 1
            if change == "revoked":
                pki.publish("leaf")
            else:
                trustme.CA(key_type=ECDSA).cert_pem.write_to_path(str(pki.ca))
            stack.keyhole.trust.context()  # what a running server does every few seconds
            await until(lambda: stack.keyhole.pool.idle == 0)
            replies += [await call(), await call()]
            return replies, len(stack.upstream.requests)

    replies, requests = run(ask())
    assert [reply.status for reply in replies] == [200, 200, 502, 502]
    assert {reply.code for reply in replies[2:]} == {"upstream_tls"}
    assert requests == 2


def test_a_changed_file_that_cannot_be_read_changes_nothing_and_is_logged(run, tmp_path, caplog) -> None:
    pki = Pki(tmp_path)
    pki.publish("leaf")

    async def ask() -> list[Reply]:
        async with Stack(pki.config()) as stack:
            call = await _called(stack, pki)
            replies = [await call()]
            pki.crl.write_text("half a fi")
            replies.append(await call())
            pki.crl.unlink()
            return [*replies, await call()]

    assert {reply.code for reply in run(ask())} == {"upstream_tls"}
    assert "--upstream-crl" in caplog.text


@pytest.mark.parametrize("content", ["missing", "", "certificates"])
def test_a_file_that_is_no_list_is_named_at_the_start(tmp_path, content: str) -> None:
    path = tmp_path / "crl.pem"
    if content == "certificates":
        path.write_bytes(authority().cert_pem.bytes())
    elif content != "missing":
        path.write_text(content)
    with pytest.raises(InvalidRequest, match="--upstream-crl"):
        Trust(crl=str(path))

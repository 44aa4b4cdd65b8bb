"""TLS: verified, from 1.2 on, keys never in a file, and failures in words."""

from __future__ import annotations

import contextlib
import datetime as dt
import ssl
import tempfile

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from keyhole.core.errors import InvalidRequest, UpstreamTls
from keyhole.net import tls

CA = trustme.CA()
LEAF = CA.issue_cert("api.test", "127.0.0.1")


def chain(leaf):
    return b"".join(blob.bytes() for blob in leaf.cert_chain_pems), leaf.private_key_pem.bytes()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("ca") / "ca.pem"
    CA.cert_pem.write_to_path(str(path))
    return str(path)


def handshake(client, server, name="api.test", session=None):
    """Both sides over memory; returns the client's end."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=name, session=session)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    pending = [ours, theirs]
    for _ in range(10):
        for side in list(pending):
            try:
                side.do_handshake()
                pending.remove(side)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLError:
                if side is ours:
                    raise
                pending.remove(side)  # its alert is on the way to the client
        if not pending:
            break
    with contextlib.suppress(ssl.SSLWantReadError):
        ours.read(1)  # in TLS 1.3 a refusal of the server comes after the client's handshake
    return ours


def failure(client, server, name="api.test"):
    with pytest.raises(ssl.SSLError) as caught:
        handshake(client, server, name)
    error = tls.upstream_error(caught.value)
    assert isinstance(error, UpstreamTls)
    assert error.hint
    assert name not in str(error)
    return error.reason


def test_an_upstream_of_the_extra_bundle_is_trusted(bundle):
    side = handshake(
        tls.client_context(bundle, alpn=["http/1.1"]), tls.server_context(*chain(LEAF), alpn=["h2", "http/1.1"])
    )
    assert side.version() == "TLSv1.3"
    assert side.selected_alpn_protocol() == "http/1.1"
    handshake(tls.client_context(bundle), tls.server_context(*chain(LEAF)), "127.0.0.1")


def test_an_unknown_issuer_is_refused():
    assert "issuer" in failure(tls.client_context(), tls.server_context(*chain(LEAF)))


def test_a_certificate_for_another_host_is_refused(bundle):
    assert "another name" in failure(tls.client_context(bundle), tls.server_context(*chain(LEAF)), "other.test")
    assert "another address" in failure(tls.client_context(bundle), tls.server_context(*chain(LEAF)), "127.0.0.2")


def test_an_expired_certificate_is_refused(bundle):
    now = dt.datetime.now(dt.UTC)
    old = CA.issue_cert("api.test", not_before=now - dt.timedelta(2), not_after=now - dt.timedelta(1))
    assert "expired" in failure(tls.client_context(bundle), tls.server_context(*chain(old)))
    new = CA.issue_cert("api.test", not_before=now + dt.timedelta(1), not_after=now + dt.timedelta(2))
    assert "not valid yet" in failure(tls.client_context(bundle), tls.server_context(*chain(new)))


def test_a_self_signed_certificate_is_refused(bundle):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "api.test")])
    now = dt.datetime.now(dt.UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(1))
        .not_valid_after(now + dt.timedelta(1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("api.test")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    server = tls.server_context(cert.public_bytes(serialization.Encoding.PEM), pem)
    assert "self-signed" in failure(tls.client_context(bundle), server)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_tls_versions_are_refused(bundle):
    server = tls.server_context(*chain(LEAF))
    server.set_ciphers("ALL:@SECLEVEL=0")
    server.minimum_version, server.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    assert "TLS version" in failure(tls.client_context(bundle), server)
    for context in (tls.client_context(), tls.server_context(*chain(LEAF))):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_an_upstream_that_wants_a_client_certificate_is_named_so(bundle):
    server = tls.server_context(*chain(LEAF))
    server.verify_mode = ssl.CERT_REQUIRED
    assert "client certificate" in failure(tls.client_context(bundle), server)


def test_a_port_without_tls_is_named_so():
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    side = tls.client_context().wrap_bio(incoming, outgoing, server_hostname="api.test")
    incoming.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(ssl.SSLError) as caught:
        side.do_handshake()
    assert "does not speak TLS" in tls.upstream_error(caught.value).reason
    assert "handshake" in tls.upstream_error(ConnectionResetError()).reason


def test_session_keys_are_not_written_for_the_environment(monkeypatch, tmp_path, bundle):
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    handshake(tls.client_context(bundle), tls.server_context(*chain(LEAF)))
    assert not (tmp_path / "keys").exists()


def test_a_missing_bundle_is_a_mistake_of_the_administrator(tmp_path):
    (tmp_path / "empty.pem").write_text("nothing")
    for name in ("absent.pem", "empty.pem"):
        with pytest.raises(InvalidRequest):
            tls.client_context(str(tmp_path / name))


def loaders():
    return [tls._load_from_memory, tls._load_from_pipe]


@pytest.mark.parametrize("load", loaders())
def test_a_key_is_loaded_without_a_file_that_holds_it(load, monkeypatch, tmp_path, bundle):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load(server, *chain(LEAF))
    handshake(tls.client_context(bundle), server)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("load", loaders())
def test_a_chain_and_key_that_do_not_fit_are_refused(load, monkeypatch):
    monkeypatch.setattr(tls, "_load_from_memory", load)
    cert, key = chain(LEAF)
    other = CA.issue_cert("other.test").private_key_pem.bytes()
    locked = serialization.load_pem_private_key(key, None).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    for pair in ((cert, other), (b"nothing", key), (cert, b"nothing"), (cert, locked), (b"", b"")):
        with pytest.raises(InvalidRequest):
            tls.server_context(*pair)


def test_a_client_gets_one_ticket_and_resumes_with_it_and_then_another(bundle):
    server, client = tls.server_context(*chain(LEAF)), tls.client_context(bundle)
    assert server.num_tickets == 1
    first = handshake(client, server)
    second = handshake(client, server, session=first.session)
    third = handshake(client, server, session=second.session)
    assert [first.session_reused, second.session_reused, third.session_reused] == [False, True, True]
    assert len({end.session.id for end in (first, second, third)}) == 3

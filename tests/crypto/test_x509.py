import datetime as dt
import ipaddress
import pickle
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from keyhole.core.errors import IntegrityError, InvalidRequest
from keyhole.crypto.x509 import CertificateAuthority, create_ca, generate_key, issue_leaf


@pytest.fixture(scope="module")
def ca_pems():
    return create_ca("Keyhole of org acme")


@pytest.fixture(scope="module")
def authority(ca_pems):
    return CertificateAuthority(*ca_pems)


def leaf_of(chain):
    return x509.load_pem_x509_certificates(chain)[0]


def handshake(ca_pem, chain_pem, key_pem, host, folder):
    """A TLS handshake in memory between a client that trusts the CA and asks for ``host``, and a server."""
    chain, key = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(chain_pem)
    key.write_bytes(key_pem)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(chain, key)
    client_side = ssl.create_default_context(cadata=ca_pem.decode())
    if hasattr(ssl, "VERIFY_X509_STRICT"):
        client_side.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_side.wrap_bio(to_client, to_server, server_hostname=host)
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    waiting = [client, server]
    while waiting:
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                continue


@pytest.mark.parametrize(
    "host", ["api.stripe.com", "localhost", "xn--bcher-kva.example", "127.0.0.1", "::1", "a_b.lan"]
)
def test_a_strict_client_accepts_a_leaf_for_its_host(authority, host, tmp_path):
    handshake(authority.cert_pem, *authority.issue(host), host, tmp_path)


@pytest.mark.parametrize("other", ["api.strype.com", "stripe.com", "x.api.stripe.com", "127.0.0.1"])
def test_a_client_refuses_a_leaf_of_another_host(authority, other, tmp_path):
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(authority.cert_pem, *authority.issue("api.stripe.com"), other, tmp_path)


def test_a_client_refuses_a_leaf_of_another_orgs_ca(authority, tmp_path):
    other, _ = create_ca("Keyhole of org acme")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(other, *authority.issue("api.stripe.com"), "api.stripe.com", tmp_path)


def test_a_server_sends_its_leaf_and_not_the_ca_that_its_clients_have(authority):
    (leaf,) = x509.load_pem_x509_certificates(authority.issue("api.stripe.com")[0])
    assert leaf.issuer != leaf.subject


def test_a_leaf_lives_less_than_a_week_and_can_only_be_a_server(authority):
    leaf = leaf_of(authority.issue("api.stripe.com")[0])
    now = dt.datetime.now(dt.UTC)
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc < dt.timedelta(days=7)
    assert leaf.not_valid_before_utc <= now - dt.timedelta(minutes=59)
    extensions = leaf.extensions
    assert leaf.subject == x509.Name([])
    alternative = extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert alternative.critical
    assert list(alternative.value) == [x509.DNSName("api.stripe.com")]
    assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    usage = extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.digital_signature
    assert not usage.value.key_cert_sign


def test_serials_are_random_128_bit_numbers(authority):
    serials = [leaf_of(authority.issue("a.example")[0]).serial_number for _ in range(50)]
    assert len(set(serials)) == 50
    assert all(0 < serial < 2**128 for serial in serials)
    assert max(serials) > 2**120


def test_the_ca_can_sign_leaves_and_nothing_above_them(ca_pems):
    ca = x509.load_pem_x509_certificate(ca_pems[0])
    constraints = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert constraints.value == x509.BasicConstraints(ca=True, path_length=0)
    usage = ca.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value.key_cert_sign
    assert not usage.value.digital_signature
    assert ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    assert isinstance(ca.public_key().curve, ec.SECP256R1)


def test_a_leaf_that_signs_another_leaf_is_refused(authority, ca_pems):
    middle = leaf_of(authority.issue("evil.example")[0])
    forged = leaf_of(issue_leaf(middle, authority._leaf_key, "api.stripe.com", generate_key()))
    anchor = Store([x509.load_pem_x509_certificate(ca_pems[0])])
    verifier = PolicyBuilder().store(anchor).build_server_verifier(x509.DNSName("api.stripe.com"))
    with pytest.raises(VerificationError):
        verifier.verify(forged, [middle])


@pytest.mark.parametrize(
    "host",
    [
        "",
        "*",
        "*.example.com",
        "a b",
        "a/b",
        "a..b",
        ".",
        "-a.example",
        "a.example:443",
        "[::1]",
        "fe80::1%eth0",
        "bücher.example",
        "a" * 64 + ".example",
        ".".join(["a" * 60] * 5),
        "a\n.example",
        "a.example\n",
        "a\x00b",
        "1.2.3.999",
        "a.example..",
        "user@a.example",
    ],
)
def test_hosts_that_name_no_single_host_get_no_certificate(authority, host):
    with pytest.raises(InvalidRequest):
        authority.issue(host)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("API.Example.COM.", x509.DNSName("api.example.com")),
        ("2001:DB8::1", x509.IPAddress(ipaddress.ip_address("2001:db8::1"))),
    ],
)
def test_one_host_has_one_spelling(authority, host, name):
    leaf = leaf_of(authority.issue(host)[0])
    assert list(leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value) == [name]


def test_a_leaf_never_outlives_its_ca():
    now = 1_800_000_000.0
    cert_pem, key_pem = create_ca("short", days=10, now=now)
    near_the_end = CertificateAuthority(cert_pem, key_pem, clock=lambda: now + 8 * 86_400)
    assert near_the_end.expires == now + 10 * 86_400
    assert leaf_of(near_the_end.issue("a.example")[0]).not_valid_after_utc.timestamp() == near_the_end.expires
    with pytest.raises(InvalidRequest):
        CertificateAuthority(cert_pem, key_pem, clock=lambda: now + 11 * 86_400).issue("a.example")


@pytest.mark.parametrize(("name", "days"), [("", 1), ("n" * 65, 1), ("n", 0)])
def test_impossible_authorities_are_refused(name, days):
    with pytest.raises(InvalidRequest):
        create_ca(name, days)


def test_a_certificate_without_its_own_key_is_refused(ca_pems):
    for cert_pem, key_pem in [
        (ca_pems[0], create_ca("other")[1]),
        (b"", ca_pems[1]),
        (ca_pems[0], b""),
        (ca_pems[0], ca_pems[1].replace(b"M", b"N", 1)),
    ]:
        with pytest.raises(IntegrityError):
            CertificateAuthority(cert_pem, key_pem)


def test_an_authority_hides_its_key(ca_pems, authority):
    assert "PRIVATE" not in repr(authority)
    with pytest.raises(TypeError):
        pickle.dumps(authority)
    ca = x509.load_pem_x509_certificate(ca_pems[0])
    assert ca.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "Keyhole of org acme"

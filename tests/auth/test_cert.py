"""Machines that log in with a TLS certificate: whose it must be, and what of it names them."""

from __future__ import annotations

import datetime as dt
import json
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cli_driver import environment, serving
from faces.api_client import play
from faces.test_api_tls import Place, options

DAY = dt.timedelta(days=1)


class Authority:
    """A CA of clients."""

    def __init__(self, name="clients", *, ca=True):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._make(self.name, self.key.public_key(), [x509.BasicConstraints(ca, None)])
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    def _make(self, subject, public, extensions, days=(-1, 30)):
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + days[0] * DAY)
            .not_valid_after(now + days[1] * DAY)
        )
        for each in extensions:
            builder = builder.add_extension(each, critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, name="agent-1", *, unit="", sans=(), usage=None, days=(-1, 30)):
        """A client's certificate, as DER."""
        attributes = [x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else []
        attributes += [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit)] if unit else []
        extensions = [x509.SubjectAlternativeName(sans)] if sans else []
        extensions += [x509.ExtendedKeyUsage([usage])] if usage else []
        key = ec.generate_private_key(ec.SECP256R1())
        made = self._make(x509.Name(attributes), key.public_key(), extensions, days)
        return made.public_bytes(serialization.Encoding.DER)

    def revoke(self, der):
        now = dt.datetime.now(dt.UTC)
        serial = x509.load_der_x509_certificate(der).serial_number
        gone = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.name).last_update(now)
        made = builder.next_update(now + DAY).add_revoked_certificate(gone).sign(self.key, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM).decode()


def scene(scenario, **role):
    """``scenario(ask, authority, login)``"""

    async def go(ask, _vault):
        authority = Authority()
        made = await ask("POST", "auth/cert/certs/web", {"certificate": authority.pem, "token_policies": "app", **role})
        assert made.status == 204, made.body

        async def login(der, **body):
            return await ask("POST", "auth/cert/login", body, token=None, certificate=der)

        return await scenario(ask, authority, login)

    return play(go, enabled=("sys/auth/cert",))


def test_a_certificate_gives_a_token_and_names_whose_it_is():
    async def scenario(ask, authority, login):
        for name in ({}, {"name": "web"}):
            auth = (await login(authority.issue(), **name)).json["auth"]
            assert auth["token_policies"] == ["app", "default"]
            assert (auth["metadata"]["cert_name"], auth["metadata"]["common_name"]) == ("web", "agent-1")
        entity = (await ask("GET", f"identity/entity/id/{auth['entity_id']}")).json["data"]
        assert [each["name"] for each in entity["aliases"]] == ["agent-1"]
        assert (await ask("GET", "auth/cert/certs/web")).json["data"]["display_name"] == "web"

    scene(scenario)


def test_a_workload_is_named_by_its_spiffe_id():
    async def scenario(ask, authority, login):
        def id_of(uri):
            return authority.issue("", sans=[x509.UniformResourceIdentifier(uri)])

        auth = (await login(id_of("spiffe://example.org/ns/prod/sa/app"))).json["auth"]
        assert auth["metadata"]["uri"] == "spiffe://example.org/ns/prod/sa/app"
        entity = (await ask("GET", f"identity/entity/id/{auth['entity_id']}")).json["data"]
        assert [each["name"] for each in entity["aliases"]] == ["spiffe://example.org/ns/prod/sa/app"]
        assert (await login(id_of("spiffe://example.org/ns/test/sa/app"))).status == 400
        assert (await login(id_of("spiffe://example.org.evil.test/ns/prod/sa/app"))).status == 400
        assert (await login(authority.issue())).status == 400

    scene(scenario, allowed_uri_sans=["spiffe://example.org/ns/prod/*"])


@pytest.mark.parametrize(
    "make",
    [
        lambda a: b"",
        lambda a: Authority().issue(),
        lambda a: a.issue("other"),
        lambda a: a.issue("agent-1 "),
        lambda a: a.issue(days=(-3, -1)),
        lambda a: a.issue(days=(1, 3)),
        lambda a: a.issue(usage=ExtendedKeyUsageOID.SERVER_AUTH),
        lambda a: a.issue("", sans=[x509.DNSName("agent-1")]),
    ],
)
def test_other_certificates_are_refused(make):
    async def scenario(_ask, authority, login):
        assert (await login(authority.issue(usage=ExtendedKeyUsageOID.CLIENT_AUTH))).status == 200
        assert (await login(make(authority))).status == 400
        assert (await login(authority.issue(), name="nobody")).status == 400

    scene(scenario, allowed_common_names=["agent-*1"])


def test_one_certificate_can_be_meant_and_signs_for_nobody_else():
    async def scenario(ask, authority, login):
        der = authority.issue()
        pem = x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM).decode()
        assert (await ask("POST", "auth/cert/certs/web", {"certificate": pem})).status == 204
        assert (await login(der)).status == 200
        assert (await login(authority.issue())).status == 400
        weak = Authority("weak", ca=False)
        assert (await ask("POST", "auth/cert/certs/web", {"certificate": weak.pem})).status == 204
        assert (await login(weak.issue())).status == 400

    scene(scenario)


def test_a_revoked_certificate_is_refused_until_the_list_is_gone():
    async def scenario(ask, authority, login):
        der, other = authority.issue(), authority.issue()
        assert (await ask("POST", "auth/cert/crls/one", {"crl": authority.revoke(der)})).status == 204
        assert (await login(der)).status == 400
        assert (await login(other)).status == 200
        assert (await ask("POST", "auth/cert/crls/one", {"crl": "x"})).status == 400
        serial = str(x509.load_der_x509_certificate(der).serial_number)
        assert (await ask("GET", "auth/cert/crls/one")).json["data"]["serials"] == {serial: {}}
        assert (await ask("DELETE", "auth/cert/crls/one")).status == 204
        assert (await login(der)).status == 200

    scene(scenario)


def test_an_authority_that_was_revoked_vouches_for_nobody():
    async def scenario(ask, authority, login):
        between = Authority("between")
        between.certificate = authority._make(between.name, between.key.public_key(), [x509.BasicConstraints(True, 0)])
        der = between.certificate.public_bytes(serialization.Encoding.DER)
        pem = between.certificate.public_bytes(serialization.Encoding.PEM).decode()
        assert (await ask("POST", "auth/cert/certs/web", {"certificate": pem})).status == 204
        assert (await login(between.issue())).status == 200
        assert (await ask("POST", "auth/cert/crls/root", {"crl": authority.revoke(der)})).status == 204
        assert (await login(between.issue())).status == 400

    scene(scenario)


def test_a_list_counts_however_it_spells_the_name_of_its_issuer():
    async def scenario(ask, authority, login):
        der = authority.issue()
        printable = x509.NameAttribute(NameOID.COMMON_NAME, "clients", _type=x509.name._ASN1Type.PrintableString)
        authority.name = x509.Name([printable])
        assert (await ask("POST", "auth/cert/crls/one", {"crl": authority.revoke(der)})).status == 204
        assert (await login(der)).status == 400

    scene(scenario)


def test_a_real_client_logs_in_over_tls(tmp_path):
    place = Place(tmp_path)
    env = environment(KEYHOLE_HOME=place.path("home"), KEYHOLE_CACERT=place.path("ca.pem"))
    with serving(*options(place, "--tls-client-ca", place.path("clients.pem")), env=env) as (_, started):
        curl = ["curl", "-sS", "--cacert", place.path("ca.pem"), "-X", "POST"]
        root = ["-H", "X-Vault-Token: root"]

        def post(path, *more):
            url = f"{started['api']}/v1/{path}"
            return subprocess.run([*curl, *more, url], capture_output=True, check=True, timeout=30).stdout

        assert post("sys/auth/cert", *root, "-d", '{"type":"cert"}') == b""
        body = place.folder / "role.json"
        pem = place.clients.cert_pem.bytes().decode()
        body.write_text(json.dumps({"certificate": pem, "allowed_common_names": "agent-7"}))
        assert post("auth/cert/certs/web", *root, "-d", f"@{body}") == b""
        assert b'"client_token":"' in post("auth/cert/login", "--cert", place.client("agent-7"))
        assert b"invalid certificate" in post("auth/cert/login", "--cert", place.client("agent-8"))
        assert b"client certificate must be supplied" in post("auth/cert/login")

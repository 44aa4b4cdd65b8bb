"""What a role gives and what not: names, addresses, keys, usages; each refusal is one, and nothing is signed."""

import contextlib

import pytest

from engines.mounting import login
from engines.pki_world import Pki, openssl, request, seen, with_pki
from keyhole.core.errors import InvalidRequest
from keyhole.engines.pki import names, roles
from keyhole.engines.settings import read
from vault.world import policy_token, refusal

BARE = {"allow_bare_domains": True}
BELOW = {"allow_subdomains": True}
GLOB = {"allow_glob_domains": True}
DOMAINS = {"allowed_domains": ["example.com"]}
GLOBS = {"allowed_domains": ["*.example.com", "ftp*.corp.test"]}
NONE = {"allow_localhost": False}


@pytest.mark.parametrize(
    ("settings", "name", "good"),
    [
        ({**DOMAINS, **BARE}, "example.com", True),
        ({**DOMAINS, **BARE}, "EXAMPLE.com", True),
        ({**DOMAINS, **BARE}, "a.example.com", False),
        ({**DOMAINS, **BARE}, "*.example.com", False),
        ({**DOMAINS, **BARE}, "me@example.com", True),
        ({**DOMAINS, **BARE}, "me@a.example.com", False),
        ({**DOMAINS, **BELOW}, "example.com", False),
        ({**DOMAINS, **BELOW}, "a.example.com", True),
        ({**DOMAINS, **BELOW}, "a.b.example.com", True),
        ({**DOMAINS, **BELOW}, "aexample.com", False),
        ({**DOMAINS, **BELOW}, "example.com.evil.test", False),
        ({**DOMAINS, **BELOW}, "a.example.com.", False),
        ({**DOMAINS, **BELOW}, ".example.com", False),
        ({**DOMAINS, **BELOW}, "a..example.com", False),
        ({**DOMAINS, **BELOW}, "-a.example.com", False),
        ({**DOMAINS, **BELOW}, "a b.example.com", False),
        ({**DOMAINS, **BELOW}, "a\x00.example.com", False),
        ({**DOMAINS, **BELOW}, "a\n.example.com", False),
        ({**DOMAINS, **BELOW}, "é.example.com", False),
        ({**DOMAINS, **BELOW}, "a.\u0435xample.com", False),
        ({**DOMAINS, **BELOW}, "evil.test/.example.com", False),
        ({**DOMAINS, **BELOW}, "*.example.com", True),
        ({**DOMAINS, **BELOW}, "*.a.example.com", True),
        ({**DOMAINS, **BELOW}, "a.*.example.com", False),
        ({**DOMAINS, **BELOW}, "a*.example.com", False),
        ({**DOMAINS, **BELOW}, "**.example.com", False),
        ({**DOMAINS, **BELOW}, "*.*.example.com", False),
        ({**DOMAINS, **BELOW}, "*", False),
        ({**DOMAINS, **BELOW, "allow_wildcard_certificates": False}, "*.example.com", False),
        ({**DOMAINS, **BELOW}, "me@a.example.com", True),
        ({**DOMAINS, **BELOW}, "me@example.com", False),
        ({**DOMAINS, **BELOW}, "me@you@a.example.com", False),
        ({**DOMAINS, **BELOW}, "@a.example.com", False),
        ({**DOMAINS}, "a.example.com", False),
        ({**GLOBS, **GLOB}, "a.example.com", True),
        ({**GLOBS, **GLOB}, "a.b.example.com", True),
        ({**GLOBS, **GLOB}, "example.com", False),
        ({**GLOBS, **GLOB}, "ftp7.corp.test", True),
        ({**GLOBS, **GLOB}, "ftp.evil.corp.test", True),
        ({**GLOBS, **GLOB}, "xftp7.corp.test", False),
        ({**GLOBS}, "a.example.com", False),
        ({**GLOBS, **BARE}, "*.example.com", True),
        ({}, "localhost", True),
        (NONE, "localhost", False),
        ({}, "other", False),
        ({"allowed_domains": [], **BARE, **BELOW, **GLOB}, "a.test", False),
        ({"allow_any_name": True}, "anything.test", True),
        ({"allow_any_name": True}, "any thing", False),
        ({"allow_any_name": True, "enforce_hostnames": False}, "any thing", False),
        ({"allow_any_name": True, "enforce_hostnames": False}, "any_thing!", True),
        ({"allow_any_name": True}, "*.test", True),
        ({"allow_any_name": True}, "a.*", False),
        ({"allow_token_displayname": True, **BARE}, "token-ci", True),
        ({"allow_token_displayname": True, **BELOW}, "a.token-ci", True),
        ({"allow_token_displayname": True}, "token-ci", False),
    ],
)
def test_names_of_hosts_and_people(settings, name, good):
    role = roles.checked({**read(roles.SETTINGS, {}), **settings})
    dns, emails = ((), (name,)) if "@" in name else ((name,), ())
    expected = contextlib.nullcontext() if good else pytest.raises(InvalidRequest, match="not allowed by this role")
    with expected:
        names.check(role, names.Subject(), names.AltNames(dns=dns, emails=emails), "token-ci")


def test_every_place_of_a_name_is_judged(tmp_path):
    async def scenario(pki, _clock):
        await pki.root()
        await pki.role()
        before = len((await pki.list("certs"))["keys"])
        for data in (
            {"common_name": "evil.test"},
            {"common_name": "me@evil.test"},
            {"common_name": "a.example.com", "alt_names": "b.example.com,evil.test"},
            {"common_name": "a.example.com", "alt_names": "me@evil.test"},
            {"common_name": "evil.test", "exclude_cn_from_sans": True},
            {"common_name": "a.example.com", "uri_sans": "https://a.example.com"},
            {"common_name": "a.example.com", "other_sans": "1.3.6.1.4.1.311.20.2.3;UTF8:root@corp"},
            {"common_name": "a.example.com", "other_sans": "nonsense"},
            {"common_name": "a.example.com", "ip_sans": "example.com"},
            {"common_name": "a.example.com", "serial_number": "7"},
            {"common_name": ""},
            {"common_name": ["a.example.com"]},
            {"common_name": "a.example.com", "alt_names": [5]},
            {"common_name": "a.example.com", "alt_names": ",".join(f"n{n}.example.com" for n in range(1001))},
        ):
            assert (await refusal(pki("issue/web", ttl="1h", **data))).code == "invalid_request", data
        csr, _ = request(tmp_path, "/CN=a.example.com", "DNS:a.example.com,DNS:evil.test")
        assert (await refusal(pki("sign/web", csr=csr, ttl="1h"))).reason == (
            "subject alternate name evil.test not allowed by this role"
        )
        csr, _ = request(tmp_path, "/CN=evil.test", "DNS:a.example.com")
        error = await refusal(pki("sign/web", csr=csr, common_name="a.example.com", ttl="1h"))
        assert error.reason == "common name evil.test not allowed by this role", "that of the request counts"
        assert len((await pki.list("certs"))["keys"]) == before

    with_pki(scenario)


def test_names_that_a_role_allows_besides():
    async def scenario(pki, _clock):
        await pki.root()
        await pki.role(
            allowed_uri_sans="spiffe://corp.test/*",
            allowed_other_sans="1.3.6.1.4.1.311.20.2.3;UTF8:*@corp.test",
            allowed_serial_numbers="A*",
            allow_ip_sans=False,
            organization="Keyhole",
            ou=["One", "Two"],
        )
        made = await pki.issue(
            uri_sans="spiffe://corp.test/web", other_sans="1.3.6.1.4.1.311.20.2.3;UTF8:me@corp.test", serial_number="A7"
        )
        text = seen(made["certificate"])
        for wanted in ("URI:spiffe://corp.test/web", "me@corp.test", "serialNumber = A7", "OU = One, OU = Two"):
            assert wanted in text
        for data in (
            {"uri_sans": "spiffe://evil.test/corp.test/"},
            {"uri_sans": "spiffe://corp.test"},
            {"other_sans": "1.3.6.1.4.1.311.20.2.3;UTF8:me@evil.test"},
            {"other_sans": "1.2.3;UTF8:me@corp.test"},
            {"serial_number": "B7"},
            {"ip_sans": "127.0.0.1"},
        ):
            assert (await refusal(pki.issue(**data))).code == "invalid_request", data
        await pki.role("nameless", require_cn=False)
        made = await pki.issue("", "nameless", alt_names="a.example.com")
        assert "X509v3 Subject Alternative Name: critical" in seen(made["certificate"])
        assert (await refusal(pki.issue("", "nameless"))).reason == "the certificate would name nobody"
        await pki.role("people", cn_validations="disabled", allow_any_name=True, enforce_hostnames=False)
        assert "CN = Ann Example" in seen((await pki.issue("Ann Example", "people"))["certificate"])
        assert (await refusal(pki.issue("Ann Example"))).code == "invalid_request"

    with_pki(scenario)


def test_keys_of_requests_are_as_strong_as_the_role_says(tmp_path):
    async def scenario(pki, _clock):
        await pki.root()
        await pki.role("ec256", key_type="ec", key_bits=256)
        await pki.role("ec384", key_type="ec", key_bits=384)
        await pki.role("rsa", key_type="rsa", key_bits=3072)
        await pki.role("any", key_type="any")
        p256, _ = request(tmp_path)
        p384, _ = request(tmp_path, kind=("ec", "ec_paramgen_curve:P-384"))
        rsa, _ = request(tmp_path, kind=("rsa:2048",))
        ed, _ = request(tmp_path, kind=("ed25519",))
        weak, _ = request(tmp_path, kind=("rsa:1024",))
        strange, _ = request(tmp_path, kind=("ec", "ec_paramgen_curve:secp256k1"))
        for role, given, good in (
            ("ec256", p256, True),
            ("ec256", p384, True),
            ("ec256", rsa, False),
            ("ec256", ed, False),
            ("ec384", p256, False),
            ("ec384", p384, True),
            ("rsa", rsa, False),
            ("any", rsa, True),
            ("any", ed, True),
            ("any", weak, False),
            ("any", strange, False),
            ("ec256", strange, False),
        ):
            assert (await refusal(pki(f"sign/{role}", csr=given, ttl="1h")) is None) == good, (role, given)
        for given in (weak, strange):
            assert (await refusal(pki("sign-verbatim", csr=given, ttl="1h"))).code == "invalid_request"
        made = await pki.issue(role="any", key_type="ed25519")
        assert made["private_key_type"] == "ed25519"
        assert (await pki.issue(role="ec384", key_type="rsa", key_bits=2048))["private_key_type"] == "ec"

    with_pki(scenario)


def test_usages_are_those_of_the_role_and_never_of_an_authority(tmp_path):
    async def scenario(pki, _clock):
        await pki.root()
        await pki.role(
            "server", client_flag=False, key_usage="KeyUsageDigitalSignature", ext_key_usage=["ExtKeyUsageTimeStamping"]
        )
        text = seen((await pki.issue(role="server"))["certificate"])
        assert "Digital Signature\n" in text
        assert "TLS Web Client" not in text
        assert "TLS Web Server Authentication, Time Stamping" in text
        await pki.role("oids", policy_identifiers="1.3.6.1.4.1.99999.1", ext_key_usage_oids="1.3.6.1.4.1.99999.2")
        await pki.role("said", basic_constraints_valid_for_non_ca=True)
        assert "CA:FALSE" in seen((await pki.issue(role="said"))["certificate"])
        text = seen((await pki.issue(role="oids"))["certificate"])
        assert "Policy: 1.3.6.1.4.1.99999.1" in text
        assert "1.3.6.1.4.1.99999.2" in text
        await pki.role("greedy", key_usage="CertSign,CRLSign")
        assert (await refusal(pki.issue(role="greedy"))).reason == "CertSign and CRLSign are for authorities only"
        wanted = ["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"]
        csr, _ = request(tmp_path, extra=wanted)
        await pki.role()
        made = await pki("sign/web", csr=csr, ttl="1h")
        assert "CA:TRUE" not in seen(made["certificate"])
        assert "Certificate Sign" not in seen(made["certificate"])
        assert (await refusal(pki("sign-verbatim", csr=csr, ttl="1h"))).code == "invalid_request"
        csr, _ = request(tmp_path, extra=wanted[:1])
        assert "CA:TRUE" not in seen((await pki("sign-verbatim", csr=csr, ttl="1h"))["certificate"])

    with_pki(scenario)


def test_sign_verbatim_takes_the_names_of_the_request(tmp_path):
    async def scenario(pki, _clock):
        await pki.root()
        await pki.role(max_ttl="1h")
        extra = ["keyUsage=critical,digitalSignature", "extendedKeyUsage=codeSigning"]
        csr, _ = request(tmp_path, "/O=Any/CN=any.test", "DNS:any.test,IP:10.0.0.7,email:me@any.test", extra=extra)
        made = await pki("sign-verbatim", csr=csr, ttl="2h")
        text = seen(made["certificate"])
        for wanted in (
            "O = Any, CN = any.test",
            "DNS:any.test",
            "IP Address:10.0.0.7",
            "Code Signing",
            "Digital Signature\n",
        ):
            assert wanted in text
        assert "TLS Web" not in text
        made = await pki.reply("update", "sign-verbatim/web", csr=csr, ttl="2h")
        assert made.data["expiration"] == int(pki.vault.vault.clock.now()) + 3600
        assert made.warnings
        assert (await refusal(pki("sign-verbatim/none", csr=csr))).reason == "unknown role: none"
        token = await policy_token(pki.vault, 'path "pki/sign/web" { capabilities = ["update"] }')
        error = await refusal(pki.vault.ask("update", "pki/sign-verbatim", {"csr": csr}, token=token))
        assert error.code == "policy_denied"

    with_pki(scenario)


def test_a_role_is_written_whole_and_patched_in_part():
    async def scenario(pki, _clock):
        assert (await refusal(pki.list("roles"))).code == "not_found"
        await pki("roles/web", name="web", allow_any_name=True, ttl="6h", max_ttl="12h")
        data = await pki.read("roles/web")
        assert (data["ttl"], data["max_ttl"], data["key_type"], data["key_bits"]) == (21600, 43200, "rsa", 2048)
        assert data["key_usage"] == ["DigitalSignature", "KeyAgreement", "KeyEncipherment"]
        assert data["allow_wildcard_certificates"] is True
        await pki.patch("roles/web", allowed_domains="a.test,b.test")
        data = await pki.read("roles/web")
        assert (data["allowed_domains"], data["ttl"]) == (["a.test", "b.test"], 21600)
        await pki("roles/web", allowed_domains=["c.test"])
        assert (await pki.read("roles/web"))["ttl"] == 0
        assert (await pki.list("roles"))["keys"] == ["web"]
        await pki.delete("roles/web")
        await pki.delete("roles/web")
        for call in (pki.read("roles/web"), pki.patch("roles/web", ttl="1h")):
            assert (await refusal(call)).code == "not_found"

    with_pki(scenario)


@pytest.mark.parametrize(
    "change",
    [
        {"key_type": "dsa"},
        {"key_type": [1]},
        {"key_bits": 1024},
        {"key_type": "ec", "key_bits": 2048},
        {"ttl": "2h", "max_ttl": "1h"},
        {"ttl": "soon"},
        {"signature_bits": 160},
        {"key_usage": ["Everything"]},
        {"ext_key_usage": "Everything"},
        {"ext_key_usage_oids": "1.x"},
        {"policy_identifiers": "9.9.9"},
        {"cn_validations": "none"},
        {"allowed_domains": {"a": 1}},
        {"allow_any_name": "perhaps"},
        {"allowed_domains_template": True, "allowed_domains": ["{{identity.nobody}}.example.com"]},
        {"allowed_domains_template": True, "allowed_domains": ["{{identity.entity.name.example.com"]},
        {"allowed_user_ids": ["a"]},
    ],
)
def test_an_odd_role_is_a_bad_request_and_changes_nothing(change):
    async def scenario(pki, _clock):
        assert (await refusal(pki.role(**change))).code == "invalid_request"
        assert (await refusal(pki.read("roles/web"))).code == "not_found"

    with_pki(scenario)


def test_hashes_and_pss_are_as_the_role_says():
    async def scenario(pki, _clock):
        await pki.root(key_type="rsa", signature_bits=512)
        await pki.role("plain")
        await pki.role("pss", use_pss=True, signature_bits=384)
        assert "sha256WithRSAEncryption" in seen((await pki.issue(role="plain"))["certificate"])
        text = seen((await pki.issue(role="pss"))["certificate"])
        assert "rsassaPss" in text
        assert "sha384" in text
        root = (await pki.read("cert/ca"))["certificate"]
        assert "sha512WithRSAEncryption" in seen(root)
        await pki.patch("issuer/default", revocation_signature_algorithm="SHA384WithRSAPSS")
        await pki.read("crl/rotate")
        crl = (await pki.raw("crl/pem"))[2].decode()
        assert "rsassaPss" in openssl("crl", "-noout", "-text", given=crl)[1]
        error = await refusal(pki.patch("issuer/default", revocation_signature_algorithm="MD5WithRSA"))
        assert error.code == "invalid_request"

    with_pki(scenario)


def test_templates_are_filled_in_for_the_entity_that_asks():
    async def scenario(pki, _clock):
        vault = pki.vault
        await pki.root()
        await pki.role(allowed_domains="{{identity.entity.name}}.example.com", allowed_domains_template=True, **BARE)
        await vault.ask(
            "update", "sys/policies/acl/certs", {"policy": 'path "pki/issue/*" { capabilities = ["update"] }'}
        )
        token = await login(vault, "ann", policies=["certs"])
        for name, good in (
            ("ann.example.com", True),
            ("a.ann.example.com", True),
            ("bob.example.com", False),
            (".example.com", False),
            ("{{identity.entity.name}}.example.com", False),
        ):
            error = await refusal(Pki(vault, token=token).issue(name))
            assert (error is None) == good, name
        assert (await refusal(pki.issue("ann.example.com"))).code == "invalid_request", "root is no entity"
        await pki.role(
            allowed_domains="{{identity.entity.metadata.none}}example.com", allowed_domains_template=True, **BARE
        )
        assert (await refusal(Pki(vault, token=token).issue("example.com"))).code == "invalid_request"

    with_pki(scenario)

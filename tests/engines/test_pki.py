"""Certificates: what openssl and a TLS client say of them, and what is in the answers."""

import asyncio
import socket
import ssl
import threading

import pytest

from engines.mounting import mount
from engines.pki_world import Pki, openssl, request, seen, verifies, with_pki
from vault.world import Place, journal, policy_token, refusal


@pytest.mark.parametrize("kind", [("rsa", 2048), ("ec", 256), ("ec", 384), ("ed25519", 0)])
def test_openssl_trusts_a_certificate_below_its_root(kind, tmp_path):
    async def scenario(pki, _clock):
        root = await pki.root(key_type=kind[0], key_bits=kind[1], organization="Keyhole", country="DE")
        assert "CA:TRUE" in seen(root["certificate"])
        assert "Certificate Sign, CRL Sign" in seen(root["certificate"])
        await pki.role(key_type=kind[0], key_bits=kind[1])
        made = await pki.issue(alt_names="b.example.com,c.d.example.com", ip_sans="127.0.0.1,fd00::1")
        text = seen(made["certificate"])
        for wanted in (
            "DNS:a.example.com",
            "DNS:b.example.com",
            "IP Address:127.0.0.1",
            "TLS Web Server Authentication",
        ):
            assert wanted in text
        assert "CA:TRUE" not in text
        assert verifies(tmp_path, made["certificate"], [root["certificate"]])[0]
        assert made["issuing_ca"] == root["certificate"]
        assert made["ca_chain"] == [root["certificate"]]
        assert made["private_key_type"] == kind[0]
        good, public = openssl("pkey", "-pubout", given=made["private_key"])
        assert good
        assert public.strip() == openssl("x509", "-noout", "-pubkey", given=made["certificate"])[1].strip()
        serial = openssl("x509", "-noout", "-serial", given=made["certificate"])[1].strip().removeprefix("serial=")
        assert made["serial_number"].replace(":", "").upper() == serial
        other = await pki.root(common_name="Other")
        assert not verifies(tmp_path, made["certificate"], [other["certificate"]])[0]

    with_pki(scenario)


def serve_tls(context, replies):
    """A TLS server for a few connections on a free port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run():
        for _ in range(replies):
            connection, _ = listener.accept()
            try:
                with context.wrap_socket(connection, server_side=True) as tls:
                    tls.sendall(b"hello")
            except OSError:
                connection.close()
        listener.close()

    thread = threading.Thread(target=run)
    thread.start()
    return listener.getsockname()[1], thread


def hello(port, context, name):
    with (
        socket.create_connection(("127.0.0.1", port)) as plain,
        context.wrap_socket(plain, server_hostname=name) as tls,
    ):
        return tls.recv(5)


def test_a_tls_client_and_server_trust_each_other_by_it(tmp_path):
    async def scenario(pki, _clock):
        root = (await pki.root())["certificate"]
        (tmp_path / "root.pem").write_text(root)
        await pki.role(server_flag=True, client_flag=True)
        await pki.role("client", client_flag=True, server_flag=False)
        files = {}
        for role, name in (("web", "a.example.com"), ("client", "me.example.com")):
            made = await pki.issue(name, role)
            files[role] = tmp_path / f"{role}.pem"
            files[role].write_text("\n".join((made["private_key"], made["certificate"], *made["ca_chain"])))
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(files["web"])
        server.load_verify_locations(tmp_path / "root.pem")
        server.verify_mode = ssl.CERT_REQUIRED
        client = ssl.create_default_context(cafile=tmp_path / "root.pem")
        client.load_cert_chain(files["client"])
        port, thread = serve_tls(server, 2)
        try:
            assert await asyncio.to_thread(hello, port, client, "a.example.com") == b"hello"
            with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
                await asyncio.to_thread(hello, port, client, "b.example.com")
        finally:
            await asyncio.to_thread(thread.join)

    with_pki(scenario)


def test_a_chain_of_authorities_across_mounts(tmp_path):
    async def scenario(pki, _clock):
        root = await pki.root()
        vault = pki.vault
        await mount(vault, "below", "pki")
        below = Pki(vault, "below")
        asked = await below("intermediate/generate/internal", common_name="Below", key_type="ec")
        assert "private_key" not in asked
        signed = await pki("root/sign-intermediate", csr=asked["csr"], common_name="Below", ttl="600h")
        assert "CA:TRUE" in seen(signed["certificate"])
        brought = await below("intermediate/set-signed", certificate=f"{signed['certificate']}\n{signed['issuing_ca']}")
        assert len(brought["imported_issuers"]) == 2
        assert asked["key_id"] in brought["mapping"].values()
        again = await below("intermediate/set-signed", certificate=signed["certificate"])
        assert again["imported_issuers"] == []
        await below.role()
        made = await below.issue()
        assert made["ca_chain"] == [signed["certificate"], root["certificate"]]
        assert verifies(tmp_path, made["certificate"], [root["certificate"]], [signed["certificate"]])[0]
        shorter = await below.issue(remove_roots_from_chain=True)
        assert shorter["ca_chain"] == [signed["certificate"]]
        _, _, chain = await below.raw("ca_chain")
        assert chain.decode() == f"{signed['certificate']}\n{root['certificate']}"
        assert (
            await refusal(below("intermediate/set-signed", certificate=(await pki.root())["certificate"]))
        ).reason == ("the certificate belongs to no key that is here")

    with_pki(scenario)


def test_path_lengths_and_permitted_names_bind_who_stands_below(tmp_path):
    async def scenario(pki, _clock):
        root = await pki.root(max_path_length=1, permitted_dns_domains="example.com")
        asked = await pki("intermediate/generate/internal", common_name="One", key_type="ec", key_name="one")
        csr = asked["csr"]
        assert (await refusal(pki("root/sign-intermediate", csr=csr, common_name="One", max_path_length=1))).code == (
            "invalid_request"
        )
        one = await pki("root/sign-intermediate", csr=csr, common_name="One", exclude_cn_from_sans=True)
        assert "pathlen:0" in seen(one["certificate"])
        await pki("intermediate/set-signed", certificate=one["certificate"])
        listed = (await pki.list("issuers"))["key_info"]
        below = next(name for name, about in listed.items() if not about["is_default"])
        error = await refusal(pki(f"issuer/{below}/sign-intermediate", csr=csr, common_name="Two"))
        assert error.reason == "the issuer has a max path length of zero, cannot issue further CA certificates"
        await pki.role("any", allow_any_name=True)
        for name, good in (("a.example.com", True), ("a.evil.test", False)):
            made = await pki(f"issuer/{below}/issue/any", common_name=name, ttl="1h")
            assert verifies(tmp_path, made["certificate"], [root["certificate"]], [one["certificate"]])[0] == good

    with_pki(scenario)


def test_nothing_outlives_its_issuer():
    async def scenario(pki, clock):
        await pki.root(ttl="10h")
        await pki.role(max_ttl="100h")
        error = await refusal(pki.issue(ttl="11h"))
        assert error.reason.startswith("cannot satisfy request, as TTL would result in notAfter of ")
        assert await pki.issue(ttl="9h")
        [issuer] = (await pki.list("issuers"))["keys"]
        await pki.patch(f"issuer/{issuer}", leaf_not_after_behavior="truncate")
        end = (await pki.read("cert/ca"))["certificate"]
        made = await pki.reply("update", "issue/web", common_name="a.example.com", ttl="11h")
        assert made.warnings
        dates = [openssl("x509", "-noout", "-enddate", given=pem)[1] for pem in (made.data["certificate"], end)]
        assert dates[0] == dates[1]
        asked = await pki("intermediate/generate/internal", common_name="Below", key_type="ec")
        below = await pki.reply("update", "root/sign-intermediate", csr=asked["csr"], common_name="Below", ttl="100h")
        assert below.warnings
        assert openssl("x509", "-noout", "-enddate", given=below.data["certificate"])[1] == dates[1]
        clock.advance(10 * 3600)
        assert (await refusal(pki.issue(ttl="1m"))).reason == "the certificate of the issuer has expired"

    with_pki(scenario)


def test_a_certificate_lives_as_long_as_the_role_allows():
    async def scenario(pki, clock):
        await pki.root()
        now = int(pki.vault.vault.clock.now())
        await pki.role(ttl="2h", max_ttl="3h")
        for given, hours in ((None, 2), ("1h", 1), ("5h", 3)):
            made = await pki.reply(
                "update", "issue/web", common_name="a.example.com", **({"ttl": given} if given else {})
            )
            assert made.data["expiration"] - now == hours * 3600
            assert bool(made.warnings) == (given == "5h")
        await pki.role("bound", max_ttl="30m")
        assert (await pki("issue/bound", common_name="a.example.com"))["expiration"] - now == 1800
        for ttl in ("soon", -1, [1], 10**30):
            assert (await refusal(pki.issue(ttl=ttl))).code == "invalid_request"
        for end in ("2001-01-01", "soon", "99999-01-01"):
            assert (
                await refusal(pki("issue/web", common_name="a.example.com", not_after=end))
            ).code == "invalid_request"
        made = await pki("issue/web", common_name="a.example.com", not_after="2099-01-01T00:00:00Z")
        assert made["expiration"] - now == 3 * 3600, "the role bounds it"

    with_pki(scenario)


def test_answers_come_in_the_forms_that_were_asked_for(tmp_path):
    async def scenario(pki, _clock):
        root = await pki("root/generate/exported", common_name="Root", key_type="rsa", ttl="100h")
        assert root["private_key"].startswith("-----BEGIN RSA PRIVATE KEY-----")
        assert root["private_key_type"] == "rsa"
        await pki.role(key_type="rsa")
        made = await pki.issue(private_key_format="pkcs8")
        assert made["private_key"].startswith("-----BEGIN PRIVATE KEY-----")
        made = await pki.issue(format="pem_bundle")
        (tmp_path / "bundle.pem").write_text(made["certificate"])
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tmp_path / "bundle.pem")
        made = await pki.issue(format="der")
        assert openssl("x509", "-inform", "der", "-noout", given="")[0] is False
        text = f"-----BEGIN CERTIFICATE-----\n{made['certificate']}\n-----END CERTIFICATE-----\n"
        assert "a.example.com" in seen(text)
        for odd in ({"format": "xml"}, {"private_key_format": "x"}, {"format": [1]}):
            assert (await refusal(pki.issue(**odd))).code == "invalid_request"

    with_pki(scenario)


def test_private_keys_are_masked_until_shown_and_never_recorded():
    async def scenario(pki, _clock):
        await pki("root/generate/exported", common_name="Root", key_type="ec")
        await pki.role()
        for path, data in (
            ("issue/web", {"common_name": "a.example.com", "ttl": "1h"}),
            ("issue/web", {"common_name": "a.example.com", "ttl": "1h", "format": "pem_bundle"}),
            ("root/generate/exported", {"common_name": "Other", "key_type": "ec"}),
            ("intermediate/generate/exported", {"common_name": "Other", "key_type": "ec"}),
            ("keys/generate/exported", {"key_type": "ec"}),
        ):
            assert "PRIVATE" not in repr(await pki.reply("update", path, **data)), path
        for path in ("issuers", "keys"):
            assert "PRIVATE" not in repr(await pki.list(path))
        key = (await pki.list("keys"))["keys"][0]
        assert sorted(await pki.read(f"key/{key}")) == ["key_id", "key_name", "key_type"]
        assert not any("PRIVATE" in repr(record) for _, record in await journal(pki.vault))

    with_pki(scenario)


def test_files_are_for_everybody_and_as_their_readers_expect_them():
    async def scenario(pki, _clock):
        for path in ("ca", "ca/pem", "ca_chain", "crl", "crl/pem"):
            assert (await pki.raw(path))[0] == 204, "nothing yet"
        root = (await pki.root(issuer_name="first"))["certificate"]
        await pki.role()
        made = await pki.issue()
        assert await pki.raw("ca/pem") == (200, "application/pem-certificate-chain", root.encode())
        status, kind, der = await pki.raw("ca")
        assert (status, kind, der[:1]) == (200, "application/pkix-cert", b"\x30")
        assert (await pki.raw("issuer/first/der"))[2] == der
        assert (await pki.raw("issuer/default/pem"))[2] == root.encode()
        assert (await pki.raw("crl"))[1] == "application/pkix-crl"
        crl = (await pki.raw("crl/pem"))[2].decode()
        assert "Test Root" in openssl("crl", "-noout", "-text", given=crl)[1]
        assert (await pki.read("issuer/first/json"))["ca_chain"] == [f"{root}\n"]
        assert (await pki.read("issuer/first/crl"))["crl"] == crl
        for serial in (made["serial_number"], made["serial_number"].replace(":", "-"), made["serial_number"].upper()):
            found = await pki.read(f"cert/{serial}")
            assert (found["certificate"].strip(), found["revocation_time"]) == (made["certificate"], 0)
            assert (await pki.raw(f"cert/{serial}/raw/pem"))[2].decode().strip() == made["certificate"]
        assert (await pki.read("cert/ca"))["certificate"].strip() == root
        assert (await pki.read("cert/crl"))["certificate"] == crl
        assert made["serial_number"] in (await pki.list("certs"))["keys"]
        for odd in ("00:11", "x", "..", "a" * 100):
            assert (await refusal(pki.read(f"cert/{odd}"))).code in {"not_found", "invalid_request"}

    with_pki(scenario)


def test_authorities_are_brought_with_their_keys(tmp_path):
    key, pem = tmp_path / "ca.key", tmp_path / "ca.pem"
    arguments = ["req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "30", "-subj", "/CN=Brought"]
    arguments += ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    assert openssl(*arguments, "-keyout", key, "-out", pem)[0]
    old = openssl("rsa", "-traditional", given=key.read_text())[1].partition("writing RSA key")[0]

    async def scenario(pki, _clock):
        for odd in ("", "x", old + "-----BEGIN DH PARAMETERS-----\nAAAA\n-----END DH PARAMETERS-----"):
            assert (await refusal(pki("config/ca", pem_bundle=odd))).code == "invalid_request"
        brought = await pki("config/ca", pem_bundle=old + pem.read_text())
        [issuer], [name] = brought["imported_issuers"], brought["imported_keys"]
        assert brought["mapping"] == {issuer: name}
        endless = await refusal(pki("config/ca", pem_bundle="-----BEGIN A-----\n" * 58_000))  # each is looked for once
        assert endless.reason == "the bundle has a block without an end"
        again = await pki("issuers/import/bundle", pem_bundle=key.read_text() + pem.read_text())
        assert (again["existing_issuers"], again["existing_keys"], again["imported_issuers"]) == ([issuer], [name], [])
        assert (await pki.read("config/issuers"))["default"] == issuer
        await pki.role()
        made = await pki.issue()
        assert verifies(tmp_path, made["certificate"], [pem.read_text()])[0]
        leaf = await refusal(pki("issuers/import/cert", pem_bundle=made["certificate"]))
        assert leaf.reason == "the certificate is not one of an authority"
        assert (await refusal(pki("issuers/import/cert", pem_bundle=key.read_text() + pem.read_text()))).code == (
            "invalid_request"
        )
        assert "PRIVATE" not in repr(await pki.reply("read", f"issuer/{issuer}"))

    with_pki(scenario)


def test_a_self_issued_root_is_signed_by_another(tmp_path):
    async def scenario(pki, _clock):
        await mount(pki.vault, "other", "pki")
        other = Pki(pki.vault, "other")
        old = (await pki.root(ttl="100h"))["certificate"]
        new = (await other.root(common_name="New", ttl="200h"))["certificate"]
        crossed = await pki("root/sign-self-issued", certificate=new)
        await other.role()
        made = await other.issue()
        assert verifies(tmp_path, made["certificate"], [new])[0]
        assert verifies(tmp_path, made["certificate"], [old], [crossed["certificate"]])[0]
        for odd in ("", "x", made["certificate"], crossed["certificate"]):
            assert (await refusal(pki("root/sign-self-issued", certificate=odd))).code == "invalid_request"
        token = await policy_token(pki.vault, 'path "pki/*" { capabilities = ["update", "delete"] }')
        fewer = Pki(pki.vault, token=token)
        assert (await refusal(fewer("root/sign-self-issued", certificate=new))).code == "policy_denied", "it needs sudo"
        assert (await refusal(fewer.delete("root"))).code == "policy_denied"

    with_pki(scenario)


def test_issuers_and_keys_have_names_defaults_and_ends():
    async def scenario(pki, _clock):
        assert (await refusal(pki.issue())).reason == "unknown role: web"
        await pki.role()
        assert (await refusal(pki.issue())).reason == "no default issuer currently configured"
        first = await pki.root(issuer_name="first", key_name="k1")
        second = await pki.root(common_name="Second", issuer_name="second")
        assert (await pki.read("config/issuers"))["default"] == first["issuer_id"]
        for odd in ("first", "default", "a/b", "x" * 100):
            assert (await refusal(pki.root(issuer_name=odd))).code == "invalid_request"
        await pki("config/issuers", default="second")
        assert (await pki.issue())["issuing_ca"] == second["certificate"]
        await pki.role("old", issuer_ref="first")
        assert (await pki.issue(role="old"))["issuing_ca"] == first["certificate"]
        assert (await pki.issue(role="old", issuer_ref="second"))["issuing_ca"] == first["certificate"]
        assert (await pki("issuer/first/issue/web", common_name="a.example.com", ttl="1h"))["issuing_ca"] == first[
            "certificate"
        ]
        third = await pki("root/generate/existing", common_name="Third", key_ref="k1")
        assert third["key_id"] == first["key_id"]
        await pki("config/issuers", default_follows_latest_issuer=True)
        assert (await pki.read("config/issuers"))["default"] == second["issuer_id"]
        await pki("issuer/first", issuer_name="renamed", usage="read-only,crl-signing")
        assert (await refusal(pki.issue(role="old"))).code == "invalid_request", "by its old name"
        assert (await refusal(pki("issuer/renamed/issue/web", common_name="a.example.com", ttl="1h"))).reason == (
            "this issuer is not used for certificates"
        )
        await pki("config/issuers", default="renamed")
        await pki.delete("key/k1")
        assert (
            await refusal(pki("issuer/renamed/issue/web", common_name="a.example.com", ttl="1h"))
        ).code == "invalid_request"
        await pki.delete("issuer/second")
        assert (await refusal(pki.read(f"issuer/{second['issuer_id']}"))).status == 500, "as Vault"
        assert (await refusal(pki.read("issuer/second"))).status == 400
        assert sorted((await pki.list("issuers"))["keys"]) == sorted([first["issuer_id"], third["issuer_id"]])
        await pki.delete("root")
        for path in ("issuers", "keys"):
            assert (await refusal(pki.list(path))).code == "not_found"

    with_pki(scenario)


def test_many_roots_made_at_once_all_are_there_and_one_is_the_default():
    async def scenario(pki, _clock):
        made = await asyncio.gather(*(pki.root(common_name=f"Root {n}") for n in range(6)))
        listed = await pki.list("issuers")
        assert sorted(listed["keys"]) == sorted(each["issuer_id"] for each in made)
        assert [about["is_default"] for about in listed["key_info"].values()].count(True) == 1

    with_pki(scenario)


def test_addresses_of_lists_and_issuers_stand_in_what_is_made_afterwards():
    async def scenario(pki, _clock):
        await pki.root()
        await pki.role()
        urls = {
            "issuing_certificates": ["http://ca.test/ca"],
            "crl_distribution_points": "http://ca.test/crl,http://b.test/crl",
            "ocsp_servers": "http://ca.test/ocsp",
        }
        await pki("config/urls", **urls)
        found = await pki.read("config/urls")
        assert found["crl_distribution_points"] == ["http://ca.test/crl", "http://b.test/crl"]
        text = seen((await pki.issue())["certificate"])
        for wanted in ("CA Issuers - URI:http://ca.test/ca", "URI:http://b.test/crl", "OCSP - URI:http://ca.test/ocsp"):
            assert wanted in text
        await pki.patch("issuer/default", crl_distribution_points="http://own.test/crl")
        text = seen((await pki.issue())["certificate"])
        assert "URI:http://own.test/crl" in text
        assert "ca.test" not in text
        for odd in ("javascript:x", "http://é", "x", 5, ["ftp://a"]):
            assert (await refusal(pki("config/urls", issuing_certificates=odd))).code == "invalid_request"

    with_pki(scenario)


def test_what_was_made_is_there_after_a_restart(tmp_path):
    place, made = Place(tmp_path), {}

    async def before(vault):
        await mount(vault, "pki", "pki")
        pki = Pki(vault)
        made["root"] = await pki.root()
        await pki.role()
        made["leaf"] = await pki.issue()
        await pki("revoke", serial_number=made["leaf"]["serial_number"])

    async def after(vault):
        pki = Pki(vault)
        crl = (await pki.raw("crl/pem"))[2].decode()
        again = await pki.issue()
        root = made["root"]["certificate"]
        assert verifies(tmp_path, again["certificate"], [root], [], [crl])[0]
        good, text = verifies(tmp_path, made["leaf"]["certificate"], [root], [], [crl])
        assert (good, "certificate revoked" in text) == (False, True)

    place.play(before)
    place.play(after)


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("root/generate/internal", {}),
        ("root/generate/other", {"common_name": "x"}),
        ("root/generate/internal", {"common_name": "x" * 65}),
        ("root/generate/internal", {"common_name": "x", "key_type": "dsa"}),
        ("root/generate/internal", {"common_name": "x", "key_bits": 1024}),
        ("root/generate/internal", {"common_name": "x", "key_type": "ec", "key_bits": 255}),
        ("root/generate/internal", {"common_name": "x", "key_type": "ec", "country": "Germany"}),
        ("root/generate/internal", {"common_name": "x", "key_type": "ec", "max_path_length": "deep"}),
        ("root/generate/internal", {"common_name": "x", "key_type": "ec", "signature_bits": 1}),
        ("root/generate/internal", {"common_name": "x", "key_type": "ec", "permitted_dns_domains": "é"}),
        ("root/generate/existing", {"common_name": "x"}),
        ("intermediate/generate/internal", {}),
        ("root/sign-intermediate", {"csr": "x", "common_name": "x"}),
        ("intermediate/set-signed", {"certificate": "x"}),
        ("revoke", {}),
        ("revoke", {"serial_number": "11:22"}),
        ("revoke", {"serial_number": "../.."}),
        ("revoke", {"certificate": "x"}),
        ("config/crl", {"expiry": "1s"}),
        ("config/crl", {"enable_delta": True}),
        ("config/issuers", {"default": "none"}),
        ("tidy", {"safety_buffer": "-1s"}),
        ("tidy", {"safety_buffer": 0}),
        ("issuer/none", {"issuer_name": "x"}),
        ("keys/import", {"pem_bundle": "x"}),
    ],
)
def test_odd_requests_are_bad_requests_and_change_nothing(path, data):
    async def scenario(pki, _clock):
        error = await refusal(pki(path, **data))
        assert error.code == "invalid_request", error
        assert (await refusal(pki.list("issuers"))).code == "not_found"

    with_pki(scenario)


def test_a_request_is_signed_with_its_own_key(tmp_path):
    csr, _ = request(tmp_path)
    lines = csr.splitlines()
    lines[3] = lines[3][:20] + ("A" if lines[3][20] != "A" else "B") + lines[3][21:]

    async def scenario(pki, _clock):
        await pki.root()
        await pki.role()
        for path in ("sign/web", "sign-verbatim", "root/sign-intermediate"):
            assert await pki(path, csr=csr, common_name="a.example.com", ttl="1h")
            error = await refusal(pki(path, csr="\n".join(lines), common_name="a.example.com", ttl="1h"))
            assert error.code == "invalid_request"
            assert (await refusal(pki(path, csr="", common_name="a.example.com"))).code == "invalid_request"

    with_pki(scenario)

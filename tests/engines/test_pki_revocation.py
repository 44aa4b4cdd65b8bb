"""Revocation: in the next list, on every node, after a restart, with the lease; and who may not be revoked how."""

import asyncio
import base64
import re
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from engines.mounting import mount
from engines.pki_world import Pki, openssl, verifies, with_pki
from faces.api_client import asking
from vault.world import Place, child, refusal

OCSP = [(b"content-type", b"application/ocsp-request")]


async def crl(pki, ref=""):
    return (await pki.raw(f"issuer/{ref}/crl/pem" if ref else "crl/pem"))[2].decode()


def serials(pem):
    text = openssl("crl", "-noout", "-text", given=pem)[1]
    return {line.split(": ")[1].strip().lower() for line in text.splitlines() if "Serial Number:" in line}


def number(pem):
    return int(openssl("crl", "-noout", "-crlnumber", given=pem)[1].strip().removeprefix("crlNumber="), 16)


def plain(serial):
    return serial.replace(":", "").lower()


def test_openssl_refuses_what_was_revoked(tmp_path):
    async def scenario(pki, _clock):
        root = (await pki.root())["certificate"]
        await pki.role()
        one, two = await pki.issue(), await pki.issue()
        first = await crl(pki)
        assert verifies(tmp_path, one["certificate"], [root], [], [first])[0]
        said = await pki("revoke", serial_number=one["serial_number"])
        assert said["state"] == "revoked"
        assert await pki("revoke", serial_number=one["serial_number"].replace(":", "-").upper()) == said
        second = await crl(pki)
        assert number(second) > number(first)
        good, text = verifies(tmp_path, one["certificate"], [root], [], [second])
        assert (good, "certificate revoked" in text) == (False, True)
        assert verifies(tmp_path, two["certificate"], [root], [], [second])[0]
        assert (await pki.read(f"cert/{one['serial_number']}"))["revocation_time"] == said["revocation_time"]
        assert (await pki.list("certs/revoked"))["keys"] == [one["serial_number"]]
        good, text = openssl("crl", "-noout", "-CAfile", tmp_path / "roots.pem", given=second)
        assert "verify OK" in text

    with_pki(scenario)


def test_a_list_is_kept_until_something_changes_or_its_time_comes():
    async def scenario(pki, clock):
        await pki.root(ttl="700h")
        await pki.role()
        first = await crl(pki)
        assert await crl(pki) == first
        clock.advance(36 * 3600 + 1)
        second = await crl(pki)
        assert number(second) == number(first) + 1
        assert await pki.read("crl/rotate") == {"success": True}
        assert number(await crl(pki)) == number(second) + 1
        await pki("config/crl", expiry="2h")
        assert (await pki.read("config/crl"))["expiry"] == "2h"
        assert number(await crl(pki)) == number(second) + 2
        made = await pki.issue(ttl="1h")
        await pki("revoke", serial_number=made["serial_number"])
        assert serials(await crl(pki)) == {plain(made["serial_number"])}
        await pki("config/crl", disable=True)
        assert serials(await crl(pki)) == set()
        await pki("config/crl", disable=False)
        clock.advance(3600)
        await pki.read("crl/rotate")
        assert serials(await crl(pki)) == set(), "it has ended by itself"

    with_pki(scenario)


def test_each_issuer_lists_its_own():
    async def scenario(pki, _clock):
        await pki.root(issuer_name="one")
        await pki.root(common_name="Two", issuer_name="two")
        await pki.role()
        made = [await pki(f"issuer/{ref}/issue/web", common_name="a.example.com", ttl="1h") for ref in ("one", "two")]
        for each in made:
            await pki("revoke", certificate=each["certificate"])
        assert serials(await crl(pki, "one")) == {plain(made[0]["serial_number"])}
        assert serials(await crl(pki, "two")) == {plain(made[1]["serial_number"])}

    with_pki(scenario)


def test_an_issuer_is_revoked_by_the_one_above_it(tmp_path):
    async def scenario(pki, _clock):
        root = await pki.root(issuer_name="root")
        asked = await pki("intermediate/generate/internal", common_name="Below", key_type="ec")
        signed = await pki("root/sign-intermediate", csr=asked["csr"], common_name="Below", ttl="600h")
        [below] = (await pki("intermediate/set-signed", certificate=signed["certificate"]))["imported_issuers"]
        error = await refusal(pki("revoke", certificate=root["certificate"]))
        assert error.reason == "adding issuer to its own CRL is not allowed"
        await pki.role()
        said = await pki(f"issuer/{below}/revoke")
        assert said["revocation_time"]
        assert plain(signed["serial_number"]) in serials(await crl(pki, "root"))
        error = await refusal(pki(f"issuer/{below}/issue/web", common_name="a.example.com", ttl="1h"))
        assert error.reason == "this issuer was revoked"
        assert (await pki.read(f"issuer/{below}"))["revoked"] is True

    with_pki(scenario)


def test_what_others_signed_is_not_revoked_here(tmp_path):
    async def scenario(pki, _clock):
        await pki.root()
        await mount(pki.vault, "other", "pki")
        other = Pki(pki.vault, "other")
        await other.root(common_name="Test Root")
        await other.role()
        made = await other.issue()
        assert (await refusal(pki("revoke", certificate=made["certificate"]))).code == "invalid_request"
        assert (await refusal(pki("revoke", serial_number=made["serial_number"]))).reason.endswith("not found")
        assert serials(await crl(pki)) == set()

    with_pki(scenario)


def test_a_certificate_without_a_copy_is_revoked_by_itself_and_by_who_has_its_key():
    async def scenario(pki, _clock):
        await pki.root()
        await pki.role(no_store=True, generate_lease=True)
        reply = await pki.reply("update", "issue/web", common_name="a.example.com", ttl="1h")
        assert reply.lease is None, "without a copy there is nothing to revoke at its end"
        one, two = await pki.issue(), await pki.issue()
        assert len((await pki.list("certs"))["keys"]) == 1, "of the root only"
        assert (await refusal(pki("revoke", serial_number=one["serial_number"]))).code == "invalid_request"
        wrong = await refusal(pki("revoke-with-key", certificate=one["certificate"], private_key=two["private_key"]))
        assert wrong.reason == "the private key is not the one of the certificate"
        assert "PRIVATE" not in str(wrong)
        await pki("revoke-with-key", certificate=one["certificate"], private_key=one["private_key"])
        await pki("revoke", certificate=two["certificate"])
        assert serials(await crl(pki)) == {plain(one["serial_number"]), plain(two["serial_number"])}

    with_pki(scenario)


def test_the_end_of_a_lease_revokes_its_certificate():
    async def scenario(pki, clock):
        vault = pki.vault
        await pki.root(ttl="700h")
        await pki.role(generate_lease=True)
        reply = await pki.reply("update", "issue/web", common_name="a.example.com", ttl="1h")
        lease, serial = reply.lease, reply.data["serial_number"]
        assert lease.id.startswith("pki/issue/web/")
        assert (lease.renewable, lease.ttl) == (False, 3600)
        await vault.ask("update", "sys/leases/revoke", {"lease_id": lease.id, "sync": True})
        assert serials(await crl(pki)) == {plain(serial)}
        token = await child(vault, policies=["root"], ttl="10m")
        reply = await vault.ask("update", "pki/issue/web", {"common_name": "b.example.com", "ttl": "1h"}, token=token)
        await vault.ask("update", "auth/token/revoke", {"token": token})
        await vault.node.sweep()
        await vault.vault.expiry.drain()
        assert plain(reply.data["serial_number"]) in serials(await crl(pki))
        await pki.reply("update", "issue/web", common_name="c.example.com", ttl="1h")
        clock.advance(3700)
        await vault.node.sweep()
        await vault.vault.expiry.drain()
        assert len((await pki.list("certs/revoked"))["keys"]) == 2, "one that has ended needs no revocation"

    with_pki(scenario)


def test_all_that_are_revoked_at_once_on_two_nodes_are_in_the_list(tmp_path):
    place = Place(tmp_path)

    async def main():
        async with place.open() as one, place.open() as two:
            await mount(one, "pki", "pki")
            nodes = [Pki(vault) for vault in (one, two)]
            await nodes[0].root()
            await nodes[0].role()
            made = [await nodes[0].issue() for _ in range(6)]
            jobs = (nodes[n % 2]("revoke", serial_number=each["serial_number"]) for n, each in enumerate(made))
            await asyncio.gather(*jobs, *(node.raw("crl/pem") for node in nodes))
            for node in nodes:
                assert serials(await crl(node)) == {plain(each["serial_number"]) for each in made}

    asyncio.run(main())


def test_tidying_removes_what_has_ended_and_nothing_else():
    async def scenario(pki, clock):
        root = await pki.root(ttl="700h")
        await pki.role()
        short, long = await pki.issue(ttl="1h"), await pki.issue(ttl="500h")
        for each in (short, long):
            await pki("revoke", serial_number=each["serial_number"])
        assert await pki.read("tidy-status") == {"state": "Inactive"}
        clock.advance(80 * 3600)
        reply = await pki.reply("update", "tidy")
        assert (reply.status, bool(reply.warnings)) == (202, True)
        assert len((await pki.list("certs"))["keys"]) == 3, "it was asked for nothing"
        await pki("tidy", tidy_cert_store=True, tidy_revoked_certs=True, safety_buffer="100h")
        assert len((await pki.list("certs"))["keys"]) == 3
        await pki("tidy", tidy_cert_store=True, tidy_revoked_certs=True)
        assert sorted((await pki.list("certs"))["keys"]) == sorted([root["serial_number"], long["serial_number"]])
        assert (await pki.list("certs/revoked"))["keys"] == [long["serial_number"]]
        found = await pki.read("tidy-status")
        assert (found["cert_store_deleted_count"], found["revoked_cert_deleted_count"]) == (1, 1)

    with_pki(scenario)


def test_one_that_has_ended_is_not_revoked_any_more():
    async def scenario(pki, clock):
        await pki.root(ttl="100h")
        await pki.role()
        made = await pki.issue(ttl="1h")
        clock.advance(3601)
        reply = await pki.reply("update", "revoke", serial_number=made["serial_number"])
        assert (reply.data, len(reply.warnings)) == (None, 1)
        with pytest.raises(Exception, match="nothing was revoked"):
            await pki.list("certs/revoked")

    with_pki(scenario)


def test_openssl_asks_about_single_certificates(tmp_path):
    async def scenario():
        async with asking() as (ask, vault):
            await mount(vault, "pki", "pki")
            pki = Pki(vault)
            root = await pki.root()
            other = await pki.root(common_name="Other", issuer_name="other")
            await pki.role()
            await pki.role("unkept", no_store=True)
            good, bad, unkept = await pki.issue(), await pki.issue(), await pki.issue(role="unkept")
            await pki("revoke", serial_number=bad["serial_number"])
            (tmp_path / "root.pem").write_text(root["certificate"])
            for made, status in ((good, "good"), (bad, "revoked"), (unkept, "unknown")):
                (tmp_path / "leaf.pem").write_text(made["certificate"])
                asked, told = tmp_path / "asked.der", tmp_path / "told.der"
                about = ["ocsp", "-issuer", tmp_path / "root.pem", "-cert", tmp_path / "leaf.pem"]
                openssl(*about, "-reqout", asked)
                der = asked.read_bytes()
                answer = await ask("POST", "pki/ocsp", raw=der, token=None, headers=OCSP)
                assert (answer.status, answer.headers["content-type"]) == (200, "application/ocsp-response")
                told.write_bytes(answer.body)
                said, text = openssl(*about, "-respin", told, "-no_nonce", "-CAfile", tmp_path / "root.pem")
                assert (said, f"leaf.pem: {status}" in text, "Response verify OK" in text) == (True, True, True), text
                nonces = [
                    openssl("ocsp", way, file, "-text", "-noverify")[1]
                    for way, file in (("-reqin", asked), ("-respin", told))
                ]
                assert len({found.partition("Nonce:")[2].split()[0] for found in nonces}) == 1
                text = base64.b64encode(der).decode()
                if not re.search(r"//|/\+/|/$", text):  # what no path may have; such a client asks with POST
                    answer = await ask("GET", f"pki/ocsp/{quote(text, safe='')}", token=None)
                    assert answer.status == 200
            await pki.patch("issuer/default", usage="issuing-certificates")
            for odd, said in ((b"x", "malformedrequest"), (b"x" * 9999, "malformedrequest"), (der, "unauthorized")):
                answer = await ask("POST", "pki/ocsp", raw=odd, token=None, headers=OCSP)
                told.write_bytes(answer.body)
                assert said in openssl("ocsp", "-respin", told, "-text")[1]
            assert other["issuer_id"], "the one that is left is another one"

    asyncio.run(scenario())


def test_whoever_asks_about_a_certificate_does_not_make_us_check_our_own_key_anew(monkeypatch, tmp_path):
    loads = []
    real = serialization.load_der_private_key

    def load(data, password, **options):
        loads.append(options.get("unsafe_skip_rsa_key_validation", False))
        return real(data, password, **options)

    async def scenario():
        async with asking() as (ask, vault):
            await mount(vault, "pki", "pki")
            root = await Pki(vault).root(key_type="rsa")
            (tmp_path / "root.pem").write_text(root["certificate"])
            about = ["ocsp", "-issuer", tmp_path / "root.pem", "-serial", "0x11", "-reqout", tmp_path / "asked.der"]
            assert openssl(*about)[0]
            der = (tmp_path / "asked.der").read_bytes()
            monkeypatch.setattr(serialization, "load_der_private_key", load)
            assert (await ask("POST", "pki/ocsp", raw=der, token=None, headers=OCSP)).status == 200

    asyncio.run(scenario())
    assert loads == [True]


def test_numbers_that_make_no_key_are_not_taken_for_one():
    whole = rsa.generate_private_key(65537, 2048).private_numbers()
    other = rsa.generate_private_key(65537, 2048).private_numbers()
    broken = rsa.RSAPrivateNumbers(
        whole.p, whole.q, other.d, whole.dmp1, whole.dmq1, whole.iqmp, whole.public_numbers
    ).private_key(unsafe_skip_rsa_key_validation=True)
    pem = broken.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()

    async def scenario(pki, _clock):
        assert (await refusal(pki("keys/import", pem_bundle=pem))).code == "invalid_request"

    with_pki(scenario)

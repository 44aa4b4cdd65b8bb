"""Transit: signatures that everybody can check, HMACs, hashes and random bytes."""

import base64
import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding

from engines.transit_world import b64, mounted
from keyhole.core.errors import InvalidRequest
from keyhole.crypto.asymmetric import HASHES, KINDS
from vault.world import play, refusal


def scene(scenario):
    async def run(vault):
        await scenario(await mounted(vault))

    play(run)


async def check(transit, name, message, signature, **fields):
    return (await transit(f"verify/{name}", input=b64(message), signature=signature, **fields))["valid"]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in {"rsa-3072", "rsa-4096"}])
def test_a_signature_is_valid_for_its_message_and_key_only(kind):
    async def scenario(transit):
        await transit("keys/k", type=kind)
        await transit("keys/other", type=kind)
        signature = (await transit("sign/k", input=b64("m")))["signature"]
        assert await check(transit, "k", "m", signature)
        assert not await check(transit, "k", "n", signature)
        assert not await check(transit, "other", "m", signature)
        assert not await check(transit, "k", "m", "vault:v1:" + b64("short"))
        await transit("keys/k/rotate")
        assert await check(transit, "k", "m", signature)
        assert not await check(transit, "k", "m", signature.replace("v1", "v2"))
        await transit("keys/k/config", min_decryption_version=2)
        error = await refusal(check(transit, "k", "m", signature))
        assert error.reason == "ciphertext or signature version is disallowed by policy (too old)"

    scene(scenario)


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa-p384", "rsa-2048"])
def test_others_verify_with_the_public_key_that_is_shown(kind):
    async def scenario(transit):
        await transit("keys/k", type=kind)
        text = (await transit.read("keys/k"))["keys"]["1"]["public_key"]
        signature = (await transit("sign/k/sha2-384", input=b64("m")))["signature"].removeprefix("vault:v1:")
        raw = base64.b64decode(signature)
        if kind == "ed25519":
            ed25519.Ed25519PublicKey.from_public_bytes(base64.b64decode(text)).verify(raw, b"m")
            return
        public = serialization.load_pem_public_key(text.encode())
        if kind == "rsa-2048":
            pss = padding.PSS(padding.MGF1(hashes.SHA384()), padding.PSS.AUTO)
            public.verify(raw, b"m", pss, hashes.SHA384())
        else:
            public.verify(raw, b"m", ec.ECDSA(hashes.SHA384()))

    scene(scenario)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"signature_algorithm": "pkcs1v15"},
        {"salt_length": "hash"},
        {"salt_length": 8},
        {"salt_length": "-1"},
        {"salt_length": "0"},
        {"marshaling_algorithm": "jws"},
    ],
)
def test_a_digest_signed_is_the_message_signed(fields):
    async def scenario(transit):
        for kind in ("ecdsa-p256", "rsa-2048"):
            await transit(f"keys/{kind}", type=kind)
            for name in HASHES:
                digest = hashlib.new(name.replace("sha2-", "sha").replace("-", "_"), b"m").digest()
                given = {"hash_algorithm": name, **fields}
                made = await transit(f"sign/{kind}", input=b64(digest), prehashed=True, **given)
                assert await check(transit, kind, "m", made["signature"], **given)
                assert not await check(transit, kind, "n", made["signature"], **given)
                error = await refusal(transit(f"sign/{kind}", input=b64("no digest"), prehashed=True, **given))
                assert isinstance(error, InvalidRequest)

    scene(scenario)


def test_a_signature_for_jws_is_r_and_s_in_base64url():
    async def scenario(transit):
        for kind, width in {"ecdsa-p256": 64, "ecdsa-p384": 96, "ecdsa-p521": 132}.items():
            await transit(f"keys/{kind}", type=kind)
            made = (await transit(f"sign/{kind}", input=b64("m"), marshaling_algorithm="jws"))["signature"]
            text = made.removeprefix("vault:v1:")
            assert len(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))) == width
            assert "=" not in text

    scene(scenario)


def test_a_derived_signing_key_belongs_to_its_context():
    async def scenario(transit):
        await transit("keys/k", type="ed25519", derived=True)
        made = await transit("sign/k", input=b64("m"), context=b64("a"))
        public = ed25519.Ed25519PublicKey.from_public_bytes(base64.b64decode(made["public_key"]))
        public.verify(base64.b64decode(made["signature"].removeprefix("vault:v1:")), b"m")
        assert await check(transit, "k", "m", made["signature"], context=b64("a"))
        assert not await check(transit, "k", "m", made["signature"], context=b64("b"))
        assert "context" in (await refusal(transit("sign/k", input=b64("m")))).reason

    scene(scenario)


@pytest.mark.parametrize("name", HASHES)
def test_hmac_and_hash_are_those_of_the_standard_library(name):
    async def scenario(transit):
        await transit("keys/k", type="hmac", exportable=True, key_size=48)
        key = base64.b64decode((await transit.read("export/hmac-key/k"))["keys"]["1"])
        made = (await transit(f"hmac/k/{name}", input=b64("m")))["hmac"]
        known = name.replace("sha2-", "sha").replace("-", "_")
        assert (len(key), made) == (48, "vault:v1:" + b64(hmac.digest(key, b"m", known)))
        assert (await transit(f"verify/k/{name}", input=b64("m"), hmac=made))["valid"]
        assert not (await transit(f"verify/k/{name}", input=b64("n"), hmac=made))["valid"]
        assert (await transit(f"hash/{name}", input=b64("m")))["sum"] == hashlib.new(known, b"m").hexdigest()
        assert (await transit(f"hash/{name}", input=b64("m"), format="base64"))["sum"] == b64(
            hashlib.new(known, b"m").digest()
        )

    scene(scenario)


def test_a_batch_of_signatures_is_verified_as_a_batch():
    async def scenario(transit):
        await transit("keys/k", type="ed25519")
        made = await transit("sign/k", batch_input=[{"input": b64("a")}, {"input": b64("b")}])
        signatures = [item["signature"] for item in made["batch_results"]]
        items = [{"input": b64(m), "signature": s} for m in "ab" for s in signatures]
        found = (await transit("verify/k", batch_input=items))["batch_results"]
        assert [item["valid"] for item in found] == [True, False, False, True]

    scene(scenario)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("sign/aes", {}),
        ("encrypt/ed", {"plaintext": ""}),
        ("decrypt/ed", {"ciphertext": "vault:v1:AAAA"}),
        ("sign/ed", {"prehashed": True}),
        ("sign/ed/md5", {}),
        ("sign/ed/sha1", {}),
        ("sign/ed", {"signature_algorithm": "none"}),
        ("sign/ed", {"marshaling_algorithm": "xml"}),
        ("sign/ed", {"salt_length": "-2"}),
        ("sign/ed", {"key_version": 2}),
        ("verify/ed", {}),
        ("verify/ed", {"signature": "vault:v1:AAAA", "hmac": "vault:v1:AAAA"}),
        ("sign/nobody", {}),
        ("hmac/nobody", {}),
        ("hash/md5", {}),
        ("random/0", {}),
        ("random/131073", {}),
        ("random/16", {"format": "text"}),
    ],
)
def test_what_makes_no_sense_is_refused_as_the_clients_mistake(path, fields):
    async def scenario(transit):
        await transit("keys/aes")
        await transit("keys/ed", type="ed25519")
        error = await refusal(transit(path, input=b64("m"), **fields))
        assert isinstance(error, InvalidRequest)

    scene(scenario)


def test_random_bytes_are_as_many_as_asked_for():
    async def scenario(transit):
        assert len(base64.b64decode((await transit("random"))["random_bytes"])) == 32
        assert len(bytes.fromhex((await transit("random/7", format="hex"))["random_bytes"])) == 7
        assert (await transit("random/16"))["random_bytes"] != (await transit("random/16"))["random_bytes"]

    scene(scenario)

"""Transit: keys that were made elsewhere come in wrapped, and do what they did there."""

import base64
import os

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.keywrap import aes_key_wrap_with_padding

from engines.transit_world import b64, mounted
from keyhole.core.errors import InvalidRequest
from vault.world import play, refusal


def scene(scenario):
    async def run(vault):
        transit = await mounted(vault)
        public = serialization.load_pem_public_key((await transit.read("wrapping_key"))["public_key"].encode())

        def wrap(key, algorithm=None):
            algorithm = algorithm or hashes.SHA256()
            ephemeral = os.urandom(32)
            first = public.encrypt(ephemeral, padding.OAEP(padding.MGF1(algorithm), algorithm, None))
            return b64(first + aes_key_wrap_with_padding(ephemeral, key))

        await scenario(transit, wrap)

    play(run)


def der(key):
    none = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, none)


def test_a_key_that_is_brought_opens_what_it_sealed_elsewhere():
    async def scenario(transit, wrap):
        key, nonce = os.urandom(32), os.urandom(12)
        await transit("keys/k/import", ciphertext=wrap(key), type="aes256-gcm96")
        sealed = "vault:v1:" + b64(nonce + AESGCM(key).encrypt(nonce, b"elsewhere", b""))
        assert await transit.decrypt("k", sealed) == b"elsewhere"
        assert (await transit.read("keys/k"))["imported_key"] is True
        assert "does not allow rotation" in (await refusal(transit("keys/k/rotate"))).reason
        await transit("keys/k/import_version", ciphertext=wrap(os.urandom(32), hashes.SHA512()), hash_function="SHA512")
        assert (await transit.encrypt("k", "x")).startswith("vault:v2:")
        assert await transit.decrypt("k", sealed) == b"elsewhere"
        again = await refusal(transit("keys/k/import", ciphertext=wrap(key), type="aes256-gcm96"))
        assert isinstance(again, InvalidRequest)

    scene(scenario)


def test_a_private_key_that_is_brought_signs_for_its_public_key():
    async def scenario(transit, wrap):
        signer, curve = ed25519.Ed25519PrivateKey.generate(), ec.generate_private_key(ec.SECP256R1())
        await transit("keys/ed/import", ciphertext=wrap(der(signer)), type="ed25519", allow_rotation=True)
        await transit("keys/ec/import", ciphertext=wrap(der(curve)), type="ecdsa-p256")
        made = [(await transit(f"sign/{name}", input=b64("m")))["signature"] for name in ("ed", "ec")]
        first, second = (base64.b64decode(text.removeprefix("vault:v1:")) for text in made)
        signer.public_key().verify(first, b"m")
        curve.public_key().verify(second, b"m", ec.ECDSA(hashes.SHA256()))
        await transit("keys/ed/rotate")

    scene(scenario)


@pytest.mark.parametrize("kind", ["aes128-gcm96", "ed25519", "rsa-2048", "ecdsa-p256", "zz"])
def test_a_key_of_another_type_or_for_another_vault_is_refused_and_nothing_is_made(kind):
    async def scenario(transit, wrap):
        for text in (wrap(os.urandom(32)), b64(os.urandom(600)), b64("short"), "", "!!"):
            assert isinstance(await refusal(transit("keys/k/import", ciphertext=text, type=kind)), InvalidRequest)
        other = wrap(os.urandom(16), hashes.SHA384())
        assert isinstance(
            await refusal(transit("keys/k/import", ciphertext=other, type="aes128-gcm96")), InvalidRequest
        )
        await transit("keys/made-here")
        wrong = transit("keys/made-here/import_version", ciphertext=wrap(os.urandom(32)))
        assert isinstance(await refusal(wrong), InvalidRequest)
        assert await transit.names() == {"keys": ["made-here"]}

    scene(scenario)

"""``hvac`` drives its whole transit class over a real server, with keys of every type."""

import base64

import pytest
from hvac import exceptions

CIPHERS = ("aes128-gcm96", "aes256-gcm96", "chacha20-poly1305", "rsa-2048", "rsa-3072", "rsa-4096")
SIGNERS = ("ed25519", "ecdsa-p256", "ecdsa-p384", "ecdsa-p521", "rsa-2048", "rsa-3072", "rsa-4096")
HELLO = base64.b64encode(b"hello").decode()


@pytest.fixture
def client(vault):
    return vault.hvac()


@pytest.fixture
def transit(client, request):
    """The class, on a mount of this test."""
    path = f"transit-{abs(hash(request.node.name))}"
    client.sys.enable_secrets_engine("transit", path=path)
    yield Bound(client.secrets.transit, path)
    client.sys.disable_secrets_engine(path)


class Bound:
    def __init__(self, api, path):
        self.api, self.path = api, path

    def __getattr__(self, name):
        return lambda *given, **named: getattr(self.api, name)(*given, mount_point=self.path, **named)

    def make(self, client, name, kind):
        # hvac knows fewer types than the server, so these are made by the route itself.
        client.write_data(f"{self.path}/keys/{name}", data={"type": kind})


@pytest.mark.parametrize("kind", CIPHERS)
def test_ciphers(client, transit, kind):
    transit.make(client, "k", kind)
    assert transit.read_key("k")["data"]["type"] == kind
    sealed = transit.encrypt_data("k", plaintext=HELLO)["data"]["ciphertext"]
    assert transit.decrypt_data("k", ciphertext=sealed)["data"]["plaintext"] == HELLO
    assert transit.rotate_key("k").ok
    again = transit.rewrap_data("k", ciphertext=sealed)["data"]["ciphertext"]
    assert again.startswith("vault:v2:")
    data_key = transit.generate_data_key("k", "plaintext", bits=256)["data"]
    opened = transit.decrypt_data("k", ciphertext=data_key["ciphertext"])["data"]["plaintext"]
    assert opened == data_key["plaintext"]
    assert "plaintext" not in transit.generate_data_key("k", "wrapped")["data"]


@pytest.mark.parametrize("kind", SIGNERS)
def test_signers(client, transit, kind):
    transit.make(client, "k", kind)
    signature = transit.sign_data("k", hash_input=HELLO)["data"]["signature"]
    assert transit.verify_signed_data("k", hash_input=HELLO, signature=signature)["data"]["valid"] is True
    other = base64.b64encode(b"other").decode()
    assert transit.verify_signed_data("k", hash_input=other, signature=signature)["data"]["valid"] is False
    public = client.read(f"{transit.path}/export/public-key/k")["data"]["keys"]["1"]
    assert public


def test_hmac(client, transit):
    transit.make(client, "k", "hmac")
    for algorithm in ("sha2-224", "sha2-256", "sha2-384", "sha2-512"):
        made = transit.generate_hmac("k", hash_input=HELLO, algorithm=algorithm)["data"]["hmac"]
        checked = transit.verify_signed_data("k", hash_input=HELLO, hmac=made, hash_algorithm=algorithm)
        assert checked["data"]["valid"] is True


def test_settings_versions_and_what_may_leave(transit):
    transit.create_key("k", auto_rotate_period="24h")
    assert transit.read_key("k")["data"]["auto_rotate_period"] == 86400
    assert transit.list_keys()["data"]["keys"] == ["k"]
    with pytest.raises(exceptions.InvalidRequest, match="deletion is not allowed"):
        transit.delete_key("k")
    with pytest.raises(exceptions.InvalidRequest, match="not exportable"):
        transit.export_key("k", "encryption-key")
    with pytest.raises(exceptions.InvalidRequest, match="at least an hour"):
        transit.update_key_configuration("k", auto_rotate_period="30m")
    transit.rotate_key("k")
    transit.update_key_configuration(
        "k",
        min_encryption_version=2,
        deletion_allowed=True,
        exportable=True,
        allow_plaintext_backup=True,
        auto_rotate_period="0",
    )
    transit.update_key_configuration("k", min_decryption_version=2)
    transit.trim_key("k", min_version=2)
    assert list(transit.export_key("k", "encryption-key", version="latest")["data"]["keys"]) == ["2"]
    assert list(transit.export_key("k", "hmac-key")["data"]["keys"]) == ["2"]
    backup = transit.backup_key("k")["data"]["backup"]
    with pytest.raises(exceptions.InternalServerError, match="already exists"):
        transit.restore_key(backup=backup, force=False)
    assert transit.restore_key(backup=backup, force=True).ok
    assert transit.restore_key(backup=backup, name="copy").ok
    assert transit.read_key("copy")["data"]["auto_rotate_period"] == 0
    assert transit.delete_key("k").ok
    with pytest.raises(exceptions.InvalidPath):
        transit.read_key("k")


def test_derived_keys_and_batches(client, transit):
    transit.create_key("k", derived=True, convergent_encryption=True)
    context = base64.b64encode(b"row 1").decode()
    same = {transit.encrypt_data("k", plaintext=HELLO, context=context)["data"]["ciphertext"] for _ in range(2)}
    assert len(same) == 1
    transit.create_key("b")
    made = transit.encrypt_data("b", batch_input=[{"plaintext": HELLO, "reference": "a"}, {"plaintext": HELLO}])
    results = made["data"]["batch_results"]
    assert results[0]["reference"] == "a"
    batch = [{"ciphertext": results[0]["ciphertext"]}, {"ciphertext": "vault:v1:bad"}]
    with pytest.raises(exceptions.InvalidRequest):
        transit.decrypt_data("b", batch_input=batch)
    path = f"{transit.path}/decrypt/b"
    some = client.write_data(path, data={"batch_input": batch, "partial_failure_response_code": 200})
    good, bad = some["data"]["batch_results"]
    assert good["plaintext"] == HELLO
    assert bad["error"]


def test_randomness_and_digests(transit):
    assert len(base64.b64decode(transit.generate_random_bytes(n_bytes=12)["data"]["random_bytes"])) == 12
    assert len(transit.generate_random_bytes(n_bytes=12, output_format="hex")["data"]["random_bytes"]) == 24
    digest = transit.hash_data(HELLO, algorithm="sha2-256", output_format="hex")["data"]["sum"]
    assert digest == "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"

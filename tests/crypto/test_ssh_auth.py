"""Which certificates of hosts are believed: by who has signed them, and how."""

import base64
import struct

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from keyhole.crypto import ssh, ssh_auth

HOST, NOW = "db.example", 5.0


def text(data):
    return struct.pack(">I", len(data)) + data


def certificate(authority, kind=ssh.ED25519, signer=""):
    """Of a new host key, on the wire."""
    key = ssh.read_public(ssh.public_of(ssh.generate(kind, 2048)))
    said = ssh.Certificate(key=key, serial=1, host=True, key_id="", principals=(HOST,), after=0, before=2**40)
    return base64.b64decode(ssh.certify(authority, said, signer).split()[1])


def signed_otherwise(data, authority, key, name, digest):
    """The certificate of an RSA authority, as another key signs it in another way."""
    line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    ours = text(ssh_auth.public_blob(authority))
    body = data[: data.rindex(ours)] + text(base64.b64decode(line.split()[1]))
    return body + text(text(name) + text(key.sign(body, padding.PKCS1v15(), digest)))


@pytest.mark.parametrize("kind", ssh.KINDS)
def test_a_certificate_proves_its_authority_whatever_the_kinds_of_keys(kind):
    authority = ssh.generate(kind, 2048)
    for of in ssh.KINDS:
        found = ssh_auth.proof(certificate(authority, of), HOST, NOW)
        assert found == (ssh.public_of(authority), True)
    if kind == ssh.RSA:
        assert ssh_auth.proof(certificate(authority, signer="rsa-sha2-256"), HOST, NOW) == found


def test_signatures_that_can_be_forged_prove_nothing():
    authority = ssh.generate(ssh.RSA, 2048)
    data = certificate(authority)
    own = serialization.load_ssh_private_key(authority, None)
    short = rsa.generate_private_key(65537, 1024)
    assert ssh_auth.proof(signed_otherwise(data, authority, own, b"rsa-sha2-256", hashes.SHA256()), HOST, NOW)
    assert ssh_auth.proof(signed_otherwise(data, authority, own, b"ssh-rsa", hashes.SHA1()), HOST, NOW) is None
    assert ssh_auth.proof(signed_otherwise(data, authority, short, b"rsa-sha2-256", hashes.SHA256()), HOST, NOW) is None


def test_a_certificate_that_was_changed_or_goes_on_proves_nothing():
    data = certificate(ssh.generate(ssh.ED25519))
    assert ssh_auth.proof(data, HOST, NOW)
    assert ssh_auth.proof(data + b"\0", HOST, NOW) is None
    for at in range(len(data)):
        changed = data[:at] + bytes((data[at] ^ 1,)) + data[at + 1 :]
        assert ssh_auth.proof(changed, HOST, NOW) is None

"""Keys, certificates and requests that the library fails to read in its many ways: refused, never a fault of ours."""

from __future__ import annotations

import base64
import datetime as dt
import struct
import subprocess

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509 import ocsp

from keyhole.core.errors import InvalidRequest
from keyhole.crypto import pki, ssh, ssh_auth
from keyhole.crypto.client_certificate import read_authorities, read_client_certificate
from keyhole.crypto.foreign_jwt import key_of_pem
from keyhole.crypto.pki.ocsp import Question

PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
KEY = ec.generate_private_key(ec.SECP256R1())
NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "odd")])
ODD = {
    "a name of X.400": ("2.5.29.17", b"\x30\x04\xa3\x02\x30\x00"),
    "a name of EDI": ("2.5.29.17", b"\x30\x04\xa5\x02\x30\x00"),
    "an address of five bytes": ("2.5.29.17", b"\x30\x07\x87\x05\x01\x02\x03\x04\x05"),
    "a feature of TLS that is none": ("1.3.6.1.5.5.7.1.24", b"\x30\x03\x02\x01\x63"),
    "no name at all": ("2.5.29.17", b"\x00"),
}


def certificate(*extensions):
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateBuilder().subject_name(NAME).issuer_name(NAME).public_key(KEY.public_key())
    builder = builder.serial_number(5).not_valid_before(now).not_valid_after(now + dt.timedelta(days=1))
    for each in extensions:
        builder = builder.add_extension(each, critical=False)
    return builder.sign(KEY, hashes.SHA256())


def text(der, kind="CERTIFICATE"):
    return f"-----BEGIN {kind}-----\n{base64.encodebytes(der).decode()}-----END {kind}-----\n"


def test_a_key_of_ssh_that_is_compressed_is_no_key():
    point = KEY.public_key().public_bytes(serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    parts = (b"ecdsa-sha2-nistp256", b"nistp256", point)
    blob = b"".join(struct.pack(">I", len(part)) + part for part in parts)
    assert ssh_auth.verify(blob, blob, b"data") is False
    assert ssh_auth.proof(blob, "forge.test", 0.0) is None
    with pytest.raises(InvalidRequest):
        ssh.read_public(f"ecdsa-sha2-nistp256 {base64.b64encode(blob).decode()}")


@pytest.mark.parametrize(("oid", "value"), ODD.values(), ids=ODD)
def test_extensions_that_cannot_be_read(oid, value):
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
    made = certificate(odd)
    asked = x509.CertificateSigningRequestBuilder().subject_name(NAME).add_extension(odd, critical=False)
    for read, given in (
        (pki.read_certificate, made.public_bytes(PEM).decode()),
        (pki.read_request, asked.sign(KEY, hashes.SHA256()).public_bytes(PEM).decode()),
        (read_authorities, made.public_bytes(PEM).decode()),
        (read_client_certificate, made.public_bytes(DER)),
    ):
        with pytest.raises(InvalidRequest):
            read(given)


def test_versions_that_are_none():
    der = certificate().public_bytes(DER).replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x07", 1)
    for read, given in (
        (pki.read_certificate, text(der)),
        (key_of_pem, text(der)),
        (read_authorities, text(der)),
        (read_client_certificate, der),
    ):
        with pytest.raises(InvalidRequest):
            read(given)


def test_curves_that_nobody_knows():
    made = subprocess.run(
        ["openssl", "ecparam", "-name", "secp112r1", "-genkey", "-noout"], capture_output=True, check=True
    ).stdout
    public = subprocess.run(["openssl", "pkey", "-pubout"], input=made, capture_output=True, check=True).stdout
    with pytest.raises(InvalidRequest, match="not a public key"):
        key_of_pem(public.decode())


def test_a_question_about_a_certificate_with_an_extension_that_cannot_be_read():
    one = certificate()
    odd = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.5.5.7.48.1.4"), b"\x05\x00")
    built = ocsp.OCSPRequestBuilder().add_certificate(one, one, hashes.SHA256()).add_extension(odd, critical=False)
    with pytest.raises(InvalidRequest, match="no OCSP request"):
        Question.read(built.build().public_bytes(DER))

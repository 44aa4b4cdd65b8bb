"""Certificates of a public key infrastructure (X.509, RFC 5280): made, read, revoked.

Safe here: serials are 159 random bits; RSA below 2048 bits and SHA-1 are not used; who is no authority gets no usage of
one; an authority signs nothing below the path length that it has.
"""

from keyhole.crypto.pki.keys import KINDS, KeyInfo, generate, kind_of, private_text, public_of, read_private
from keyhole.crypto.pki.making import (
    EXTENDED_USAGES,
    USAGES,
    Content,
    Issuer,
    make_certificate,
    make_crl,
    make_request,
    new_serial,
    sign_again,
)
from keyhole.crypto.pki.names import SUBJECT_FIELDS, AltNames, Subject
from keyhole.crypto.pki.reading import (
    CertificateInfo,
    RequestInfo,
    is_signed_by,
    read_certificate,
    read_pem_bundle,
    read_request,
)

__all__ = [
    "EXTENDED_USAGES",
    "KINDS",
    "SUBJECT_FIELDS",
    "USAGES",
    "AltNames",
    "CertificateInfo",
    "Content",
    "Issuer",
    "KeyInfo",
    "RequestInfo",
    "Subject",
    "generate",
    "is_signed_by",
    "kind_of",
    "make_certificate",
    "make_crl",
    "make_request",
    "new_serial",
    "private_text",
    "public_of",
    "read_certificate",
    "read_pem_bundle",
    "read_private",
    "read_request",
    "sign_again",
]

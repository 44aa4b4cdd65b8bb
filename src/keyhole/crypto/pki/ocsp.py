"""Answers about single certificates (OCSP, RFC 6960), signed by the issuer itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp

from keyhole.core.errors import InvalidRequest
from keyhole.crypto.pki.keys import load_private
from keyhole.crypto.pki.making import Issuer, signing_hash
from keyhole.crypto.unreadable import UNREADABLE

_LONGEST = 4096  # bytes of a request
_LONGEST_NONCE = 32  # RFC 9654, section 2.1
_HASHES = (hashes.SHA1, hashes.SHA256)


@dataclass(frozen=True, slots=True)
class Question:
    """A request about one certificate.

    Attributes:
        serial: its number.
    """

    serial: int
    _request: ocsp.OCSPRequest
    _extensions: Sequence[x509.Extension[x509.ExtensionType]]

    @classmethod
    def read(cls, der: bytes) -> Question:
        """From its bytes. Raises ``InvalidRequest``."""
        try:
            if len(der) > _LONGEST:
                raise _no_request()
            request = ocsp.load_der_ocsp_request(der)
            extensions = list(request.extensions)
            if not isinstance(request.hash_algorithm, _HASHES):
                raise _no_request()
            return cls(request.serial_number, request, extensions)
        except UNREADABLE:
            raise _no_request() from None

    def is_about(self, certificate: str) -> bool:
        """Whether it is about a certificate of this issuer, in PEM."""
        issuer = x509.load_pem_x509_certificate(certificate.encode())
        own = ocsp.OCSPRequestBuilder().add_certificate(issuer, issuer, self._request.hash_algorithm).build()
        mine = (own.issuer_name_hash, own.issuer_key_hash)
        return mine == (self._request.issuer_name_hash, self._request.issuer_key_hash)

    def answer(self, issuer: Issuer, *, now: int, end: int, revoked: int, known: bool) -> bytes:
        """The answer in DER.

        Args:
            issuer: who signs.
            now: seconds since the epoch.
            end: until when the answer is good.
            revoked: when the certificate was revoked; 0 for never.
            known: whether the issuer knows the certificate.
        """
        request, key = self._request, load_private(issuer.private)
        certificate = x509.load_pem_x509_certificate(issuer.certificate.encode())
        status = ocsp.OCSPCertStatus
        builder = (
            ocsp.OCSPResponseBuilder()
            .add_response_by_hash(
                request.issuer_name_hash,
                request.issuer_key_hash,
                request.serial_number,
                request.hash_algorithm,
                status.REVOKED if revoked else status.GOOD if known else status.UNKNOWN,
                _moment(now),
                _moment(end),
                _moment(revoked) if revoked else None,
                None,
            )
            .responder_id(ocsp.OCSPResponderEncoding.HASH, certificate)
        )
        for extension in self._extensions:
            if isinstance(extension.value, x509.OCSPNonce) and len(extension.value.nonce) <= _LONGEST_NONCE:
                builder = builder.add_extension(extension.value, critical=False)
        return builder.sign(key, signing_hash(key, issuer.bits)).public_bytes(serialization.Encoding.DER)


def refusal(*, unauthorized: bool) -> bytes:
    """An answer that says nothing of a certificate: it is not ours, or the request cannot be read."""
    status = ocsp.OCSPResponseStatus
    found = status.UNAUTHORIZED if unauthorized else status.MALFORMED_REQUEST
    return ocsp.OCSPResponseBuilder.build_unsuccessful(found).public_bytes(serialization.Encoding.DER)


def _no_request() -> InvalidRequest:
    return InvalidRequest("this is no OCSP request about one certificate")


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=0)

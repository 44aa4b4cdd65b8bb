"""What binds a proof to the TLS connection that it is shown on."""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes


def end_point(certificate: bytes) -> bytes:
    """The channel binding tls-server-end-point (RFC 5929, section 4.1).

    Args:
        certificate: of the server, DER.

    Returns:
        Its hash by the hash function of its own signature; empty where that has none, as with Ed25519.
    """
    try:
        algorithm = x509.load_der_x509_certificate(certificate).signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        return b""
    if algorithm is None:
        return b""
    digest = hashes.Hash(hashes.SHA256() if algorithm.name in {"md5", "sha1"} else algorithm)
    digest.update(certificate)
    return digest.finalize()

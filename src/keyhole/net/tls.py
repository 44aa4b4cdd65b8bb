"""TLS settings of both sides, and certificate errors in words.

Contexts are made by hand rather than by ``ssl.create_default_context``: that one honours ``SSLKEYLOGFILE``, and a file
of session keys would give away every credential on the wire.
"""

from __future__ import annotations

import errno
import os
import ssl
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from keyhole.core.errors import InvalidRequest, UpstreamTls

# OpenSSL's X509_V_ERR_* codes (openssl/x509_vfy.h): what happened, and the next step.
_TRUST = "add the issuer's certificate with --upstream-ca"
_LISTS = "add the current lists of all CAs in its chain to the file of --upstream-crl"
_VERIFY = {
    3: ("no revocation list covers the upstream's certificate and its issuers", _LISTS),
    8: ("a revocation list for the upstream's certificate is not signed by its issuer", _LISTS),
    11: ("the revocation list for the upstream's certificate is not valid yet", "check the clocks of both machines"),
    12: ("the revocation list for the upstream's certificate has expired", _LISTS),
    9: ("the upstream's certificate is not valid yet", "check the clocks of both machines"),
    10: ("the upstream's certificate has expired", "ask the upstream's operator to renew it"),
    18: ("the upstream's certificate is self-signed", _TRUST),
    19: ("the upstream's certificate chain ends in a root that is not trusted", _TRUST),
    20: ("the issuer of the upstream's certificate is not known", _TRUST),
    21: ("the upstream sent no intermediate certificate, so that its issuer is not known", _TRUST),
    23: ("the upstream's certificate has been revoked", "do not use this upstream"),
    62: ("the upstream's certificate is for another name", "check the host of the service"),
    64: ("the upstream's certificate is for another address", "name the upstream by its host name"),
}
_REASONS = {
    "UNSUPPORTED_PROTOCOL": ("the upstream offers no TLS version from 1.2 on", "ask its operator to enable TLS 1.2"),
    "TLSV1_ALERT_PROTOCOL_VERSION": (
        "the upstream refuses every TLS version from 1.2 on",
        "ask its operator to enable TLS 1.2",
    ),
    "WRONG_VERSION_NUMBER": ("the upstream does not speak TLS on this port", "check port and scheme of the service"),
    "HTTP_REQUEST": ("the upstream does not speak TLS on this port", "check port and scheme of the service"),
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": (
        "the upstream asks for a client certificate",
        "bind one to the service with the injection mtls",
    ),
    "SSLV3_ALERT_HANDSHAKE_FAILURE": (
        "the upstream and Keyhole have no TLS parameters in common",
        "check the upstream's ciphers and whether it asks for a client certificate",
    ),
    "TLSV1_UNRECOGNIZED_NAME": ("the upstream does not know this host name", "check the host of the service"),
}


def client_context(
    extra_ca: str | None = None, alpn: Sequence[str] | None = None, *, crl: str | None = None, only: str = ""
) -> ssl.SSLContext:
    """A context that verifies chain and host name, from TLS 1.2 on.

    Args:
        extra_ca: path of a PEM bundle that is trusted besides the system's store.
        alpn: protocols to offer (RFC 7301), the preferred one first.
        crl: path of a PEM file of revocation lists (RFC 5280 section 5). With it every certificate of a chain, the root
            too, must be covered by a list that is valid now, and be in none.
        only: certificates in PEM that are trusted instead of the system's store.

    Raises:
        InvalidRequest: a file cannot be read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if not only:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    elif not _load_certificates(context, only):
        raise InvalidRequest("the CA certificates are not in PEM form", "send the whole text, with its BEGIN and END")
    if extra_ca is not None:
        try:
            context.load_verify_locations(cafile=extra_ca)
        except (OSError, ssl.SSLError):
            raise InvalidRequest("the CA bundle is not a readable PEM file", "check the path and the file") from None
    if crl is not None:
        _load_lists(context, crl)
    return _restrict(context, alpn)


def _load_certificates(context: ssl.SSLContext, pem: str) -> bool:
    try:
        context.load_verify_locations(cadata=pem)
    except (ValueError, ssl.SSLError):
        return False
    return bool(context.cert_store_stats()["x509"])


def _load_lists(context: ssl.SSLContext, path: str) -> None:
    """Check revocation by the lists in a file. OpenSSL would also trust what certificates it finds there."""
    before = context.cert_store_stats()
    try:
        context.load_verify_locations(cafile=path)
    except (OSError, ssl.SSLError):
        raise InvalidRequest("the file of --upstream-crl is not a readable PEM file", "check path and file") from None
    after = context.cert_store_stats()
    if after["x509"] != before["x509"] or after["crl"] == before["crl"]:
        raise InvalidRequest(
            "the file of --upstream-crl holds something else than revocation lists", "put only X509 CRL blocks into it"
        )
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN


def server_context(cert_pem: bytes, key_pem: bytes, alpn: Sequence[str] | None = None) -> ssl.SSLContext:
    """A context that serves this chain, from TLS 1.2 on. Raises ``InvalidRequest`` when chain and key do not fit."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 1  # a second one is a tenth of a handshake; who resumes gets another (RFC 8446 section 4.6.1)
    load_chain(context, cert_pem, key_pem)
    return _restrict(context, alpn)


def accept_clients(context: ssl.SSLContext, ca_pem: bytes, *, require: bool) -> None:
    """Let clients of a server's context prove themselves with certificates of these CAs (RFC 8446 section 4.4.2).

    One that is shown and cannot be verified always ends the handshake.

    Args:
        context: of a server.
        ca_pem: certificates to trust; a client's own, self-signed one counts for that client.
        require: refuse who shows none.

    Raises:
        InvalidRequest: they are not PEM certificates.
    """
    try:
        context.load_verify_locations(cadata=ca_pem.decode("ascii"))
    except (ValueError, ssl.SSLError):
        raise InvalidRequest("the CAs of clients are not a PEM bundle", "check the file of --tls-client-ca") from None
    context.verify_mode = ssl.CERT_REQUIRED if require else ssl.CERT_OPTIONAL


def _restrict(context: ssl.SSLContext, alpn: Sequence[str] | None) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def load_chain(context: ssl.SSLContext, cert_pem: bytes, key_pem: bytes) -> None:
    """Give a context its certificate chain and key, although ``ssl`` reads them from paths only.

    The key never lies in a file: it passes through anonymous memory, or through a pipe where there is none.

    Args:
        context: either side's.
        cert_pem: the leaf first, then its issuers.
        key_pem: unencrypted PEM.

    Raises:
        InvalidRequest: they are not PEM, or do not belong together.
    """
    try:
        if hasattr(os, "memfd_create") and Path("/proc/self/fd").is_dir():
            _load_from_memory(context, cert_pem, key_pem)
        else:
            _load_from_pipe(context, cert_pem, key_pem)
    except ssl.SSLError:
        raise InvalidRequest(
            "the certificate chain and its key cannot be loaded", "check that both are PEM and belong together"
        ) from None


def _no_password() -> str:
    """Answer for an encrypted key, so that OpenSSL does not ask on the terminal."""
    return ""


def _load_from_memory(context: ssl.SSLContext, cert_pem: bytes, key_pem: bytes) -> None:
    fd = os.memfd_create("chain", os.MFD_CLOEXEC)
    with open(fd, "wb") as file:  # noqa: PTH123 - an open descriptor, not a path
        file.write(cert_pem.rstrip() + b"\n" + key_pem)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{fd}", password=_no_password)


def _load_from_pipe(context: ssl.SSLContext, cert_pem: bytes, key_pem: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:  # 0700
        pipes = [(Path(folder) / "chain", cert_pem), (Path(folder) / "key", key_pem)]
        writers = [threading.Thread(target=_feed, args=pipe, daemon=True) for pipe in pipes]
        for path, _ in pipes:
            os.mkfifo(path, 0o600)
        for writer in writers:
            writer.start()
        try:
            context.load_cert_chain(pipes[0][0], pipes[1][0], password=_no_password)
        except OSError as error:
            if error.errno != errno.ESPIPE:
                raise
            # OpenSSL asks every file for its position; that a pipe has none hides the error that came after.
            raise ssl.SSLError("the chain or the key is malformed") from None
        finally:
            for (path, _), writer in zip(pipes, writers, strict=True):
                while writer.is_alive():  # nobody read it: a reader that comes and goes lets the writer end
                    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
                    writer.join(0.01)


def _feed(path: Path, data: bytes) -> None:
    with suppress(OSError), path.open("wb") as pipe:
        pipe.write(data)


def nothing_in_common(error: ssl.SSLError) -> bool:
    """Whether a handshake failed for the peer speaks none of the protocols that were offered (RFC 7301 section 3.2)."""
    return "no application protocol" in str(error).replace("_", " ").lower()  # older versions of Python give no reason


def upstream_error(error: ssl.SSLError | ssl.CertificateError | OSError) -> UpstreamTls:
    """What went wrong in a handshake with an upstream, in words that name neither certificate nor peer."""
    if isinstance(error, ssl.SSLCertVerificationError):
        known = _VERIFY.get(error.verify_code)
        return UpstreamTls(*known) if known else UpstreamTls("the upstream's certificate is not valid", _TRUST)
    reason = getattr(error, "reason", None) or ""
    known = _REASONS.get(reason)
    if known:
        return UpstreamTls(*known)
    return UpstreamTls("the TLS handshake with the upstream failed", "check that it serves TLS on this port")

"""The certificates that a command trusts: the system's, those its user added, and our authority.

Most runtimes replace their store by the file that their variable names, so that file holds everything; Node adds to
its own. All of it is public.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import ssl
import struct
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

REPLACING = (
    "SSL_CERT_FILE",  # OpenSSL, Go, Ruby, httpx, uv
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "PIP_CERT",
    "npm_config_cafile",  # else the cafile of an npmrc wins
    "DENO_CERT",
    "AWS_CA_BUNDLE",
    "HTTPLIB2_CA_CERTS",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "NIX_SSL_CERT_FILE",
    "PERL_LWP_SSL_CA_FILE",
)
ADDING = "NODE_EXTRA_CA_CERTS"

# Where the distributions keep theirs, after what OpenSSL was built with: Debian, Fedora, SUSE, Alpine and BSD.
_KNOWN = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_LARGEST = 8 << 20  # bytes of a bundle that is still read
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----")
_JKS_WHITENER = b"Mighty Aphrodite"  # part of the digest in sun.security.provider.JavaKeyStore
_JKS_PASSWORD = "changeit"  # noqa: S105  # the JDK's own for its store of public certificates


@dataclass(frozen=True, slots=True)
class TrustFiles:
    """Files that live as long as the command.

    Attributes:
        combined: every certificate, for variables that replace a store.
        extra: ours and those the user had added for Node.
        java: a Java key store, or ``None`` where there is no Java.
        ssh: the directory with what SSH needs, or ``None`` where the command logs in nowhere.
        others: variable to a file of the command's services.
        wget: a configuration for wget, which has no variable for certificates, or ``None`` where the user has one.
    """

    combined: Path
    extra: Path
    java: Path | None
    wget: Path | None = None
    others: Mapping[str, Path] = field(default_factory=dict)
    ssh: Path | None = None


@contextmanager
def trust_files(
    ca_pem: bytes, environ: Mapping[str, str], *, java: bool, others: Mapping[str, bytes] | None = None
) -> Iterator[TrustFiles]:
    """Write the files into a private directory of their own, removed at the end.

    Raises:
        OSError: there is no place for them.
    """
    runtime = Path(environ.get("XDG_RUNTIME_DIR", ""))
    usable = runtime.is_absolute() and runtime.is_dir() and os.access(runtime, os.W_OK | os.X_OK)
    folder = Path(tempfile.mkdtemp(prefix="keyhole-run-", dir=runtime if usable else None))
    try:
        ours = _certificates(ca_pem)
        combined = _unique([*_system(), *_named(environ, (*REPLACING, ADDING)), *ours])
        named = {variable: folder / f"{variable}.file" for variable in others or {}}
        store = folder / "truststore.jks" if java else None
        files = TrustFiles(folder / "ca-bundle.pem", folder / "ca.pem", store, _wget(folder, environ), named)
        _write(files.combined, _joined(combined))
        _write(files.extra, _joined(_unique([*_named(environ, (ADDING,)), *ours])))
        if files.java is not None:
            _write(files.java, _java_store(combined))
        if files.wget is not None:
            _write(files.wget, b"ca_certificate = " + os.fsencode(files.combined) + b"\n")
        for variable, content in (others or {}).items():
            _write(named[variable], content)
        yield files
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wget(folder: Path, environ: Mapping[str, str]) -> Path | None:
    """Where wget's file goes. It reads one of its user's only, so an own one is left in force."""
    own = environ.get("WGETRC") or str(Path(environ.get("HOME", "")) / ".wgetrc")
    return None if Path(own).exists() else folder / "wgetrc"


def _system() -> list[bytes]:
    """The certificates that the system trusts; empty when it has none."""
    paths = ssl.get_default_verify_paths()
    for name in (paths.openssl_cafile, *_KNOWN):
        if found := _read(Path(name)):
            return found
    if Path(paths.openssl_capath).is_dir():
        return [pem for path in sorted(Path(paths.openssl_capath).iterdir()) for pem in _read(path)]
    # Windows keeps them outside the file system.
    loaded = ssl.create_default_context().get_ca_certs(binary_form=True)
    return [ssl.DER_cert_to_PEM_cert(der).encode().strip() for der in loaded]


def _named(environ: Mapping[str, str], variables: Iterable[str]) -> list[bytes]:
    return [pem for variable in variables if environ.get(variable) for pem in _read(Path(environ[variable]))]


def _read(path: Path) -> list[bytes]:
    try:
        return _certificates(path.read_bytes()) if path.is_file() and path.stat().st_size <= _LARGEST else []
    except OSError:
        return []  # a file that we may not read, the command may not read either


def _certificates(text: bytes) -> list[bytes]:
    return [match.group().replace(b"\r\n", b"\n") for match in _CERTIFICATE.finditer(text)]


def _unique(certificates: Iterable[bytes]) -> list[bytes]:
    return list(dict.fromkeys(certificates))


def _joined(certificates: Iterable[bytes]) -> bytes:
    return b"".join(pem + b"\n" for pem in certificates)


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _java_store(certificates: Iterable[bytes]) -> bytes:
    """The key store format "JKS" of the JDK, trusted certificates only, which every Java can read.

    Magic, version 2, count; for each: tag 2, alias, milliseconds since 1970, type, certificate; at the end a SHA-1
    over the password and all before it, against accidents.
    """
    entries = list(certificates)
    born = int(time.time() * 1000)
    parts = [struct.pack(">III", 0xFEEDFEED, 2, len(entries))]
    for index, pem in enumerate(entries):
        der = base64.b64decode(b"".join(pem.splitlines()[1:-1]))
        parts += [struct.pack(">I", 2), _java_text(f"keyhole{index}"), struct.pack(">Q", born), _java_text("X.509")]
        parts += [struct.pack(">I", len(der)), der]
    store = b"".join(parts)
    digest = hashlib.sha1(_JKS_PASSWORD.encode("utf-16-be") + _JKS_WHITENER + store)  # noqa: S324  # the format's own
    return store + digest.digest()


def _java_text(text: str) -> bytes:
    return struct.pack(">H", len(text)) + text.encode("ascii")

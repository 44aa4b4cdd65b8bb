"""The TLS of our listeners: from files that are renewed while a server runs.

A certificate lives for weeks, a server for longer. The chain and its key are read again when they change, or when
somebody says so; connections from before keep what they have. Files that do not fit together change nothing: whoever
renews them writes one after the other.
"""

from __future__ import annotations

import hashlib
import logging
import ssl
from pathlib import Path

from keyhole.core.errors import InvalidRequest
from keyhole.net.tls import accept_clients, load_chain, server_context

_log = logging.getLogger("keyhole.net")


class ServedTls:
    """Gives the TLS contexts of listeners, and keeps their chain fresh.

    Args:
        cert: path of a PEM chain, the leaf first.
        key: path of its private key, unencrypted PEM.

    Raises:
        InvalidRequest: a file cannot be read, or they do not fit together.
    """

    def __init__(self, cert: str, key: str) -> None:
        self._cert, self._key = cert, key
        self._loaded = _digest(*self._read())
        self._contexts: list[ssl.SSLContext] = []

    def context(self, client_ca: str = "", *, require: bool = False) -> ssl.SSLContext:
        """A context for one listener.

        Args:
            client_ca: path of the CAs of clients that may show a certificate; empty to ask for none.
            require: refuse clients without one.

        Raises:
            InvalidRequest: that file cannot be read.
        """
        context = server_context(*self._read())
        if client_ca:
            accept_clients(context, _read(client_ca), require=require)
        self._contexts.append(context)
        return context

    def refresh(self) -> bool:
        """Serve what the files hold now; whether that is something else than before."""
        try:
            found = self._read()
            if _digest(*found) == self._loaded:
                return False
            server_context(*found)  # what does not fit is found out on a context that serves nobody
        except InvalidRequest as error:
            _log.warning("the TLS certificate was not read again: %s", error)
            return False
        for context in self._contexts:
            load_chain(context, *found)
        self._loaded = _digest(*found)
        return True

    def _read(self) -> tuple[bytes, bytes]:
        return _read(self._cert), _read(self._key)


def _digest(cert: bytes, key: bytes) -> bytes:
    """What tells whether files changed; a key itself is not kept for that."""
    return hashlib.sha256(hashlib.sha256(cert).digest() + hashlib.sha256(key).digest()).digest()


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{path}: {error.strerror}", "check the paths of --tls-…") from None

"""What the certificates of upstreams are judged by: files that may change while a server runs.

A list of revoked certificates lives for days, a bundle of roots for as long as nobody takes one out. Both are read
again when they change. One that cannot be read then changes nothing: what was read before stays in force, and a
list ends by its own date, after which nothing that it covers is believed.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

from keyhole.core.errors import InvalidRequest
from keyhole.net.tls import client_context

_log = logging.getLogger("keyhole.net")
_Stamp = tuple[int, int, int] | None


class Trust:
    """Gives TLS contexts that verify upstreams.

    Args:
        extra_ca: path of a PEM bundle that is trusted besides the system's store; empty for none.
        crl: path of a PEM file of revocation lists; empty to check no revocation.
        alpn: protocols to offer.

    Attributes:
        changed: called after the files were read anew: connections and sessions from before prove nothing any more.

    Raises:
        InvalidRequest: a file cannot be read.
    """

    def __init__(self, extra_ca: str = "", crl: str = "", alpn: Sequence[str] = ()) -> None:
        self._extra_ca = extra_ca or None
        self._crl = crl or None
        self._alpn = tuple(alpn)
        self._paths = tuple(path for path in (extra_ca, crl) if path)
        self._stamps = self._look()
        # Reading the system's store takes some hundredths of a second, and cannot fail: it waits for who needs it.
        self._context = self.fresh() if self._paths else None
        self.changed: list[Callable[[], None]] = []

    def fresh(self) -> ssl.SSLContext:
        """A context of its own, for a client's certificate to be put into. Raises ``InvalidRequest``."""
        return client_context(self._extra_ca, self._alpn, crl=self._crl)

    def context(self) -> ssl.SSLContext:
        """The context of all connections without a client's certificate; another one once a file has changed."""
        if self._paths and (stamps := self._look()) != self._stamps:
            self._stamps = stamps
            try:
                self._context = self.fresh()
            except InvalidRequest as error:
                _log.warning("what upstreams are trusted by was not read again: %s", error)
            else:
                for tell in self.changed:
                    tell()
        if self._context is None:
            self._context = self.fresh()
        return self._context

    def _look(self) -> tuple[_Stamp, ...]:
        return tuple(_stamp(path) for path in self._paths)


def _stamp(path: str) -> _Stamp:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino

"""The transport to a server: HTTP/1.1 on one kept connection, verified TLS, no redirects, no proxies.

Proxy variables of the environment are not read: a command that runs inside ``keyhole run`` would otherwise send its
token through the broker, and a token is nothing for a proxy in any case.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import select
import socket
import ssl
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from keyhole.client import context
from keyhole.client.core import Result, build, parse
from keyhole.client.road import Road
from keyhole.core.errors import InvalidRequest, Unreachable

if TYPE_CHECKING:
    from keyhole.client.relay import Relay

PATIENCE = 10.0
"""The same where another server can be asked, or something has to go on."""
READS = frozenset({"read", "list"})
TIMEOUT = 60.0
"""Seconds without a byte before a server counts as unreachable."""
_LIMIT = 64 * 1024 * 1024
_PORTS = {"http": 80, "https": 443}


class NotConnected(Unreachable):
    """No connection came about, so nothing was sent."""


class HttpTransport:
    """Asks a server.

    Args:
        address: ``https://HOST[:PORT]``; ``http://`` for loopback only, unless ``KEYHOLE_INSECURE_HTTP`` is ``1``.
        token: the caller's.
        org: where it asks; empty for the token's own.
        cacert: PEM file of the CA to trust besides the system's; empty for ``KEYHOLE_CACERT``.
        timeout: seconds without a byte.
        patience: the same for connecting and for reading, where that can be tried elsewhere; 0 for ``timeout``.
        deadline: seconds for a whole answer; 0 for no bound but ``timeout``.

    Raises:
        InvalidRequest: the address or the CA file cannot be used.
    """

    def __init__(
        self,
        address: str,
        *,
        token: str = "",
        org: str = "",
        cacert: str = "",
        timeout: float = TIMEOUT,
        patience: float = 0.0,
        deadline: float = 0.0,
    ) -> None:
        self.address = address.rstrip("/")
        self._token = token
        self._org = org
        self._timeout = timeout
        self._patience = patience or timeout
        self._deadline = deadline
        self._scheme, self.host, self._port = _split(self.address)
        self._cacert = cacert or os.environ.get("KEYHOLE_CACERT", "")
        self._context = _context(self._cacert) if self._scheme == "https" else None
        self._connection: http.client.HTTPConnection | None = None
        self._relay: Relay | None = None

    def ask(self, operation: str, path: str, data: Mapping[str, Any]) -> Result:
        """Send one request. Raises ``Unreachable``, or what the server refuses with."""
        wire = build(operation, path, data, token=self._token, org=self._org, stated=context.headers(context.current()))
        connection = self._connected()
        watchdog = self._watchdog(connection)
        try:
            if connection.sock is not None:
                connection.sock.settimeout(self._patience if operation in READS else self._timeout)
            connection.request(wire.method, wire.target, body=wire.body, headers=wire.headers)
            response = connection.getresponse()
            body = response.read(_LIMIT + 1)
        except (OSError, http.client.HTTPException) as error:
            self._disconnect()
            raise unreachable(self.address, error) from None
        except BaseException:  # interrupted: what comes on this connection would be no answer to the next request
            self._disconnect()
            raise
        finally:
            if watchdog is not None:
                watchdog.cancel()
        if len(body) > _LIMIT or response.will_close:
            self._disconnect()
        if len(body) > _LIMIT:
            raise Unreachable(
                f"the answer of {self.address} is larger than {_LIMIT} bytes",
                "is it a Keyhole server? check KEYHOLE_ADDR",
            )
        headers = {name.lower(): value for name, value in response.getheaders()}
        return parse(response.status, headers, body, address=self.address)

    def another(self, token: str = "") -> HttpTransport:
        """The same server on a connection of its own, with a bound on whole answers; as the holder of ``token``."""
        return HttpTransport(
            self.address,
            token=token or self._token,
            org=self._org,
            cacert=self._cacert,
            timeout=min(self._timeout, PATIENCE),
            deadline=3 * PATIENCE,
        )

    def road(self, token: str = "") -> Road:
        """The way to this server's proxy, its CA, and the credential for it.

        A proxy that speaks TLS is reached through a port of loopback, until this transport is closed.
        """
        data = self.ask("read", "sys/keyhole", {}).data
        if not data.get("proxy"):
            raise Unreachable(f"the server at {self.address} has no proxy", "start it with --proxy-listen")
        road = Road.at(data["proxy"], data["ca"], token or self._token, reached_as=self.host)
        return road if road.scheme == "http" else replace(road, scheme="http", host="127.0.0.1", port=self._near(road))

    def _near(self, road: Road) -> int:
        """The port of loopback that leads to a proxy with TLS."""
        if self._relay is None:
            from keyhole.client.relay import Relay  # noqa: PLC0415  # brings asyncio, which few commands need

            try:
                self._relay = Relay(road.host, road.port, self._context or _context(self._cacert))
            except OSError as error:
                raise unreachable(f"the proxy at {road.host}:{road.port}", error) from None
        return self._relay.port

    def close(self) -> None:
        """Let the connection go. The transport can be used again."""
        self._disconnect()
        if self._relay is not None:
            self._relay.close()
            self._relay = None

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> http.client.HTTPConnection:
        """The kept connection, unless the server has closed it: a write is never sent twice.

        Raises ``NotConnected``.
        """
        sock = self._connection.sock if self._connection is not None else None
        if self._connection is not None and sock is not None and not select.select([sock], [], [], 0)[0]:
            return self._connection
        self._disconnect()
        if self._context is not None:
            self._connection = http.client.HTTPSConnection(
                self.host, self._port, timeout=self._patience, context=self._context
            )
        else:
            self._connection = http.client.HTTPConnection(self.host, self._port, timeout=self._patience)
        try:
            self._connection.connect()
        except (OSError, http.client.HTTPException) as error:
            self._disconnect()
            failed = unreachable(self.address, error)
            raise NotConnected(failed.reason, failed.hint) from None
        except BaseException:
            self._disconnect()
            raise
        return self._connection

    def _watchdog(self, connection: http.client.HTTPConnection) -> threading.Timer | None:
        """Cuts an answer off that drips for longer than it may take."""
        sock: socket.socket | None = connection.sock
        if not self._deadline or sock is None:
            return None

        def cut() -> None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(self._deadline, cut)
        timer.daemon = True
        timer.start()
        return timer


def unreachable(address: str, error: Exception) -> Unreachable:
    """The error for a server that could not be talked to, from what the connection raised."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Unreachable(
            f"the certificate of {address} is not trusted: {error.verify_message}",
            "name its CA: KEYHOLE_CACERT=FILE",
        )
    if isinstance(error, ssl.SSLError):
        return Unreachable(f"no TLS with {address}: {error.reason or 'the handshake failed'}", "check the address")
    if isinstance(error, TimeoutError):
        return Unreachable(f"{address} did not answer in time", "is the server running and reachable?")
    if isinstance(error, http.client.HTTPException):
        return Unreachable(f"{address} does not speak HTTP as Keyhole does", "check the address")
    detail = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
    return Unreachable(f"cannot reach {address}: {detail}", "is the server running? check KEYHOLE_ADDR")


def _split(address: str) -> tuple[str, str, int]:
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in _PORTS or not parts.hostname or parts.username or parts.path or parts.query:
        raise InvalidRequest("the server's address is not https://HOST[:PORT]", "for example https://keyhole.internal")
    if parts.scheme == "http" and not _is_loopback(parts.hostname) and os.environ.get("KEYHOLE_INSECURE_HTTP") != "1":
        raise InvalidRequest(
            f"{address} would carry your token in clear", "use https, or say so with KEYHOLE_INSECURE_HTTP=1"
        )
    return parts.scheme, parts.hostname, port or _PORTS[parts.scheme]


def _is_loopback(host: str) -> bool:
    if host in {"localhost", "127.0.0.1", "::1"}:
        return True
    from keyhole.config import is_loopback  # noqa: PLC0415  # slow to import, and the usual names are known

    return is_loopback(host)


def _context(cacert: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cacert:
        try:
            context.load_verify_locations(cacert)
        except (OSError, ssl.SSLError):
            raise InvalidRequest(f"the CA file {cacert} cannot be read", "check KEYHOLE_CACERT") from None
    return context

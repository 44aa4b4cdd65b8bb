"""Waits on this machine for the one request with which a browser comes back from somewhere (RFC 8252, section 7.3).

Everybody on this machine, and every page in a browser, can send something here. What is not for the address of the
listener by its number and port, or is not wanted, is answered with an error and forgotten.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from keyhole.core.errors import InvalidRequest, UpstreamTimeout

_HEAD = 16 * 1024
_PATIENCE = 2.0  # seconds for one browser to say what it wants
_PAGE = "<!doctype html><title>Keyhole</title><p>{}</p>"
_HEADERS = (
    "Content-Type: text/html; charset=utf-8\r\nCache-Control: no-store\r\nReferrer-Policy: no-referrer\r\n"
    "Content-Security-Policy: default-src 'none'\r\nConnection: close\r\n"
)


class Landing:
    """A listener on loopback.

    Args:
        port: 0 for a free one.
        path: that the browser is sent to.

    Raises:
        InvalidRequest: nobody can listen there.
    """

    def __init__(self, port: int = 0, path: str = "/callback") -> None:
        try:
            self._socket = socket.create_server(("127.0.0.1", port), backlog=16)
        except OSError as error:
            raise InvalidRequest(
                f"cannot listen on 127.0.0.1:{port}: {error.strerror}", "choose another port"
            ) from None
        self._path = path
        self._authority = f"127.0.0.1:{self._socket.getsockname()[1]}"

    @property
    def url(self) -> str:
        """Where the browser is to come to."""
        return f"http://{self._authority}{self._path}"

    def wait(self, seconds: float, wanted: Callable[[str], bool]) -> str:
        """The whole target of the first request that is wanted: path and query.

        Raises:
            UpstreamTimeout: none came in time.
        """
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                break
            with connection, contextlib.suppress(OSError):
                connection.settimeout(min(_PATIENCE, left))
                target = self._target(connection)
                if target.partition("?")[0] == self._path and wanted(target):
                    _say(connection, "200 OK", "Done. You can close this page and go back to the terminal.")
                    return target
                _say(connection, "404 Not Found", "There is nothing here.")
        raise UpstreamTimeout("the browser has not come back in time", "begin again")

    def _target(self, connection: socket.socket) -> str:
        """What a request is for; empty for one that is not meant for this listener."""
        head = b""
        while b"\r\n\r\n" not in head and len(head) <= _HEAD:
            piece = connection.recv(4096)
            if not piece:
                return ""
            head += piece
        lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
        hosts = [line.partition(":")[2].strip() for line in lines[1:] if line.lower().startswith("host:")]
        words = lines[0].split(" ")
        right = len(words) == 3 and words[0] == "GET" and hosts in ([self._authority], [self._other_name()])
        return words[1] if right and words[1].isascii() and words[1].isprintable() else ""

    def _other_name(self) -> str:
        """Some providers know the address of an application on this machine by name only."""
        return f"localhost:{self._authority.rpartition(':')[2]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()


def _say(connection: socket.socket, status: str, text: str) -> None:
    page = _PAGE.format(text).encode()
    connection.sendall(f"HTTP/1.1 {status}\r\n{_HEADERS}Content-Length: {len(page)}\r\n\r\n".encode() + page)

"""Connects stdin and stdout to a host through the proxy of the environment: what ``ssh`` calls a ``ProxyCommand``.

    python -I -m keyhole.faces.run.reach HOST PORT

Nothing but the standard library is loaded, because whoever logs in waits for it.
"""

from __future__ import annotations

import base64
import os
import socket
import sys
import threading
from contextlib import suppress
from urllib.parse import unquote, urlsplit

_PIECE = 1 << 16
_SECONDS = 30.0  # to the answer to CONNECT
_LONGEST_ANSWER = 1 << 16


def main(argv: list[str]) -> int:
    """The exit code: 0 when both sides have ended, 1 when there is no way, 2 for wrong arguments."""
    if len(argv) != 3:
        sys.stderr.write("usage: reach HOST PORT\n")
        return 2
    host, port = (f"[{argv[1]}]" if ":" in argv[1] else argv[1]), argv[2]
    try:
        sock = _connected(f"{host}:{port}", os.environ.get("HTTPS_PROXY", ""))
    except (OSError, ValueError) as error:
        sys.stderr.write(f"keyhole: no way to {host}:{port}: {error}\n")
        return 1
    upward = threading.Thread(target=_pump_up, args=(sock,), daemon=True)
    upward.start()
    with suppress(OSError):
        while data := sock.recv(_PIECE):
            _write_all(data)
    return 0


def _connected(target: str, proxy: str) -> socket.socket:
    parts = urlsplit(proxy)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError("HTTPS_PROXY names no proxy of plain HTTP")
    pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}".encode()
    sock = socket.create_connection((parts.hostname, parts.port or 80), _SECONDS)
    head = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n".encode()
    sock.sendall(head + b"Proxy-Authorization: Basic " + base64.b64encode(pair) + b"\r\n\r\n")
    answer = b""
    while b"\r\n\r\n" not in answer and len(answer) < _LONGEST_ANSWER:
        piece = sock.recv(1)  # what follows is the host's
        if not piece:
            break
        answer += piece
    status = answer.split(b" ", 2)[1:2]
    if status != [b"200"]:
        raise ValueError(_reason(answer) or "the proxy did not answer")
    sock.settimeout(None)
    return sock


def _reason(answer: bytes) -> str:
    for line in answer.split(b"\r\n"):
        name, _, value = line.partition(b": ")
        if name.lower() == b"x-keyhole-error":
            return value.decode("ascii", "replace")
    return answer.partition(b"\r\n")[0].decode("ascii", "replace")


def _pump_up(sock: socket.socket) -> None:
    with suppress(OSError):
        while data := os.read(0, _PIECE):
            sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)


def _write_all(data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


if __name__ == "__main__":
    sys.exit(main(sys.argv))

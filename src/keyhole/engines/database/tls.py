"""TLS to databases, by CAs and client certificates that a connection was given as text."""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keyhole.core.errors import InvalidRequest
from keyhole.engines.database.plugins import Login
from keyhole.net.tls import client_context, load_chain

_SAID = [
    (re.compile(pattern, re.IGNORECASE), words)
    for pattern, words in (
        (r"certificate[ _]verify[ _]failed|does not match host name", "the database does not prove who it is"),
        (
            r"alert[ _](certificate[ _]required|unknown[ _]ca|bad[ _]certificate|handshake[ _]failure)",
            "the database wants a certificate of ours, or another one",
        ),
        (r"does not support SSL", "the database does not speak TLS"),
    )
]
_BLOCK = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----\n?", re.DOTALL)


def context_of(details: Mapping[str, Any], login: Login, *, verify: bool = True) -> ssl.SSLContext:
    """What a driver wraps its connection in.

    Args:
        details: of the connection; ``tls_ca`` is trusted instead of the system's CAs.
        login: its ``chain`` is shown to a server that asks.
        verify: the server has to prove itself.

    Raises:
        InvalidRequest: one of the texts is no PEM, or certificate and key do not belong together.
    """
    context = client_context(only=details.get("tls_ca", ""))
    if login.chain:
        certificates, key = split_chain(login.chain)
        load_chain(context, certificates.encode(), key.encode())
    if not verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def split_chain(chain: str) -> tuple[str, str]:
    """The certificates of a PEM text, and the key."""
    blocks = list(_BLOCK.finditer(chain))
    certificates = "".join(block[0].rstrip() + "\n" for block in blocks if block[1] == "CERTIFICATE")
    return certificates, "".join(block[0] for block in blocks if block[1] != "CERTIFICATE")


def said_of_tls(error: Exception) -> str:
    """What a driver's error says of TLS, in words of ours that name no file and no address; empty for nothing."""
    text = str(error)
    return next((words for pattern, words in _SAID if pattern.search(text)), "")


class Unnamed:
    """Files that only this process sees and no disk has, for a driver that takes paths; open until ``close``."""

    def __init__(self) -> None:
        self._open: list[int] = []

    def path(self, text: str) -> str:
        """A path to this text. Raises ``InvalidRequest`` where the system has no such files."""
        if not hasattr(os, "memfd_create") or not Path("/proc/self/fd").is_dir():
            raise InvalidRequest(
                "this system has no way to hand the driver certificates without a file",
                "run the server on Linux, or leave tls_ca and the client certificate out",
            )
        fd = os.memfd_create("tls", os.MFD_CLOEXEC)
        self._open.append(fd)
        os.fchmod(fd, 0o600)
        os.write(fd, text.encode())
        return f"/proc/self/fd/{fd}"

    def close(self) -> None:
        """Let them go."""
        while self._open:
            os.close(self._open.pop())

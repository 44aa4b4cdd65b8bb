"""The messages of an SSH agent (draft-ietf-sshm-ssh-agent, OpenSSH's PROTOCOL.agent and PROTOCOL). Pure.

A message is a length of four bytes, a type of one, and its content.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

LONGEST = 256 * 1024  # as OpenSSH's own agent
FAILURE, SUCCESS = 5, 6
LIST, KEYS = 11, 12
SIGN, SIGNATURE = 13, 14
EXTENSION = 27
BIND = b"session-bind@openssh.com"
_USERAUTH_REQUEST = 50  # RFC 4252 section 6
_SERVICE = b"ssh-connection"
_METHODS = (b"publickey", b"publickey-hostbound-v00@openssh.com")


class WrongMessage(ValueError):
    """The bytes are not what they should be."""


class Bind(NamedTuple):
    """What a client says of the connection that it logs in over.

    Attributes:
        host_key: of the host.
        session: identifier of the connection.
        signature: of the host over it.
        forwarding: the agent is used by others over this connection.
    """

    host_key: bytes
    session: bytes
    signature: bytes
    forwarding: bool


class Login(NamedTuple):
    """What is signed in a login (RFC 4252 section 7).

    Attributes:
        session: identifier of the connection.
        user: at the host.
        algorithm: of the signature.
        key: public, or its certificate.
        host_key: where the client binds the login to it; empty where it does not.
    """

    session: bytes
    user: str
    algorithm: str
    key: bytes
    host_key: bytes = b""


def take(buffer: bytes) -> tuple[int, bytes, bytes] | None:
    """Type, content, and what follows; ``None`` while the message is not complete. Raises ``WrongMessage``."""
    if len(buffer) < 4:
        return None
    size: int = struct.unpack_from(">I", buffer)[0]
    if not 1 <= size <= LONGEST:
        raise WrongMessage
    if len(buffer) < 4 + size:
        return None
    return buffer[4], buffer[5 : 4 + size], buffer[4 + size :]


def message(kind: int, content: bytes = b"") -> bytes:
    """One message."""
    return struct.pack(">IB", 1 + len(content), kind) + content


def keys(found: Sequence[tuple[bytes, str]]) -> bytes:
    """The answer to ``LIST``: public keys with comments."""
    return message(
        KEYS, struct.pack(">I", len(found)) + b"".join(_put(key) + _put(text.encode()) for key, text in found)
    )


def signature(blob: bytes) -> bytes:
    """The answer to ``SIGN``."""
    return message(SIGNATURE, _put(blob))


def read_bind(content: bytes) -> Bind | None:
    """What ``EXTENSION`` says; ``None`` for another one. Raises ``WrongMessage``."""
    reader = _Reader(content)
    if reader.text() != BIND:
        return None
    found = Bind(reader.text(), reader.text(), reader.text(), reader.flag())
    reader.finish()
    return found


def read_sign(content: bytes) -> tuple[bytes, bytes]:
    """Key and data of ``SIGN``; its flags say no more than the data. Raises ``WrongMessage``."""
    reader = _Reader(content)
    key, data = reader.text(), reader.text()
    reader.number()
    reader.finish()
    return key, data


def read_login(data: bytes) -> Login:
    """The login that is signed. Raises ``WrongMessage`` where it is something else, such as a file."""
    reader = _Reader(data)
    session = reader.text()
    if reader.byte() != _USERAUTH_REQUEST:
        raise WrongMessage
    user, service, method = reader.text(), reader.text(), reader.text()
    if service != _SERVICE or method not in _METHODS or not reader.flag():
        raise WrongMessage
    algorithm, key = reader.text(), reader.text()
    host_key = reader.text() if method == _METHODS[1] else b""
    reader.finish()
    try:
        return Login(session, user.decode("utf-8"), algorithm.decode("ascii"), key, host_key)
    except UnicodeDecodeError:
        raise WrongMessage from None


def _put(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


class _Reader:
    """Takes what RFC 4251 section 5 defines."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def _take(self, size: int) -> bytes:
        if self._at + size > len(self._data):
            raise WrongMessage
        self._at += size
        return self._data[self._at - size : self._at]

    def byte(self) -> int:
        return self._take(1)[0]

    def flag(self) -> bool:
        return self.byte() != 0

    def number(self) -> int:
        return int.from_bytes(self._take(4), "big")

    def text(self) -> bytes:
        return self._take(self.number())

    def finish(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._data):
            raise WrongMessage

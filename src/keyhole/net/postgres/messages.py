"""Messages of PostgreSQL's protocol, as bytes.

A message is a letter, a length of four bytes that counts itself, and a payload. What a client sends first has no letter
and begins with a code in place of it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from keyhole.core.errors import BadRequestFraming

VERSION = 0x0003_0000
SSL_REQUEST = 80877103
GSSENC_REQUEST = 80877104
CANCEL_REQUEST = 80877102
MAX_STARTUP = 10_000
"""Bytes of what a client sends first (MAX_STARTUP_PACKET_LENGTH of PostgreSQL's pqcomm.h)."""
MAX_MESSAGE = 0x3FFF_FFFF
"""Bytes of any later message (MaxAllocSize of PostgreSQL's memutils.h). None is held."""
MAX_PASSWORD = 10_000  # bytes of an answer to a question for a password

AUTHENTICATION_OK = b"R\0\0\0\x08\0\0\0\0"
CLEARTEXT_PASSWORD = b"R\0\0\0\x08\0\0\0\x03"
TERMINATE = b"X\0\0\0\x04"
_PARAMETERS = 64
_INT = struct.Struct(">i")


class Startup(NamedTuple):
    """What a client asks for first.

    Attributes:
        code: the version of the protocol, or one of the requests above.
        parameters: names and values of a startup message, in order; those of ``_pq_.`` are options of the protocol.
        key: of a cancel request: process and key, as they stand on the wire.
    """

    code: int
    parameters: tuple[tuple[bytes, bytes], ...] = ()
    key: bytes = b""

    @property
    def options(self) -> list[bytes]:
        """Names of the options of the protocol that are asked for."""
        return [name for name, _ in self.parameters if name.startswith(b"_pq_.")]


def message(kind: bytes, payload: bytes) -> bytes:
    """A message with its letter and length."""
    return kind + _INT.pack(len(payload) + 4) + payload


def startup(parameters: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A startup message of version 3.0."""
    body = b"".join(name + b"\0" + value + b"\0" for name, value in parameters) + b"\0"
    return struct.pack(">ii", len(body) + 8, VERSION) + body


def request(code: int, rest: bytes = b"") -> bytes:
    """A request that comes in place of a startup message."""
    return struct.pack(">ii", len(rest) + 8, code) + rest


def startup_length(head: bytes) -> int:
    """The length in all of what a client sends first, from its first four bytes. Raises ``BadRequestFraming``."""
    length = int(_INT.unpack(head)[0])
    if not 8 <= length <= MAX_STARTUP:
        raise BadRequestFraming("what came is no startup message of PostgreSQL", "connect with a client of PostgreSQL")
    return length


def read_startup(data: bytes) -> Startup:
    """Read what a client sends first, complete and with its length.

    Raises:
        BadRequestFraming: it is not one, or of another protocol.
    """
    code = int(_INT.unpack(data[4:8])[0])
    rest = data[8:]
    if code in {SSL_REQUEST, GSSENC_REQUEST}:
        if rest:
            raise BadRequestFraming("the request for encryption has something else behind it")
        return Startup(code)
    if code == CANCEL_REQUEST:
        if not 8 <= len(rest) <= 260:
            raise BadRequestFraming("the cancel request has no key")
        return Startup(code, key=rest)
    if code >> 16 != VERSION >> 16:
        raise BadRequestFraming("the client speaks another protocol than PostgreSQL's third", "use a newer client")
    texts = rest.split(b"\0")
    # Pairs of texts that each end with a NUL, and one NUL at the end.
    if len(texts) < 2 or texts[-2:] != [b"", b""] or len(texts) % 2 or b"" in texts[:-2:2]:
        raise BadRequestFraming("the startup message is malformed")
    names = texts[:-2:2]
    if len(names) > _PARAMETERS or len(set(names)) < len(names):
        raise BadRequestFraming("the startup message has too many parameters, or one twice")
    return Startup(code, tuple(zip(names, texts[1:-2:2], strict=True)))


def negotiate(options: Iterable[bytes]) -> bytes:
    """NegotiateProtocolVersion: the server speaks 3.0 and none of these options."""
    names = list(options)
    body = struct.pack(">ii", VERSION & 0xFFFF, len(names)) + b"".join(name + b"\0" for name in names)
    return message(b"v", body)


def error(state: str, reason: str, *, hint: str = "", detail: str = "", severity: str = "FATAL") -> bytes:
    """An ErrorResponse.

    Args:
        state: the SQLSTATE code, five characters.
        reason: what happened.
        hint: the next step.
        detail: more.
        severity: ``FATAL`` ends the session.
    """
    fields = (("S", severity), ("V", severity), ("C", state), ("M", reason), ("D", detail), ("H", hint))
    body = b"".join(name.encode() + text.replace("\0", " ").encode() + b"\0" for name, text in fields if text)
    return message(b"E", body + b"\0")


def error_state(payload: bytes) -> str:
    """The SQLSTATE of an ErrorResponse; empty when there is none that looks like one."""
    for part in payload.split(b"\0")[:32]:
        if part[:1] == b"C" and len(part) == 6 and part[1:].isalnum():
            return part[1:].decode("ascii")
    return ""

"""Packets of MySQL's protocol, as bytes: three bytes of length, little-endian, one of sequence, and a payload."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from keyhole.core.errors import BadRequestFraming, UpstreamUnreachable

HEAD = 4  # bytes
FULL = 0xFFFFFF
"""Length of a packet that another one goes on with."""
MAX_LOGIN = 64 * 1024
"""Bytes of one packet before a session begins."""
VERSION = b"5.7.0-keyhole"
"""What clients are told before the server is known: old enough that they presume nothing; it says its own later."""
NATIVE, CACHING, CLEAR = b"mysql_native_password", b"caching_sha2_password", b"mysql_clear_password"
UTF8MB4 = 45  # utf8mb4_general_ci, which every server has
AUTOCOMMIT = 0x0002

# Capability flags ("Capabilities Flags" in the documentation).
LONG_PASSWORD = 1
FOUND_ROWS = 1 << 1
LONG_FLAG = 1 << 2
CONNECT_WITH_DB = 1 << 3
LOCAL_FILES = 1 << 7
IGNORE_SPACE = 1 << 8
PROTOCOL_41 = 1 << 9
INTERACTIVE = 1 << 10
SSL = 1 << 11
TRANSACTIONS = 1 << 13
SECURE_CONNECTION = 1 << 15
MULTI_STATEMENTS = 1 << 16
MULTI_RESULTS = 1 << 17
PS_MULTI_RESULTS = 1 << 18
PLUGIN_AUTH = 1 << 19
CONNECT_ATTRS = 1 << 20
PLUGIN_AUTH_LENENC = 1 << 21

PASSED = (
    FOUND_ROWS | LONG_FLAG | LOCAL_FILES | IGNORE_SPACE | INTERACTIVE | TRANSACTIONS
    | MULTI_STATEMENTS | MULTI_RESULTS | PS_MULTI_RESULTS | CONNECT_ATTRS
)  # fmt: skip
"""What a client may choose. All of it every server has, and what else would change the form of answers is not here, so
that what is said after the login can be passed on as it is."""
OWN = LONG_PASSWORD | PROTOCOL_41 | SECURE_CONNECTION | PLUGIN_AUTH | PLUGIN_AUTH_LENENC
"""What both sides of us speak. With ``LONG_PASSWORD`` MariaDB keeps its extensions to itself."""

_PROTOCOL = 10
_NONCE = 20


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a server says first.

    Attributes:
        thread: id of the session, by which it can be killed.
        capabilities: of the server.
        nonce: 20 bytes for proofs of a password.
        plugin: how it would ask for one.
    """

    thread: int
    capabilities: int
    nonce: bytes = field(repr=False)
    plugin: bytes = NATIVE


@dataclass(frozen=True, slots=True)
class Response:
    """What a client answers.

    Attributes:
        capabilities: that it chose.
        charset: id of its character set.
        user: its name.
        answer: to the server's question for a password.
        database: to begin with; empty for none.
        plugin: how it answered; empty where it does not say.
        attributes: what it says of itself, as it stands on the wire without the length of all.
    """

    capabilities: int
    charset: int
    user: bytes
    answer: bytes = field(default=b"", repr=False)
    database: bytes = b""
    plugin: bytes = b""
    attributes: bytes = field(default=b"", repr=False)


def packet(sequence: int, payload: bytes) -> bytes:
    """A packet, shorter than a full one."""
    return len(payload).to_bytes(3, "little") + bytes((sequence & 0xFF,)) + payload


def greeting(thread: int, nonce: bytes, *, tls: bool) -> bytes:
    """The payload of a server's greeting (HandshakeV10)."""
    capabilities = PASSED | OWN | CONNECT_WITH_DB | (SSL if tls else 0)
    low, high = capabilities & 0xFFFF, capabilities >> 16
    return b"".join(
        (
            struct.pack("<B", _PROTOCOL) + VERSION + b"\0",
            struct.pack("<I8sxHBHHB10x", thread, nonce[:8], low, UTF8MB4, AUTOCOMMIT, high, _NONCE + 1),
            nonce[8:] + b"\0" + NATIVE + b"\0",
        )
    )


def read_greeting(payload: bytes) -> Greeting:
    """Read a server's greeting. Raises ``UpstreamUnreachable`` for anything else."""
    end = payload.find(b"\0", 1)
    rest = payload[end + 1 :]
    if payload[:1] != bytes((_PROTOCOL,)) or end < 0 or len(rest) < 31 + 13:
        raise UpstreamUnreachable("what answers is no server of MySQL or MariaDB", "check host and port of the service")
    thread, first, low, _, _, high, _ = struct.unpack("<I8sxHBHHB", rest[:21])
    second, _, plugin = rest[31 : 31 + 12], rest[43:44], rest[44:].split(b"\0")[0]
    capabilities = low | high << 16
    if OWN & ~LONG_PASSWORD & ~capabilities:  # MariaDB leaves this one bit out
        raise UpstreamUnreachable("the server is too old to be logged in to safely", "MySQL 5.7 or MariaDB 10 would do")
    return Greeting(thread, capabilities, first + second, plugin)


def ssl_request(capabilities: int, charset: int) -> bytes:
    """The payload with which a client begins TLS."""
    return struct.pack("<IIB23x", capabilities, FULL, charset)


def response(said: Response) -> bytes:
    """The payload of a client's answer (HandshakeResponse41)."""
    parts = [ssl_request(said.capabilities, said.charset), said.user, b"\0", lenenc(said.answer)]
    if said.capabilities & CONNECT_WITH_DB:
        parts += [said.database, b"\0"]
    parts += [said.plugin, b"\0"]
    if said.capabilities & CONNECT_ATTRS:
        parts.append(lenenc(said.attributes))
    return b"".join(parts)


def lenenc(data: bytes) -> bytes:
    """A text with its length, of at most 64 KiB."""
    size = len(data)
    return (bytes((size,)) if size < 0xFB else b"\xfc" + size.to_bytes(2, "little")) + data


def asks_for_tls(payload: bytes) -> bool:
    """Whether a client's first packet asks for TLS and says nothing else."""
    return len(payload) == 32 and bool(int.from_bytes(payload[:4], "little") & SSL)


def read_response(payload: bytes) -> Response:
    """Read a client's answer to a greeting. Raises ``BadRequestFraming``."""
    try:
        return _read_response(payload)
    except (struct.error, ValueError, IndexError):
        raise BadRequestFraming("the answer to the greeting is malformed", "connect with a client of MySQL") from None


def _read_response(payload: bytes) -> Response:
    capabilities, _, charset = struct.unpack("<IIB23x", payload[:32])
    if OWN & ~LONG_PASSWORD & ~PLUGIN_AUTH_LENENC & ~capabilities:
        raise BadRequestFraming("the client is too old", "one that knows the protocol 4.1 and plugins would do")
    user, rest = _until_nul(payload[32:])
    if capabilities & PLUGIN_AUTH_LENENC:
        answer, rest = _lenenc(rest)
    else:
        answer, rest = rest[1 : 1 + rest[0]], rest[1 + rest[0] :]
    database = plugin = attributes = b""
    if capabilities & CONNECT_WITH_DB and rest:
        database, rest = _until_nul(rest)
    if rest:
        plugin, rest = _until_nul(rest)
    if capabilities & CONNECT_ATTRS and rest:
        attributes, rest = _lenenc(rest)
    return Response(capabilities, charset, user, answer, database, plugin, attributes)


def _until_nul(data: bytes) -> tuple[bytes, bytes]:
    end = data.index(b"\0")
    return data[:end], data[end + 1 :]


def _lenenc(data: bytes) -> tuple[bytes, bytes]:
    size, at = data[0], 1
    if size == 0xFC:
        size, at = int.from_bytes(data[1:3], "little"), 3
    elif size > 0xFA:
        raise ValueError
    if at + size > len(data):
        raise ValueError
    return data[at : at + size], data[at + size :]


def switch(plugin: bytes, nonce: bytes) -> bytes:
    """The payload that asks a client to answer in another way."""
    return b"\xfe" + plugin + b"\0" + nonce + b"\0"


def error(code: int, state: str, reason: str) -> bytes:
    """The payload of an ERR packet."""
    return b"\xff" + code.to_bytes(2, "little") + b"#" + state.encode() + reason.encode()[:4096]


def error_state(payload: bytes) -> str:
    """The SQLSTATE of an ERR packet; empty where it has none that looks like one."""
    state = payload[4:9]
    return state.decode("ascii") if payload[3:4] == b"#" and len(state) == 5 and state.isalnum() else ""

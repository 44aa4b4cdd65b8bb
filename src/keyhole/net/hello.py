"""What a client says first: the server name in a TLS ClientHello (RFC 8446 section 4.1.2, RFC 6066 section 3)."""

from __future__ import annotations

_HANDSHAKE = 0x16
_CLIENT_HELLO = 1
_SERVER_NAME = 0
_HOST_NAME = 0
_RECORD_HEAD = 5
_LONGEST = 64 * 1024
_OTHER = "this is not how TLS begins"
_LONG = "the first message of TLS is too long"
_MALFORMED = "the first message of TLS is malformed"
_SEVERAL = "it names more than one server"


class NotAHello(Exception):
    """The bytes are no ClientHello, or one that could be read in two ways; the text says why."""


class HelloReader:
    """Reads a ClientHello as its bytes come, and not all of them again for each that comes."""

    __slots__ = ("_least",)

    def __init__(self) -> None:
        self._least = 0  # bytes without which the message cannot be complete

    def server_name(self, data: bytes) -> str | None:
        """As the function of that name, of all that the client has sent so far."""
        if len(data) < self._least:
            return None
        hello = _message(data)
        if isinstance(hello, int):
            self._least = len(data) + hello
            return None
        return _name(hello)


def server_name(data: bytes) -> str | None:
    """The name in a ClientHello; empty when it names none.

    Args:
        data: all that the client has sent so far.

    Returns:
        ``None`` while the message is not complete.

    Raises:
        NotAHello: it is none, is longer than 64 KiB, or names its server twice or not in ASCII.
    """
    return HelloReader().server_name(data)


def _name(hello: bytes) -> str:
    reader = _Reader(hello)
    reader.take(2 + 32)  # version, random
    reader.vector(1)  # session id
    reader.vector(2)  # cipher suites
    reader.vector(1)  # compression methods
    if reader.empty:
        return ""
    extensions = _Reader(reader.vector(2))
    if not reader.empty:
        raise NotAHello(_MALFORMED)
    found: list[str] = []
    while not extensions.empty:
        kind, content = extensions.number(2), extensions.vector(2)
        if kind == _SERVER_NAME:
            found.append(_host(content))
    if len(found) > 1:
        raise NotAHello(_SEVERAL)
    return found[0] if found else ""


def _host(content: bytes) -> str:
    outer = _Reader(content)
    names = _Reader(outer.vector(2))
    if not outer.empty:
        raise NotAHello(_MALFORMED)
    kind, name = names.number(1), names.vector(2)
    if not names.empty:  # every client sends one name of one kind
        raise NotAHello(_SEVERAL)
    if kind != _HOST_NAME or not name or not name.isascii():  # RFC 6066: whoever reads it later may read another one
        raise NotAHello("what it asks for is no name of a server")
    return name.decode("ascii")


def _message(data: bytes) -> bytes | int:
    """The ClientHello's content, put together from records (RFC 8446 section 5.1), or how many bytes it lacks."""
    message = bytearray()
    position, lacking = 0, 4
    while len(data) - position >= _RECORD_HEAD:
        head = data[position : position + _RECORD_HEAD]
        size = int.from_bytes(head[3:], "big")
        if head[0] != _HANDSHAKE or head[1] != 3 or not 0 < size <= 1 << 14:
            raise NotAHello(_OTHER)
        message += data[position + _RECORD_HEAD : position + _RECORD_HEAD + size]
        position += _RECORD_HEAD + size
        if message and message[0] != _CLIENT_HELLO:
            raise NotAHello(_OTHER)
        lacking = 4 - len(message)
        if lacking <= 0:
            length = int.from_bytes(message[1:4], "big")
            if length > _LONGEST:
                raise NotAHello(_LONG)
            lacking += length
            if lacking <= 0:
                return bytes(message[4 : 4 + length])
    if data[:1] not in {b"", bytes((_HANDSHAKE,))}:
        raise NotAHello(_OTHER)
    if len(data) > _LONGEST + 4 + _RECORD_HEAD * 64:
        raise NotAHello(_LONG)
    return lacking


class _Reader:
    """Takes vectors (RFC 8446 section 3.4) from bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def empty(self) -> bool:
        return self._at == len(self._data)

    def take(self, size: int) -> bytes:
        if self._at + size > len(self._data):
            raise NotAHello(_MALFORMED)
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, head: int) -> bytes:
        return self.take(self.number(head))

"""The name that a client asks for, read from the first bytes that it sends: pure, bounded, strict.

A name counts only if nobody could read another one there: one ``server_name`` extension with one host name (RFC 6066
section 3), or one ``Host`` field. An encrypted ClientHello is not opened: the name in clear is what counts, and a
client that meant another one inside finds that the server could not read it, and ends (RFC 9849 section 6.1.6).
"""

from __future__ import annotations

from keyhole.core.errors import KeyholeError
from keyhole.core.host import parse_authority, parse_host
from keyhole.net.http1.grammar import parse_request_head
from keyhole.net.http1.limits import ListenerLimits

HANDSHAKE = 0x16  # the type of the first record of TLS (RFC 8446 section 5.1)
LARGEST = 1 << 16  # bytes of records that are waited for
_CLIENT_HELLO = 1
_RECORD = 1 << 14  # bytes of a record at most
_SERVER_NAME, _HOST_NAME = 0, 0
_LIMITS = ListenerLimits()


class Nameless(Exception):
    """There is no name that could be served; the text says why.

    Attributes:
        of_tls: the client speaks TLS.
    """

    of_tls = True


class NamelessRequest(Nameless):
    """The same, of a client that does not speak TLS."""

    of_tls = False


class _Bytes:
    """A reader of lengths and what they count. Raises ``Nameless`` at the end of the bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def number(self, size: int) -> int:
        """The next number, of so many bytes."""
        return int.from_bytes(self.take(size))

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if self.at + count > len(self.data):
            raise Nameless("the first message of TLS is malformed")
        self.at += count
        return self.data[self.at - count : self.at]

    def part(self, size: int) -> _Bytes:
        """What follows a length of so many bytes."""
        return _Bytes(self.take(self.number(size)))

    @property
    def done(self) -> bool:
        """Whether all was read."""
        return self.at == len(self.data)


class HelloReader:
    """Reads the first handshake message of TLS as its bytes come, and not all of them again for each that comes."""

    def __init__(self) -> None:
        self._least = 0  # bytes without which the message cannot be complete

    def body(self, data: bytes) -> bytes | None:
        """Its body, of all that was sent so far; ``None`` while it is not there in full.

        Raises:
            Nameless: what begins there is no ClientHello.
        """
        if len(data) < self._least:
            return None
        message = bytearray()
        at, lacking = 0, 4
        while len(data) - at >= 5:
            length = int.from_bytes(data[at + 3 : at + 5])
            if data[at] != HANDSHAKE or data[at + 1] != 3 or not 0 < length <= _RECORD:
                raise Nameless("this is not how TLS begins")
            message += data[at + 5 : at + 5 + length]
            at += 5 + length
            if message and message[0] != _CLIENT_HELLO:
                raise Nameless("this is not how TLS begins")
            wanted = int.from_bytes(message[1:4]) if len(message) >= 4 else 0
            lacking = 4 + wanted - len(message)
            if lacking <= 0 and len(message) >= 4:
                return bytes(message[4 : 4 + wanted])
        self._least = len(data) + lacking
        return None


def client_hello(data: bytes) -> bytes | None:
    """As ``HelloReader.body``, of bytes that are there at once."""
    return HelloReader().body(data)


def server_name(hello: bytes) -> str:
    """The host that a ClientHello asks for, in normal form.

    Raises:
        Nameless: there is none, or more than one, or it is no name of a host.
    """
    message = _Bytes(hello)
    message.take(2 + 32)
    for size in (1, 2, 1):  # session id, cipher suites, compression methods
        message.part(size)
    if message.done:
        raise Nameless("it names no server")
    extensions = message.part(2)
    names: list[bytes] = []
    while not extensions.done:
        kind = extensions.number(2)
        content = extensions.part(2)
        if kind == _SERVER_NAME:
            listed = content.part(2)
            while not listed.done:
                of = listed.number(1)
                name = listed.part(2).data
                names.append(name if of == _HOST_NAME else b"")
    if len(names) != 1:
        raise Nameless("it names no server" if not names else "it names more than one server")
    return _host(names[0])


def host_field(raw: bytes) -> str:
    """The host that the head of a plain request names, in normal form.

    Raises:
        NamelessRequest: there is none, or the head is malformed.
    """
    try:
        head = parse_request_head(raw, _LIMITS.wire)
        return _named(parse_authority(head.fields.get(b"host", b""), default_port=80).host)
    except (KeyholeError, Nameless):
        raise NamelessRequest("the request names no host") from None


def _host(name: bytes) -> str:
    try:
        if not name.isascii():  # RFC 6066: whoever reads it later may read another one
            raise Nameless("what it asks for is no name of a server")
        return _named(parse_host(name))
    except KeyholeError:
        raise Nameless("what it asks for is no name of a server") from None


def _named(host: str) -> str:
    if ":" in host or host.replace(".", "").isdigit():
        raise Nameless("it asks for an address, not for a name")
    return host

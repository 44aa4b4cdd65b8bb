"""The name that a client asks for, read from the first bytes that it sends: pure, bounded, strict.

A name counts only if nobody could read another one there: that of a ClientHello, or one ``Host`` field. An encrypted
ClientHello is not opened: the name in clear is what counts, and a client that meant another one inside finds that the
server could not read it, and ends (RFC 9849 section 6.1.6).
"""

from __future__ import annotations

from keyhole.core.errors import KeyholeError
from keyhole.core.host import parse_authority, parse_host
from keyhole.net.hello import HelloReader, NotAHello
from keyhole.net.http1.grammar import parse_request_head
from keyhole.net.http1.limits import ListenerLimits

HANDSHAKE = 0x16  # the type of the first record of TLS (RFC 8446 section 5.1)
LARGEST = 1 << 16  # bytes of records that are waited for
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


def server_name(reader: HelloReader, data: bytes) -> str | None:
    """The host that a ClientHello asks for, in normal form; ``None`` while it is not there in full.

    Args:
        reader: of this client.
        data: all that it has sent so far.

    Raises:
        Nameless: it is none, or names no host, or more than one.
    """
    try:
        name = reader.server_name(data)
    except NotAHello as error:
        raise Nameless(str(error)) from None
    if name is None:
        return None
    if not name:
        raise Nameless("it names no server")
    try:
        return _named(parse_host(name))
    except KeyholeError:
        raise Nameless("what it asks for is no name of a server") from None


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


def _named(host: str) -> str:
    if ":" in host or host.replace(".", "").isdigit():
        raise Nameless("it asks for an address, not for a name")
    return host

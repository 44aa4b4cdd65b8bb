"""The server's side of TLS in a tunnel, where a handshake must ask for the host that the tunnel leads to."""

from __future__ import annotations

import ssl
from typing import cast

from keyhole.core.errors import KeyholeError
from keyhole.core.host import Authority, parse_host
from keyhole.net.http1.tls import TlsChannel


class _Named(ssl.SSLObject):
    """The side of a connection as the context's callback receives it.

    Attributes:
        host: that the handshake must ask for.
        refused: it asked for another.
    """

    host: str  # without it the callback fails, and so does the handshake
    refused = False


def channel_for(context: ssl.SSLContext, host: str, *, ticket: bool) -> TlsChannel:
    """The server's side of TLS in a tunnel.

    Args:
        context: for tunnels to this host alone.
        host: that the handshake must ask for.
        ticket: give the client one to resume its session with, where it gets TLS 1.3 (RFC 8446 section 4.6.1).
    """
    context.num_tickets = int(ticket)  # a connection copies what its context says when it is made
    if context.sni_callback is not _check_server_name:
        context.sni_callback = _check_server_name
        context.sslobject_class = _Named
    channel = TlsChannel(context, server_side=True)
    cast("_Named", channel.handle).host = host
    return channel


def was_for_another(channel: TlsChannel) -> bool:
    """Whether its handshake was refused because it asked for another host."""
    return cast("_Named", channel.handle).refused


def _check_server_name(handle: ssl.SSLObject, name: str | None, _context: ssl.SSLContext) -> int | None:
    """Refuse a handshake whose server name is not the host of its tunnel.

    An address has no name there (RFC 6066 section 3), and some clients send none without a dot in it, such as Java's.
    """
    expected = cast("_Named", handle)
    host = expected.host
    if name == host:
        return None
    try:
        unnamed = Authority(host, 443).is_ip or "." not in host
        expected.refused = not (unnamed if name is None else parse_host(name) == host)
    except KeyholeError:
        expected.refused = True
    return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME if expected.refused else None

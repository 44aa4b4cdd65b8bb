"""The greeting, login and request of a SOCKS 5 client (RFC 1928, RFC 1929), and what it is told.

A client shows its token as user name or password, as in HTTP. It is judged with the request, by the same rules as a
CONNECT; what follows is the same tunnel.
"""

from __future__ import annotations

from typing import NamedTuple

from keyhole.core.errors import InvalidRequest, KeyholeError, PolicyDenied, Unauthenticated, UpstreamUnreachable
from keyhole.core.host import Authority, parse_host
from keyhole.faces.proxy.gate import pick_token
from keyhole.net.http1.wire import Wire

VERSION = b"\x05"
_LOGIN_VERSION = 1
_BY_PASSWORD, _NONE_FITS = 2, 0xFF
_CONNECT = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4
_FAILED, _FORBIDDEN, _UNREACHABLE, _NO_COMMAND, _NO_ADDRESS = 1, 2, 4, 7, 8
_NOWHERE = bytes((0, _IPV4)) + bytes(6)
SUCCEEDED = VERSION + b"\0" + _NOWHERE


class Asked(NamedTuple):
    """Where a client wants a tunnel to, and what it showed."""

    authority: Authority
    credential: bytes


class Unspoken(InvalidRequest):
    """What a client said is not understood; ``answer`` is what it is told."""

    def __init__(self, reason: str, hint: str, answer: bytes) -> None:
        super().__init__(reason, hint)
        self.answer = answer


async def greet(wire: Wire) -> Asked | None:
    """Hear a client out to its request.

    Returns:
        ``None`` when it went away first.

    Raises:
        Unspoken: it wants something else than a tunnel with a token.
        TimeoutError: ``wire.read_deadline`` has passed.
    """
    try:
        _, number = await _take(wire, 2)
        if _BY_PASSWORD not in await _take(wire, number):
            hint = "give the token as user name or password: socks5h://agent:TOKEN@HOST:PORT"
            raise Unspoken("the client of SOCKS shows no token", hint, VERSION + bytes((_NONE_FITS,)))
        wire.write(VERSION + bytes((_BY_PASSWORD,)))
        wire.flush()
        version, size = await _take(wire, 2)
        user = await _take(wire, size)
        password = await _take(wire, (await _take(wire, 1))[0])
        if version != _LOGIN_VERSION:
            raise Unspoken("the login of SOCKS is of an unknown version", "RFC 1929", bytes((_LOGIN_VERSION, 1)))
        wire.write(bytes((_LOGIN_VERSION, 0)))  # judged with the request, so that a refusal has its reason on record
        wire.flush()
        version, command, reserved, kind = await _take(wire, 4)
        if version != VERSION[0] or reserved or command != _CONNECT:
            raise Unspoken("SOCKS is for CONNECT alone here", "use no UDP and no BIND", told(_NO_COMMAND))
        host = await _host(wire, kind)
        port = int.from_bytes(await _take(wire, 2), "big")
    except EOFError:
        return None
    if not port:
        raise Unspoken("the port is 0", "name one from 1 to 65535", told(_NO_ADDRESS))
    return Asked(Authority(host, port), pick_token(user, password))


async def _host(wire: Wire, kind: int) -> str:
    if kind not in {_IPV4, _NAME, _IPV6}:
        raise Unspoken("the address is of an unknown kind", "RFC 1928 section 5", told(_NO_ADDRESS))
    raw = await _take(wire, {_IPV4: 4, _IPV6: 16}.get(kind) or (await _take(wire, 1))[0])
    try:
        if kind == _IPV4:
            return parse_host(".".join(map(str, raw)))
        if kind == _IPV6:
            return parse_host(f"[{':'.join(raw[at : at + 2].hex() for at in range(0, 16, 2))}]")
        return parse_host(raw.decode("utf-8"))
    except UnicodeDecodeError:
        raise Unspoken("the name of the host is no text", "send it in ASCII", told(_NO_ADDRESS)) from None
    except KeyholeError as error:
        raise Unspoken(error.reason, error.hint, told(_NO_ADDRESS)) from None


def refused(error: KeyholeError) -> bytes:
    """What a client is told of a refusal, as far as SOCKS has a word for it."""
    if isinstance(error, Unauthenticated | PolicyDenied) or error.status == 403:
        return told(_FORBIDDEN)
    return told(_UNREACHABLE if isinstance(error, UpstreamUnreachable) else _FAILED)


def told(code: int) -> bytes:
    """An answer to a request."""
    return VERSION + bytes((code,)) + _NOWHERE


async def _take(wire: Wire, size: int) -> bytes:
    while len(wire.buffer) < size:
        if wire.eof:
            raise EOFError
        await wire.wait()
    data, wire.buffer = wire.buffer[:size], wire.buffer[size:]
    return data

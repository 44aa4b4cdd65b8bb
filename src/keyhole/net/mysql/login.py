"""The client's side of a session's beginning, after the greeting: what to send, for each packet that is heard.

A password in clear goes to a server under TLS only. Its public key for RSA is not asked for: without TLS nobody can say
whose it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator
from dataclasses import dataclass, field

from keyhole.core.errors import UpstreamUnreachable
from keyhole.net.mysql import packets
from keyhole.net.mysql.packets import Greeting, Response
from keyhole.net.refused import LoginRefused

_OK, _MORE, _SWITCH, _ERROR = 0x00, 0x01, 0xFE, 0xFF
_KNOWN, _FULL = b"\x03", b"\x04"  # of caching_sha2_password: the proof is enough; say the password itself
_ROUNDS = 8
_HINT = "let this user have caching_sha2_password or mysql_native_password"


@dataclass(frozen=True, slots=True)
class Login:
    """With what a session is opened.

    Attributes:
        user: name of the user.
        password: of that user.
        database: to begin with; empty for none.
        capabilities: that the client chose, of those that are passed on.
        charset: id of the client's character set.
        attributes: what the client says of itself.
        secure: the connection is under TLS, and the server's name was verified.
    """

    user: bytes
    password: bytes = field(repr=False)
    database: bytes
    capabilities: int
    charset: int
    attributes: bytes = field(repr=False)
    secure: bool

    def flags(self, greeting: Greeting) -> int:
        """The capabilities that are asked of a server."""
        wanted = self.capabilities & packets.PASSED & greeting.capabilities
        database = packets.CONNECT_WITH_DB if self.database else 0
        return wanted | packets.OWN | database | (packets.SSL if self.secure else 0)


def log_in(login: Login, greeting: Greeting) -> Generator[bytes, bytes, bytes]:
    """Open a session: give payloads to send, take the server's, until it is ready.

    Returns:
        The payload of the OK packet with which it begins.

    Raises:
        LoginRefused: the server does not let us in.
        UpstreamUnreachable: it asks for what it does not get, or speaks another protocol.
    """
    plugin = greeting.plugin if greeting.plugin == packets.CACHING else packets.NATIVE
    nonce = greeting.nonce
    said = Response(
        login.flags(greeting), login.charset, login.user, _proof(login, plugin, nonce), login.database, plugin,
        login.attributes,
    )  # fmt: skip
    heard = yield packets.response(said)
    for _ in range(_ROUNDS):
        kind = heard[0] if heard else -1
        if kind == _OK:
            return heard
        if kind == _ERROR:
            raise LoginRefused(packets.error_state(heard))
        if kind == _SWITCH and len(heard) > 1:
            plugin, _, rest = heard[1:].partition(b"\0")
            nonce = rest.removesuffix(b"\0")
            heard = yield _proof(login, plugin, nonce)
        elif kind == _MORE and plugin == packets.CACHING and heard[1:] == _KNOWN:
            heard = yield b""
        elif kind == _MORE and plugin == packets.CACHING and heard[1:] == _FULL:
            heard = yield _in_clear(login)
        else:
            raise UpstreamUnreachable("what answers does not log in as MySQL and MariaDB do", _HINT)
    raise UpstreamUnreachable("the database does not come to an end of the login", "look at its log")


def _proof(login: Login, plugin: bytes, nonce: bytes) -> bytes:
    if plugin == packets.CLEAR:
        return _in_clear(login)
    if plugin not in {packets.NATIVE, packets.CACHING} or len(nonce) != 20:
        raise UpstreamUnreachable("the database asks for a way of logging in that is not known here", _HINT)
    return (native_proof if plugin == packets.NATIVE else caching_proof)(login.password, nonce)


def _in_clear(login: Login) -> bytes:
    if not login.secure:
        raise UpstreamUnreachable(
            "the database asks for the password in clear, and the connection has no TLS", "reach it over TLS"
        )
    return login.password + b"\0"


def native_proof(password: bytes, nonce: bytes) -> bytes:
    """SHA1(password) XOR SHA1(nonce + SHA1(SHA1(password))), of ``mysql_native_password``."""
    inner = _sha1(password)
    return _xor(inner, _sha1(nonce + _sha1(inner)))


def caching_proof(password: bytes, nonce: bytes) -> bytes:
    """SHA256(password) XOR SHA256(SHA256(SHA256(password)) + nonce), of ``caching_sha2_password``."""
    inner = hashlib.sha256(password).digest()
    return _xor(inner, hashlib.sha256(hashlib.sha256(inner).digest() + nonce).digest())


def _sha1(data: bytes) -> bytes:
    return hashlib.sha1(data, usedforsecurity=False).digest()


def _xor(one: bytes, other: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(one, other, strict=True))

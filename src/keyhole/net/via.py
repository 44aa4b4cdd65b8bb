"""The corporate proxy on the way to upstreams: HTTP ``CONNECT`` (RFC 9110 section 9.3.6) or SOCKS 5 (RFC 1928, 1929).

What ``upstream_no_proxy`` names is reached without it.

Whoever dials has judged the target; this only asks for it. Answers are read to their last byte and no further, and what
could belong to the target is never taken for one.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import os
import re
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from keyhole.config import Config
from keyhole.core.cidr import parse_cidrs, within
from keyhole.core.errors import InvalidRequest, UpstreamUnreachable
from keyhole.core.host import Authority, parse_authority, parse_host
from keyhole.core.value import Secret

_PORTS = {"http": 8080, "socks5": 1080}
_MAX_CONNECT_ANSWER = 8192
_MAX_CREDENTIALS = 1024
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: |\r\n)")

_SOCKS, _LOGIN = 5, 1  # versions of the protocol and of its login
_NO_LOGIN, _BY_PASSWORD = 0, 2
_CONNECT = 1
_IPV4, _NAME, _IPV6 = 1, 3, 4
_REFUSED = {
    1: "it failed",
    2: "its rules forbid the destination",
    3: "the network is unreachable",
    4: "the host is unreachable",
    5: "the connection was refused",
    6: "the connection took too long",
}
_CREDENTIALS_HINT = "check its credentials: upstream_proxy_credentials names a file with USER:PASSWORD"


@dataclass(frozen=True, slots=True)
class Spared:
    """Destinations that a corporate proxy is not asked for.

    Attributes:
        hosts: canonical hosts.
        domains: such as ``.corp.example``; what is below them.
        blocks: CIDR blocks, in which every address of a host has to lie.
    """

    hosts: frozenset[str]
    domains: tuple[str, ...]
    blocks: tuple[str, ...]

    @classmethod
    def parse(cls, parts: Iterable[str]) -> Spared:
        """Read ``HOST``, ``.DOMAIN`` and ``CIDR``. Raises ``InvalidRequest``."""
        hosts, domains, blocks = set(), [], []
        for part in (part.strip() for part in parts):
            if "/" in part:
                blocks += parse_cidrs([part], "upstream_no_proxy")
            elif part.startswith((".", "*.")):
                domains.append("." + parse_host(part.lstrip("*").removeprefix(".")))
            else:
                hosts.add(parse_host(part))
        return cls(frozenset(hosts), tuple(domains), tuple(blocks))

    def has(self, host: str, addresses: Sequence[str]) -> bool:
        """Is it one of them?"""
        if host in self.hosts or host.endswith(self.domains):
            return True
        return bool(self.blocks and addresses) and all(within(address, self.blocks) for address in addresses)


@dataclass(frozen=True, slots=True)
class Via:
    """A proxy that outgoing connections go through.

    Attributes:
        scheme: ``http`` or ``socks5``.
        address: where it listens.
        names: ask it for the name, and also for names that do not resolve here; else for the address that was judged.
        credentials: ``user:password``, where it wants them.
        spared: what is reached without it.
    """

    scheme: str
    address: Authority
    names: bool = False
    credentials: Secret | None = field(default=None, repr=False)
    spared: Spared | None = None

    def spares(self, host: str, addresses: Sequence[str]) -> bool:
        """Is a canonical host with these judged addresses reached without the proxy?"""
        return self.spared is not None and self.spared.has(host, addresses)

    @classmethod
    def of(cls, config: Config) -> Via | None:
        """The one that the settings name. Raises as ``parse``."""
        if not config.upstream_proxy:
            return None
        names, file = config.upstream_proxy_names, config.upstream_proxy_credentials
        via = cls.parse(config.upstream_proxy, names=names, credentials_file=file)
        return replace(via, spared=Spared.parse(config.upstream_no_proxy))

    @classmethod
    def parse(cls, text: str, *, names: bool = False, credentials_file: str = "") -> Via:
        """Read ``HOST:PORT``, ``http://HOST:PORT`` or ``socks5://HOST:PORT``.

        Raises:
            InvalidRequest: it is none of these, has a password in it, or the file cannot be read.
        """
        scheme, mark, rest = text.partition("://")
        if not mark:
            scheme, rest = "http", text
        if scheme not in _PORTS:
            raise InvalidRequest(
                "upstream_proxy is HOST:PORT, http://HOST:PORT or socks5://HOST:PORT",
                "upstream_proxy_names = true lets it resolve names, as socks5h does elsewhere",
            )
        if "@" in rest:
            raise InvalidRequest("upstream_proxy has no credentials in it", _CREDENTIALS_HINT)
        if urlsplit(f"//{rest}").path.strip("/"):
            raise InvalidRequest("upstream_proxy has a path, which no proxy has", "write socks5://HOST:PORT")
        credentials = _read_credentials(Path(credentials_file)) if credentials_file else None
        return cls(scheme, parse_authority(rest.rstrip("/"), _PORTS[scheme]), names, credentials)

    async def ask(self, sock: socket.socket, target: Authority) -> None:
        """Have the proxy connect this socket to a target. Raises ``UpstreamUnreachable`` when it does not."""
        try:
            if self.scheme == "http":
                await self._ask_http(sock, target)
            else:
                await self._ask_socks(sock, target)
        except (OSError, EOFError):
            raise UpstreamUnreachable("the corporate proxy broke off before it answered", "check its address") from None

    async def _ask_http(self, sock: socket.socket, target: Authority) -> None:
        loop = asyncio.get_running_loop()
        lines = [b"CONNECT %s HTTP/1.1" % str(target).encode(), b"Host: %s" % str(target).encode()]
        if self.credentials is not None:
            lines.append(b"Proxy-Authorization: Basic " + base64.b64encode(self.credentials.reveal()))
        answer = b""
        await loop.sock_sendall(sock, b"\r\n".join(lines) + b"\r\n\r\n")
        while b"\r\n\r\n" not in answer and len(answer) < _MAX_CONNECT_ANSWER:
            chunk = await loop.sock_recv(sock, _MAX_CONNECT_ANSWER - len(answer))
            if not chunk:
                break
            answer += chunk
        status = _STATUS.match(answer)
        # The target waits for us to speak first, so bytes after the answer are not the target's.
        if not status or not answer.endswith(b"\r\n\r\n") or answer.count(b"\r\n\r\n") != 1:
            raise UpstreamUnreachable("the corporate proxy did not answer CONNECT as a proxy does", "check its address")
        if not status[1].startswith(b"2"):
            raise UpstreamUnreachable(
                f"the corporate proxy refused the connection with status {status[1].decode()}",
                _CREDENTIALS_HINT if status[1] == b"407" else "ask its operator to allow the destination",
            )

    async def _ask_socks(self, sock: socket.socket, target: Authority) -> None:
        loop = asyncio.get_running_loop()
        methods = bytes((_NO_LOGIN,) if self.credentials is None else (_NO_LOGIN, _BY_PASSWORD))
        await loop.sock_sendall(sock, bytes((_SOCKS, len(methods))) + methods)
        version, method = await _exactly(sock, 2)
        if version != _SOCKS:
            raise UpstreamUnreachable("the corporate proxy does not speak SOCKS 5", "check its address and scheme")
        if method == _BY_PASSWORD and self.credentials is not None:
            await self._log_in(sock, self.credentials)
        elif method != _NO_LOGIN:
            raise UpstreamUnreachable("the corporate proxy wants another login", _CREDENTIALS_HINT)
        await loop.sock_sendall(sock, bytes((_SOCKS, _CONNECT, 0)) + _address(target) + target.port.to_bytes(2, "big"))
        version, answer, _, kind = await _exactly(sock, 4)
        if version != _SOCKS or kind not in {_IPV4, _NAME, _IPV6}:
            raise UpstreamUnreachable("the corporate proxy did not answer as SOCKS 5 does", "check its address")
        size = {_IPV4: 4, _IPV6: 16}.get(kind) or (await _exactly(sock, 1))[0]
        await _exactly(sock, size + 2)
        if answer:
            why = _REFUSED.get(answer, f"code {answer}")
            raise UpstreamUnreachable(f"the corporate proxy did not connect: {why}", "ask its operator")

    @staticmethod
    async def _log_in(sock: socket.socket, credentials: Secret) -> None:
        user, _, password = credentials.reveal().partition(b":")
        said = bytes((_LOGIN, len(user))) + user + bytes((len(password),)) + password
        await asyncio.get_running_loop().sock_sendall(sock, said)
        if (await _exactly(sock, 2))[1]:
            raise UpstreamUnreachable("the corporate proxy refused the login", _CREDENTIALS_HINT)


def _address(target: Authority) -> bytes:
    try:
        packed = ipaddress.ip_address(target.host).packed
    except ValueError:
        name = target.host.encode()
        return bytes((_NAME, len(name))) + name
    return bytes((_IPV4 if len(packed) == 4 else _IPV6,)) + packed


async def _exactly(sock: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < size:
        chunk = await loop.sock_recv(sock, size - len(data))
        if not chunk:
            raise EOFError
        data += chunk
    return data


def _read_credentials(path: Path) -> Secret:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_CREDENTIALS + 1).strip(b"\r\n")
    except OSError as error:
        why = os.strerror(error.errno or 0).lower()
        raise InvalidRequest(f"upstream_proxy_credentials: {why}: {path}", "name a file with USER:PASSWORD") from None
    user, colon, password = text.partition(b":")
    if not colon or not 1 <= len(user) <= 255 or not 1 <= len(password) <= 255 or b"\n" in text or b"\0" in text:
        raise InvalidRequest(
            "upstream_proxy_credentials is not one line with USER:PASSWORD", "each has 1 to 255 bytes (RFC 1929)"
        )
    return Secret(text)

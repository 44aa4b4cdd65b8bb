"""The guarded dialer: the address that is judged is the address that is dialled.

It works on plain sockets, so proxy variables, ``~/.netrc`` and whatever else the environment says do not reach it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Sequence

from keyhole.core.errors import KeyholeError, LoopDetected, UpstreamTimeout, UpstreamUnreachable
from keyhole.core.host import Authority
from keyhole.net.guard import Guard
from keyhole.net.resolve import Resolver
from keyhole.net.via import Via

_PROXY_HINT = "check upstream_proxy"
# Names of metadata services, which need not resolve here to be meant: a corporate proxy may know them.
_METADATA = frozenset({"metadata.google.internal", "metadata.goog", "instance-data", "instance-data.ec2.internal"})
_METADATA_ADDRESS = "169.254.169.254"
ATTEMPT_DELAY = 0.25  # seconds before the next address is tried as well (RFC 8305, section 5)


class Dialer:
    """Opens the outgoing connections of a process.

    Args:
        resolver: where names are looked up.
        via: a corporate proxy that connections go through, but for those that it spares. The guard judges the target
            first, and the proxy is asked for the address that was judged. Where it resolves names, what resolves here
            is still judged, but what the proxy then dials is the proxy's decision.

    Attributes:
        own: address and port of every listener of this process, which are never dialled. A listener on all addresses
            is entered with ``0.0.0.0`` or ``::``.
    """

    def __init__(
        self,
        resolver: Resolver,
        *,
        via: Via | None = None,
    ) -> None:
        self.own: set[tuple[str, int]] = set()
        self._resolver = resolver
        self._via = via

    async def dial(self, host: str, port: int, guard: Guard, *, timeout: float) -> socket.socket:  # noqa: ASYNC109 - named in the contract
        """Connect to a canonical host. The socket is not blocking and sends small writes at once.

        Args:
            host: canonical host.
            port: 1 to 65535.
            guard: has to pass every address of the host, or none is dialled.
            timeout: seconds for everything together.

        Raises:
            AddressDenied: the guard refuses one of the host's addresses.
            LoopDetected: it is a listener of this process.
            UpstreamUnreachable: it does not resolve, or does not take the connection.
            UpstreamTimeout: the time is over.
        """
        try:
            async with asyncio.timeout(timeout):
                addresses = await self.judged(host, port, guard)
                if self._via is None or self._via.spares(host, addresses):
                    return await _connect_any(addresses, port)
                return await self._tunnel(self._via, host, port, addresses)
        except TimeoutError:
            raise UpstreamTimeout(
                f"the connection to {Authority(host, port)} was not made within {timeout:g} seconds", "try again later"
            ) from None

    async def datagrams(self, host: str, port: int, guard: Guard) -> socket.socket:
        """A UDP socket that sends to a canonical host only. Raises as ``dial``; a corporate proxy is not asked."""
        address = (await self.judged(host, port, guard))[0]
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.settimeout(0)
            sock.connect((address, port))
        except OSError as error:
            sock.close()
            raise _unreachable(error) from None
        return sock

    async def judged(self, host: str, port: int, guard: Guard) -> list[str]:
        """The addresses of a canonical host, all of which the guard has passed. Raises as ``dial``."""
        if host in _METADATA:
            guard.check(_METADATA_ADDRESS, host)
        try:
            addresses = await self._resolver.resolve(host)
        except UpstreamUnreachable:
            if self._via is None or not self._via.names or self._via.spares(host, ()):
                raise
            return []
        for address in addresses:
            guard.check(address, host)
        for address in addresses:
            if self._is_own(address, port):
                raise LoopDetected("the destination is Keyhole itself", "call its API directly, not through the proxy")
        return addresses

    def _is_own(self, address: str, port: int) -> bool:
        dialled = _plain(address)
        for text, own_port in self.own:
            listener = _plain(text)
            if port != own_port:
                continue
            if listener == dialled or dialled.is_unspecified or (listener.is_unspecified and _is_local(dialled)):
                return True
        return False

    async def _tunnel(self, via: Via, host: str, port: int, addresses: Sequence[str]) -> socket.socket:
        """Connect through the corporate proxy, address by address until one is taken."""
        targets = [host] if via.names else addresses
        last: KeyholeError | None = None
        for target in targets:
            try:
                sock = await _connect_any(await self._resolver.resolve(via.address.host), via.address.port)
            except UpstreamUnreachable as error:
                raise UpstreamUnreachable(f"no way to the corporate proxy: {error.reason}", _PROXY_HINT) from None
            try:
                await via.ask(sock, Authority(target, port))
            except UpstreamUnreachable as error:
                sock.close()
                last = error
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        raise last or UpstreamUnreachable(f"the name {host} has no address")


def _plain(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    parsed = ipaddress.ip_address(address)
    return (parsed.ipv4_mapped or parsed) if isinstance(parsed, ipaddress.IPv6Address) else parsed


def _is_local(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether an address is one of this machine: the kernel would then also send from it. No packet is sent."""
    if address.is_loopback:
        return True
    with socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((str(address), 9))
        except OSError:
            return False
        return _plain(str(probe.getsockname()[0])) == address


async def _connect_any(addresses: Sequence[str], port: int) -> socket.socket:
    """The first connection that is made; the next address is tried when one fails or is slow."""
    if len(addresses) == 1:
        try:
            return await _connect(addresses[0], port)
        except OSError as error:
            raise _unreachable(error) from None
    waiting = list(addresses)
    running: set[asyncio.Task[socket.socket]] = set()
    failure: OSError | None = None
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.ensure_future(_connect(waiting.pop(0), port)))
            delay = ATTEMPT_DELAY if waiting else None
            done, running = await asyncio.wait(running, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                problem = task.exception()
                if problem is None:
                    done.remove(task)
                    running |= done
                    return task.result()
                if not isinstance(problem, OSError):
                    raise problem
                failure = problem
    finally:
        await _abandon(running)
    raise _unreachable(failure)


async def _abandon(tasks: set[asyncio.Task[socket.socket]]) -> None:
    """Take back attempts that are no longer needed, also those that have succeeded meanwhile."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled() and task.exception() is None:
            task.result().close()


async def _connect(address: str, port: int) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.settimeout(0)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, (address, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _unreachable(error: OSError | None) -> UpstreamUnreachable:
    # Not ``error.strerror``, in which asyncio names the address.
    why = os.strerror(error.errno).lower() if error and error.errno else "no connection was made"
    return UpstreamUnreachable(f"the upstream does not take the connection: {why}", "check host and port")

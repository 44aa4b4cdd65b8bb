"""Name resolution for outgoing connections: bounded in time, in answers and in what one stuck name can hold up."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from keyhole.core.errors import InvalidRequest, UpstreamUnreachable
from keyhole.core.fair import ASKING, FairQueue
from keyhole.core.host import Authority, parse_authority, parse_host
from keyhole.net.together import Together

if TYPE_CHECKING:
    from dns.asyncresolver import Resolver as DnsResolver

TIMEOUT = 4.0  # seconds for one name, A and AAAA together; a caller is answered within five
MAX_ADDRESSES = 16
_MAX_THREADS = 64  # lookups of the system resolver under way
_MAX_PENDING = 1024  # names that wait for one
_ORG_THREADS = 16  # of those, for one org
_ORG_PENDING = 256
_SECOND_FAMILY = 1.0  # seconds that AAAA may take after A has answered, and the other way round


class Resolver:
    """Resolves canonical hosts to addresses. Nothing is remembered: every dial is judged on fresh answers.

    Args:
        server: ``ADDRESS[:PORT]`` of a DNS server to ask in place of the system's resolver.
        static: ``HOST:ADDRESS`` entries that come before any other source; one host may have several.
        timeout: seconds for one name.

    Raises:
        InvalidRequest: ``server`` or an entry of ``static`` is malformed.
    """

    def __init__(self, server: str = "", static: Sequence[str] = (), *, timeout: float = TIMEOUT) -> None:
        self._server = _server(server) if server else None
        self._static = _static_entries(static)
        self._timeout = timeout
        self._dns: DnsResolver | None = None
        self._together: Together[tuple[str, str], list[str]] = Together()
        self._pending: dict[tuple[str, str], asyncio.Future[list[str]]] = {}
        self._queue: FairQueue[tuple[str, str]] = FairQueue(_ORG_PENDING, _MAX_PENDING)
        self._threads: Counter[str] = Counter()

    async def resolve(self, host: str) -> list[str]:
        """The addresses of a canonical host, at most 16, without repetition, in the order to try them.

        Names below ``localhost`` are loopback without a query (RFC 6761, section 6.3).

        Raises:
            UpstreamUnreachable: it has no address, or no answer came in time.
        """
        if Authority(host, 1).is_ip:
            return [host]
        if host in self._static:
            return list(self._static[host])
        if host == "localhost" or host.endswith(".localhost"):
            return ["127.0.0.1"]
        try:
            async with asyncio.timeout(self._timeout):
                addresses = await (self._ask_server(host) if self._server else self._ask_system(host))
        except TimeoutError:
            raise UpstreamUnreachable(
                f"the name {host} could not be resolved within {self._timeout:g} seconds", "check the resolver"
            ) from None
        if not addresses:
            raise UpstreamUnreachable(
                f"the name {host} has no address", "check the host's spelling and its DNS records"
            )
        return list(dict.fromkeys(addresses))[:MAX_ADDRESSES]

    async def _ask_system(self, host: str) -> list[str]:
        """Ask ``getaddrinfo``: one thread for a name, however many of an org wait for it. Orgs take turns.

        Each org waits for names of its own: in another's line a name could be made to wait for long.
        """
        org, agent = ASKING.get()
        return await self._together.wait((org, host), lambda: self._in_turn(org, agent, host))

    async def _in_turn(self, org: str, agent: str, host: str) -> list[str]:
        future: asyncio.Future[list[str]] = asyncio.get_running_loop().create_future()
        self._pending[org, host] = future
        out = self._queue.put(org, agent, (org, host))
        if out is not None:
            self._refuse(out)
        self._start_lookups()
        return await future

    def _refuse(self, name: tuple[str, str]) -> None:
        future = self._pending.pop(name)
        if not future.done():
            future.set_exception(
                UpstreamUnreachable("too many names are being resolved", "check the resolver and try again")
            )

    def _start_lookups(self) -> None:
        while self._threads.total() < _MAX_THREADS:
            found = self._queue.take(lambda org: not org or self._threads[org] < _ORG_THREADS)
            if found is None:
                return
            org, name = found
            self._threads[org] += 1
            arguments = (asyncio.get_running_loop(), name)
            # A daemon: a lookup that hangs must not keep the process from ending.
            thread = threading.Thread(target=self._lookup, args=arguments, name="keyhole-resolve", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system has no more threads
                self._free(org)
                self._refuse(name)

    def _lookup(self, loop: asyncio.AbstractEventLoop, name: tuple[str, str]) -> None:
        try:
            answers = socket.getaddrinfo(name[1], None, type=socket.SOCK_STREAM)
            addresses = [str(answer[4][0]) for answer in answers]
        except (OSError, UnicodeError):
            addresses = []
        with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
            loop.call_soon_threadsafe(self._finish, name, addresses)

    def _finish(self, name: tuple[str, str], addresses: list[str]) -> None:
        self._free(name[0])
        future = self._pending.pop(name)
        if not future.done():
            future.set_result(addresses)
        self._start_lookups()

    def _free(self, org: str) -> None:
        self._threads[org] -= 1
        if not self._threads[org]:
            del self._threads[org]

    async def _ask_server(self, host: str) -> list[str]:
        tasks = [asyncio.ensure_future(self._query(host, kind)) for kind in ("AAAA", "A")]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if any(task.done() and task.result() for task in tasks):
                await asyncio.wait(tasks, timeout=_SECOND_FAMILY)
            else:
                await asyncio.wait(tasks)
            six, four = (task.result() if task.done() else [] for task in tasks)
        finally:
            for task in tasks:
                task.cancel()
        pairs = zip_longest(six, four)
        return [address for pair in pairs for address in pair if address]

    async def _query(self, host: str, kind: str) -> list[str]:
        import dns.exception  # noqa: PLC0415 - a rare setting that most processes never load
        import dns.rdatatype  # noqa: PLC0415

        try:
            answer = await self._dns_resolver().resolve(
                host + ".", kind, raise_on_no_answer=False, lifetime=self._timeout, search=False
            )
        except (dns.exception.DNSException, OSError):
            return []
        wanted = dns.rdatatype.from_text(kind)
        return [record.address for record in answer.rrset or () if record.rdtype == wanted]

    def _dns_resolver(self) -> DnsResolver:
        if self._dns is None:
            import dns.asyncresolver  # noqa: PLC0415 - see _query

            assert self._server is not None  # noqa: S101 - only asked when a server is set
            self._dns = dns.asyncresolver.Resolver(configure=False)
            self._dns.nameservers = [self._server.host]
            self._dns.port = self._server.port
        return self._dns


def _server(text: str) -> Authority:
    authority = parse_authority(text, 53)
    if not authority.is_ip:
        raise InvalidRequest("the DNS server is given by name", "write its address, such as 10.0.0.53:53")
    return authority


def _static_entries(entries: Iterable[str]) -> dict[str, list[str]]:
    static: dict[str, list[str]] = {}
    for entry in entries:
        host, _, address = entry.partition(":")
        try:
            literal = str(ipaddress.ip_address(address.removeprefix("[").removesuffix("]")))
        except ValueError:
            raise InvalidRequest("a static entry is not HOST:ADDRESS", "write api.example.com:192.0.2.1") from None
        static.setdefault(parse_host(host), []).append(literal)
    return static

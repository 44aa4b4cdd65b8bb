"""The port of the command's own that speaks as the local proxy of AgentSecrets does.

1. Its SDK shows no token. So a connection is served when a process of the command holds its other end (see
   ``faces.run.port``), and requests of web pages are refused even then.
2. A call goes through the broker's proxy with the command's token, to the service that ``names`` finds. Bodies pass in
   both directions without being kept. It is the last of its connection.
3. What is refused here never leaves. So that it is on record all the same, the broker is asked for a service that
   cannot exist.

Clients read the proxy variables of the command, also for ``localhost``: then the request comes through the command's
proxy port, which hands it on.
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from keyhole.core.errors import KeyholeError
from keyhole.core.service import Service
from keyhole.faces.run.agentsecrets import said
from keyhole.faces.run.agentsecrets.asked import Asked, read
from keyhole.faces.run.agentsecrets.names import Chosen, Wish, choose, listing
from keyhole.faces.run.agentsecrets.said import Refused
from keyhole.faces.run.port import SessionPort
from keyhole.net.http1.framing import request_decoder
from keyhole.net.http1.grammar import AnswerHead, RequestHead, parse_answer_head, parse_request_head
from keyhole.net.http1.limits import ANSWER_LIMITS, ListenerLimits

_LIMITS = ListenerLimits()
_PIECE = 1 << 16
_REFUSAL = 1 << 16  # bytes of a refusal that are read
_CONNECT = 40.0  # seconds to the answer to CONNECT
_STALE = 1.0  # seconds after which the services are looked up again where a name is not found
_KEPT = 1000  # calls that the log has
_PAGES = re.compile(rb"origin|sec-fetch-[a-z]+")
_ENDED = (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError)
_HERE = rb"(?:localhost|127\.0\.0\.1):"
_FOR_PROXY = re.compile(
    rb"CONNECT " + _HERE + rb"(?P<tunnel>[0-9]{1,5}) HTTP/1\.[01]"
    rb"|(?P<method>[A-Z]+) http://" + _HERE + rb"(?P<port>[0-9]{1,5})(?P<path>/[^ ]*) (?P<version>HTTP/1\.[01])"
)
_ESTABLISHED = b"HTTP/1.1 200 Connection Established\r\n\r\n"


class AgentSecretsPort(SessionPort):
    """The listener.

    Args:
        proxy_url: the broker's proxy, of plain HTTP, with the token.
        on_message: told once when somebody else tried to connect.
        wish: the agent and what it may use.
        ca_pem: what the proxy's certificates are signed with.
    """

    what = "AgentSecrets port"

    def __init__(self, proxy_url: str, on_message: Callable[[str], None], wish: Wish, ca_pem: bytes) -> None:
        super().__init__(proxy_url, on_message)
        self._wish = wish
        self._tls = ssl.create_default_context(cadata=ca_pem.decode())
        self._services: Mapping[str, Service] = {}
        self._looked = -_STALE
        self._lock = asyncio.Lock()
        self._log: deque[dict[str, Any]] = deque(maxlen=_KEPT)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with asyncio.timeout(_LIMITS.head_timeout):
            raw = await reader.readuntil(b"\r\n\r\n")
        await self.answer(raw, reader, writer)

    def is_meant(self, line: bytes) -> bool:
        """Whether a request line for a proxy is for this port."""
        match = _FOR_PROXY.fullmatch(line)
        return match is not None and int(match["port"] or match["tunnel"]) == self.address[1]

    async def take_over(self, raw: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a request that a client gave to the command's proxy port."""
        line, end, fields = raw.partition(b"\r\n")
        match = _FOR_PROXY.fullmatch(line)
        if match is None or match["tunnel"]:
            writer.write(_ESTABLISHED)
            await self._forward(reader, writer)
        else:
            await self.answer(b"%b %b %b" % match.group("method", "path", "version") + end + fields, reader, writer)

    async def answer(self, raw: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request.

        Args:
            raw: its head.
            reader: what follows.
            writer: where the answer goes.
        """
        try:
            await self._route(_own_head(raw), raw, reader, writer)
        except (Refused, KeyholeError) as error:
            refusal = error if isinstance(error, Refused) else said.rejected(error)
            head_only = raw.startswith(b"HEAD ")
            writer.write(said.rendered(refusal.status, refusal.body, reason=refusal.reason, head_only=head_only))
        await self._linger(reader, writer)

    async def _route(
        self, head: RequestHead, raw: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        path = head.target.partition(b"?")[0]
        if path == b"/proxy":
            await self._logged(read(head, raw), reader, writer)
        elif path == b"/health":
            writer.write(said.rendered(200, {"project": self._wish.agent, "status": "ok"}))
        elif path == b"/secrets":
            writer.write(said.rendered(200, {"secrets": listing((await self._look()).values())}))
        elif path == b"/logs":
            writer.write(said.rendered(200, {"logs": list(self._log)}))
        else:
            raise Refused(404, {"error": "there is /proxy and /health here"}, "not_found")

    async def _logged(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        began = time.monotonic()
        entry = _entry(asked, self._wish.agent)
        try:
            chosen = await self._choose(asked)
            await self._call(asked, chosen, entry, reader, writer)
        except Refused as refusal:
            entry |= {"status_code": refusal.status, "status": "BLOCKED", "reason": refusal.reason}
            raise
        except _ENDED:
            if entry["status_code"]:
                raise  # in the middle of the answer
            entry |= {"status_code": 502, "status": "BLOCKED", "reason": "unreachable"}
            raise Refused(
                502, {"error": "failed to reach upstream: the broker gave no answer"}, "unreachable"
            ) from None
        finally:
            entry["duration_ms"] = int((time.monotonic() - began) * 1000)
            self._log.append(entry)

    async def _choose(self, asked: Asked) -> Chosen:
        """The service, by what the agent may use now. A refusal is put on record."""
        services = self._services
        try:
            try:
                return choose(asked, services, self._wish.placeholders)
            except Refused:
                renewed = await self._look()
                if renewed is services:
                    raise
                return choose(asked, renewed, self._wish.placeholders)
        except Refused as refusal:
            with suppress(Refused, *_ENDED):
                async with self._way(asked) as (back, forth):
                    forth.write(asked.put_on_record(refusal.reason))
                    async with asyncio.timeout(_CONNECT):
                        await back.readuntil(b"\r\n\r\n")
            raise

    async def _look(self) -> Mapping[str, Service]:
        """The services of the agent; not asked for again within a moment."""
        async with self._lock:
            if time.monotonic() - self._looked >= _STALE:
                self._services = await asyncio.to_thread(self._wish.services)
                self._looked = time.monotonic()
            return self._services

    async def _call(
        self,
        asked: Asked,
        chosen: Chosen,
        entry: dict[str, Any],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        async with self._way(asked) as (back, forth):
            more = b"X-Keyhole-Service: %b\r\n" % chosen.service.name.encode()
            more += b"".join(b"%b: %b\r\n" % pair for pair in chosen.headers)
            forth.write(asked.head(self._outside(asked) + more, absolute=asked.scheme == "http"))
            up = asyncio.create_task(_carry(reader, forth))
            down = asyncio.create_task(_give(asked, entry, back, writer))
            try:
                await asyncio.wait({up, down}, return_when=asyncio.FIRST_COMPLETED)
                if down.done() or up.exception() is not None:  # else the client has gone
                    await down
            finally:
                for task in (up, down):
                    task.cancel()
                await asyncio.gather(up, down, return_exceptions=True)

    @asynccontextmanager
    async def _way(self, asked: Asked) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        """A connection through which the request can be sent to the broker. Raises ``Refused``."""
        try:
            back, forth = await asyncio.open_connection(*self._there, limit=ANSWER_LIMITS.head_bytes)
        except OSError:
            raise Refused(502, {"error": "the broker cannot be reached"}, "unreachable") from None
        try:
            if asked.scheme == "https":
                where = str(asked.authority).encode()
                forth.write(b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n" % (where, where) + self._credential + b"\r\n")
                head = await _read_head(back, _CONNECT)
                if head.status != 200:
                    raise await _refusal(head, back, asked)
                await forth.start_tls(self._tls, server_hostname=asked.authority.host)
            yield back, forth
        finally:
            forth.close()

    def _outside(self, asked: Asked) -> bytes:
        """What a request needs that is in no tunnel."""
        return self._credential if asked.scheme == "http" else b""

    async def _linger(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Let the client read an answer that came before the end of its request (RFC 9112 section 9.6)."""
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(_LIMITS.linger):
                await writer.drain()
                if writer.can_write_eof():
                    writer.write_eof()
                left = _LIMITS.linger_bytes
                while left > 0 and (data := await reader.read(_PIECE)):
                    left -= len(data)


def _own_head(raw: bytes) -> RequestHead:
    """The head of a request to this port. Raises ``Refused`` or ``KeyholeError``."""
    head = parse_request_head(raw, _LIMITS.wire)
    request_decoder(head, _LIMITS.wire)  # its body has one end, or it is refused
    if any(_PAGES.fullmatch(name) for name in head.fields):
        raise Refused(403, {"error": "a web page cannot use this port"}, "browser")
    return head


async def _give(asked: Asked, entry: dict[str, Any], back: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hand the answer on. Raises ``Refused`` where it is the broker's own."""
    while True:
        raw = await back.readuntil(b"\r\n\r\n")  # the broker has limits of its own for how long this takes
        head = parse_answer_head(raw, ANSWER_LIMITS)
        if b"x-keyhole-error" in head.fields:
            raise await _refusal(head, back, asked)
        writer.write(raw)
        if head.status >= 200:
            break
    entry |= {"status_code": head.status, "status": "OK"}
    await _carry(back, writer)


async def _carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Carry bytes to the end of the source, no more at a time than the sink takes."""
    while data := await source.read(_PIECE):
        sink.write(data)
        await sink.drain()


async def _read_head(back: asyncio.StreamReader, seconds: float) -> AnswerHead:
    async with asyncio.timeout(seconds):
        return parse_answer_head(await back.readuntil(b"\r\n\r\n"), ANSWER_LIMITS)


async def _refusal(head: AnswerHead, back: asyncio.StreamReader, asked: Asked) -> Refused:
    """The broker's refusal in the words of the contract."""
    length = head.fields.get(b"content-length", b"0")
    detail: dict[str, Any] = {"code": head.fields.get(b"x-keyhole-error", b"").decode("latin-1")}
    with suppress(ValueError, TimeoutError, asyncio.IncompleteReadError):
        async with asyncio.timeout(_CONNECT):
            detail |= json.loads(await back.readexactly(min(int(length), _REFUSAL)))["error"]
    keys = ", ".join(place.key for place in asked.places)
    style = asked.places[0].style if asked.places else ""
    return said.of_broker(head.status, detail, asked.authority.host, keys, style)


def _entry(asked: Asked, agent: str) -> dict[str, Any]:
    """A line of the log, in the form of AgentSecrets; the URL without its parameters."""
    return {
        "timestamp": datetime.now(UTC).isoformat(),
        "secret_keys": [place.key for place in asked.places],
        "agent_id": agent,
        "method": asked.method,
        "target_url": f"{asked.scheme}://{asked.authority.header(asked.scheme).decode()}{asked.path}",
        "domain": asked.authority.host,
        "auth_styles": [place.style for place in asked.places],
        "status_code": 0,
        "duration_ms": 0,
        "status": "BLOCKED",
        "reason": "-",
    }

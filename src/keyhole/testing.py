"""Test doubles for programs that use Keyhole: a vault in memory, a clock that stands still, an upstream that records.

    async with open_vault() as vault:
        await vault.ask("update", "secret/data/stripe/api-key", {"data": {"value": "sk_test_1"}})
        reply = await vault.ask("read", "secret/data/stripe/api-key")

Nothing here protects anything: the seal keeps its key in memory and the root token is known.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from keyhole import app
from keyhole.app import MemorySeal
from keyhole.config import Config
from keyhole.core.request import Credential, Operation, Reply, Request
from keyhole.faces.api.envelope import render
from keyhole.stores import Store, open_store
from keyhole.vault.clock import elapsed
from keyhole.vault.node import Node
from keyhole.vault.vault import Vault

__all__ = ["ROOT_TOKEN", "FakeUpstream", "FrozenClock", "MemorySeal", "OpenVault", "open_keyhole", "open_vault"]

ROOT_TOKEN = "root"  # noqa: S105 - known on purpose
_HEAD_END = b"\r\n\r\n"
_DAY = 86_400.0


class FrozenClock:
    """Elapsed seconds that pass only when told to. Give it to ``open_vault`` or to a ``Node`` as ``monotonic``."""

    def __init__(self) -> None:
        self._elapsed = _DAY

    def __call__(self) -> float:
        """Seconds, as ``time.monotonic`` counts them."""
        return self._elapsed

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._elapsed += seconds


@dataclass(slots=True)
class OpenVault:
    """An open vault and its root token.

    Attributes:
        node: the node that holds it.
        token: of the policy ``root`` in the org ``root``.
    """

    node: Node
    token: str

    @property
    def vault(self) -> Vault:
        """The door."""
        return self.node.open_vault()

    async def ask(
        self,
        operation: str,
        path: str,
        data: Mapping[str, Any] | None = None,
        *,
        token: str | Credential | None = None,
        org: str = "",
        wrap_ttl: int = 0,
    ) -> Reply:
        """Ask the door as the root caller, or with another token. Raises what the door raises."""
        asker = self.token if token is None else token
        credential = asker.encode() if isinstance(asker, str) else asker
        return await self.node.handle(
            Request(credential, Operation(operation), path, data or {}, org=org, wrap_ttl=wrap_ttl)
        )

    async def get(self, path: str, *, token: str | None = None) -> Any:
        """The data of a read as the API shows it, with its secrets."""
        return json.loads(render(await self.ask("read", path, token=token))[2])["data"]


@contextlib.asynccontextmanager
async def open_vault(
    location: str = "memory:",
    *,
    seal: MemorySeal | None = None,
    store: Store | None = None,
    clock: FrozenClock | None = None,
    max_uses: int = 2**32,
) -> AsyncIterator[OpenVault]:
    """A vault, new or opened again, for as long as the block runs.

    Args:
        location: of the store, such as ``sqlite:/tmp/x/vault.db``; it is made where there is none.
        seal: the one that the vault was made with, to open it again.
        store: an open store to use instead of ``location``.
        clock: stands still until it is advanced.
        max_uses: values that one key term may seal.
    """
    opened = store or await open_store(location, create=True)
    node = Node(opened, max_uses=max_uses, monotonic=clock or elapsed)
    try:
        if await node.header() is None:
            await node.init("memory", seal=seal or MemorySeal(), token=ROOT_TOKEN)
        else:
            await node.unseal(seal=seal)
        yield OpenVault(node, ROOT_TOKEN)
    finally:
        await node.close()


@contextlib.asynccontextmanager
async def open_keyhole(config: Config | None = None) -> AsyncIterator[app.Keyhole]:
    """A vault in memory with its road, ready for ``app.start_proxy``; the root token is ``ROOT_TOKEN``."""
    keyhole, _ = await app.open_ephemeral(config or Config(vault=app.MEMORY), token=ROOT_TOKEN)
    try:
        yield keyhole
    finally:
        await keyhole.close()


@dataclass(slots=True)
class FakeUpstream:
    """An HTTP/1.1 server on loopback that keeps the bytes of every request and gives one answer.

    Attributes:
        answer: the bytes that it sends back, head and body.
        requests: the bytes that it received, one item a request.
        authority: ``127.0.0.1:PORT`` while it runs.
    """

    answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    requests: list[bytes] = field(default_factory=list)
    authority: str = ""
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.authority = "127.0.0.1:{1}".format(*self._server.sockets[0].getsockname())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(_HEAD_END)
            self.requests.append(head + await _body(reader, head))
            writer.write(self.answer)
            await writer.drain()
        writer.close()


async def _body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    lines = [line.partition(b":") for line in head.lower().split(b"\r\n")]
    fields = {name: value.strip() for name, _, value in lines}
    if fields.get(b"transfer-encoding") == b"chunked":
        body = b""
        while not body.endswith(b"0\r\n\r\n"):
            body += await reader.readline()
        return body
    return await reader.readexactly(int(fields.get(b"content-length") or 0))

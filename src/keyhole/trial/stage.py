"""The vault, the broker, the relay and the API of a trial."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from keyhole.app import Keyhole, open_ephemeral, start_proxy
from keyhole.config import Config
from keyhole.core.request import Operation, Request
from keyhole.crypto.x509 import CertificateAuthority, create_ca
from keyhole.faces.run.child import run_child
from keyhole.faces.run.plan import NOT_EXECUTABLE, NOT_FOUND, OWN_FAILURE, RunPlan
from keyhole.net.tls import server_context
from keyhole.trial.known import ABSENT, KnownClient, Outcome, Trial

HOST = "doctor.keyhole.test"  # a name that never exists (RFC 6761, section 6.2)
PATIENCE = 10.0  # seconds for one client
_LARGEST_HEAD = 65536
_CHUNK = 65536
_SAID = 160  # characters of what a client printed
_ROOT = b"doctor-root"  # of a vault that ends with us
_NOTHING = {"vulnerabilities": {}, "crates": [], "meta": {"total": 0}, "Version": "v1.0.0"}


class Api:
    """An HTTPS API that wants a key and answers every client in a way that it may take for an end."""

    def __init__(self, key: str) -> None:
        self._expected = f"Bearer {key}"
        self.requests = 0
        self.admitted = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request and close."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
            right = secrets.compare_digest(fields.get("authorization", "").encode(), self._expected.encode())
            self.requests += 1
            self.admitted += right
            answer = {**_NOTHING, "dl": f"{self.url}/dl", "api": self.url}
            body = json.dumps(answer if right else {"error": "this key is not known"}).encode()
            writer.write(
                f"HTTP/1.1 {'200 OK' if right else '401 Unauthorized'}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
        writer.close()


@dataclass
class Relay:
    """Stands before the proxy for one client, and notes whether it came and what the proxy answered first.

    Attributes:
        target: host and port of the proxy.
        connections: how often the client came.
        statuses: the first answer of each connection.
    """

    target: tuple[str, int]
    connections: int = 0
    statuses: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on the bytes of one connection."""
        self.connections += 1
        with contextlib.suppress(OSError):
            up_reader, up_writer = await asyncio.open_connection(*self.target)
            await asyncio.gather(_pass_on(reader, up_writer), _pass_on(up_reader, writer, self._note))
        writer.close()

    def _note(self, first: bytes) -> None:
        self.statuses.append(first[9:12].decode("latin-1"))


async def _pass_on(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, note: Callable[[bytes], None] | None = None
) -> None:
    first = True
    try:
        while chunk := await reader.read(_CHUNK):
            if first and note is not None:
                note(chunk)
            first = False
            writer.write(chunk)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


@dataclass
class Stage:
    """Where clients are tried, one after another."""

    keyhole: Keyhole
    api: Api
    ca: str
    folder: Path

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls) -> AsyncIterator[Stage]:
        """Everything on free ports of loopback, and gone at the end. Call ``harden_process`` first."""
        key = secrets.token_urlsafe(24)
        api = Api(key)
        async with contextlib.AsyncExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="keyhole-doctor-")))
            port = await stack.enter_async_context(_serving(api, folder))
            config = Config(
                vault="memory:", upstream_ca=str(folder / "ca.pem"), resolve=(f"{HOST}:127.0.0.1",), drain=1.0
            )
            keyhole, _ = await open_ephemeral(config, token=_ROOT.decode())
            stack.push_async_callback(keyhole.close)
            proxy = await start_proxy(keyhole, "127.0.0.1:0")
            stack.push_async_callback(proxy.close, 1.0)
            stage = cls(keyhole, api, "", folder)
            await stage._furnish(key, port)
            yield stage

    async def attempt(self, client: KnownClient) -> Trial | None:
        """Let one client make its request; ``None`` where it is not on this machine."""
        if not client.path:
            return None
        work = self.folder / client.name
        work.mkdir()
        before = (self.api.requests, self.api.admitted)
        relay = Relay(_address(self.keyhole.proxy_url))
        server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
        async with server:
            code, said = await self._run(client, work, server.sockets[0].getsockname()[1])
        if code == ABSENT:
            return None
        arrived, admitted = self.api.requests - before[0], self.api.admitted - before[1]
        outcome = _outcome(relay, arrived=bool(arrived), admitted=bool(admitted), code=code)
        shutil.rmtree(work, ignore_errors=True)
        version = await asyncio.to_thread(client.ask_version)
        if outcome == "through":
            return Trial(client.name, version, outcome, about=client.about)
        return Trial(client.name, version, outcome, said, client.next_step(outcome), client.about)

    async def _run(self, client: KnownClient, work: Path, port: int) -> tuple[int, str]:
        """The client's exit code (``-1`` where it took too long) and the last line that it printed."""
        minted = await self._ask(Operation.UPDATE, "agents/probe/token", {"ttl": "5m", "scope": "proxy"})
        token, out = str(minted["token"]), work / "said"
        if client.file:
            (work / client.file["name"]).write_text(self._filled(client.file["content"], work), encoding="utf-8")
        plan = RunPlan(
            (*_into(out), *(self._filled(word, work) for word in client.request)),
            f"http://agent:{token}@127.0.0.1:{port}",
            self.ca.encode(),
            cwd=work,
            base_env={**os.environ, **{name: self._filled(text, work) for name, text in client.env.items()}},
        )
        messages: list[str] = []
        try:
            async with asyncio.timeout(PATIENCE):
                code = await run_child(plan, on_message=messages.append)
        except TimeoutError:
            code = -1
        printed = out.read_text(errors="replace") if out.exists() else ""
        lines = [line.strip() for line in [*messages, *printed.splitlines()] if line.strip()]
        return code, lines[-1].replace(token, "…")[:_SAID] if lines else ""

    def _filled(self, text: str, work: Path) -> str:
        values = {"{url}": self.api.url, "{folder}": str(work), "{python}": sys.executable}
        for name, value in values.items():
            text = text.replace(name, value)
        return text

    async def _ask(self, operation: Operation, path: str, data: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        return (await self.keyhole.node.handle(Request(_ROOT, operation, path, data or {}))).data or {}

    async def _furnish(self, key: str, port: int) -> None:
        service = {
            "hosts": [f"{HOST}:{port}"],
            "secret": "probe/key",
            "inject": {"kind": "bearer"},
            "allow_addresses": ["127.0.0.1/32"],
        }
        await self._ask(Operation.UPDATE, "secret/data/probe/key", {"data": {"value": key}})
        await self._ask(Operation.UPDATE, "services/probe", service)
        await self._ask(Operation.UPDATE, "agents/probe")
        await self._ask(Operation.UPDATE, "agents/probe/services/probe")
        self.ca = str((await self._ask(Operation.READ, "sys/keyhole"))["ca"])
        self.api.url = f"https://{HOST}:{port}"


def _into(out: Path) -> tuple[str, ...]:
    """What goes before a command so that all it prints lands in a file."""
    return ("sh", "-c", 'exec >"$0" 2>&1 </dev/null; exec "$@"', str(out)) if os.name == "posix" else ()


def _outcome(relay: Relay, *, arrived: bool, admitted: bool, code: int) -> Outcome:
    if admitted:
        return "through"
    if arrived:
        return "no_credential"
    if "200" in relay.statuses:
        return "no_trust" if code >= 0 else "timeout"
    if "407" in relay.statuses:
        return "no_login"
    if relay.connections:
        return "refused" if code >= 0 else "timeout"
    if code in {OWN_FAILURE, NOT_EXECUTABLE, NOT_FOUND}:
        return "not_started"
    return "no_proxy" if code >= 0 else "timeout"


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return str(parts.hostname), int(parts.port or 0)


@contextlib.asynccontextmanager
async def _serving(api: Api, folder: Path) -> AsyncIterator[int]:
    """The API on a free port of loopback, with a certificate of an authority that is made for it and thrown away."""
    authority = CertificateAuthority(*create_ca("Keyhole doctor, for a moment only", days=1))
    (folder / "ca.pem").write_bytes(authority.cert_pem)
    tls = server_context(*authority.issue(HOST))
    server = await asyncio.start_server(api.serve, "127.0.0.1", 0, ssl=tls, limit=_LARGEST_HEAD)
    async with server:
        yield server.sockets[0].getsockname()[1]

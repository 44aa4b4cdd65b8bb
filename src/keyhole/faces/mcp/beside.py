"""The endpoint ``/mcp`` on a listener that serves another application besides."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableMapping
from importlib import import_module
from typing import Any

from keyhole.core.errors import KeyholeError
from keyhole.faces.mcp.tools import Asker, Shelf

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Enter = Callable[[str, str], Awaitable[Asker]]
NoteRefusal = Callable[[KeyholeError, str], None]
PATH = "/mcp"
_KNOWN = 256


class Beside:
    """Sends requests for ``/mcp`` to the tools, and all others on.

    The SDK takes long to import, so that happens when somebody asks for the endpoint the first time.

    Args:
        other: the application of all other paths.
        enter: the vault as the holder of a token, who asks from an address; judged for each
            request. Raises ``Unauthenticated``.
        hosts: names under which the endpoint may be asked; empty for any.
        note_refusal: records what was refused before the vault was asked, with the address that it came from.
        shelf: of tools, or what makes a server, see ``McpApp``.
        ended: awaited at the end.
    """

    def __init__(
        self,
        other: Application,
        enter: Enter,
        hosts: frozenset[str],
        note_refusal: NoteRefusal,
        shelf: Shelf | Callable[[Any], Any] | None = None,
        *,
        ended: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._other = other
        self._enter = enter
        self._hosts = hosts
        self._note_refusal = note_refusal
        self._shelf = shelf or Shelf()
        self._app: Application | None = None
        self._ended = ended
        self._task: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._lock = asyncio.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request (ASGI 3)."""
        if scope["type"] == "http" and scope["path"].rstrip("/") == PATH:
            app = self._app or await self.start()
            await app(scope, receive, send)
        else:
            await self._other(scope, receive, send)

    async def start(self) -> Application:
        """Import what the endpoint needs, once."""
        async with self._lock:
            if self._app is None:
                found = await asyncio.to_thread(import_module, "keyhole.faces.mcp.http")
                app = found.McpApp(self._shelf, self._enter, self._hosts, self._note_refusal)
                ready = asyncio.Event()
                self._task = asyncio.create_task(self._run(app, ready))
                await ready.wait()
                self._app = app
            return self._app

    async def _run(self, app: Any, ready: asyncio.Event) -> None:
        """What the SDK runs ends in the task in which it began."""
        async with app.running():
            ready.set()
            await self._stop.wait()

    async def close(self) -> None:
        """End what runs."""
        self._stop.set()
        if self._task is not None:
            await self._task
        if self._ended is not None:
            await self._ended()


class Known:
    """Askers by token, so that what one of them has found out is found once. It holds no token.

    Args:
        make: an asker for a token.
        most: askers that are kept.
    """

    def __init__(self, make: Callable[[str], Asker], most: int = _KNOWN) -> None:
        self._make = make
        self._most = most
        self._found: OrderedDict[bytes, Asker] = OrderedDict()

    def of(self, token: str) -> Asker:
        """The asker of a token, kept or new."""
        key = hashlib.sha256(token.encode()).digest()
        asker = self._found.pop(key, None) or self._make(token)
        self._found[key] = asker
        while len(self._found) > self._most:
            self._found.popitem(last=False)
        return asker


async def nothing(scope: Scope, _receive: Receive, send: Send) -> None:
    """The application of a listener that has nothing else: not found."""
    if scope["type"] == "http":
        body = b'{"errors":["there is nothing but /mcp here"]}'
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 404, "headers": headers})
        await send({"type": "http.response.body", "body": body})

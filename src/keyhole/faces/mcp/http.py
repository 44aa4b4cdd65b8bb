"""MCP over HTTP: each request brings the agent's token, and nothing is remembered between two of them.

Without sessions there is none to guess or to take over, and a token that was revoked is refused at its next request.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

from keyhole.core.errors import BodyTooLarge, InvalidRequest, KeyholeError, PolicyDenied, Unauthenticated
from keyhole.faces.mcp.beside import Enter, NoteRefusal
from keyhole.faces.mcp.envelope import fault
from keyhole.faces.mcp.server import AskerOf, build
from keyhole.faces.mcp.tools import Asker, Shelf

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
PATH = "/mcp"
_BODY = 4 * 1024 * 1024
_ASKER = "keyhole.asker"
_STATUS = {Unauthenticated: 401, PolicyDenied: 403, BodyTooLarge: 413}


class McpApp:
    """The ASGI application (ASGI 3) of the endpoint ``/mcp``.

    Args:
        shelf: of tools, or what makes a server that asks as the agent of a request.
        enter: the vault as the holder of a token, who asks from an address. Raises ``Unauthenticated``
            for one that does not count.
        hosts: names under which it may be asked; empty for any.
        note_refusal: records what was refused before a vault was asked, with the address that it came from.
    """

    def __init__(
        self,
        shelf: Shelf | Callable[[AskerOf], Server[Any]],
        enter: Enter,
        hosts: frozenset[str],
        note_refusal: NoteRefusal,
    ) -> None:
        self._enter = enter
        self._note_refusal = note_refusal
        self._hosts = hosts
        server = build(shelf, _asker_of) if isinstance(shelf, Shelf) else shelf(_asker_of)
        self._manager = StreamableHTTPSessionManager(
            server, json_response=True, stateless=True, max_request_body_size=_BODY
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Around all requests."""
        async with self._manager.run():
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        remote = str((scope.get("client") or ("",))[0])
        try:
            headers = {name.lower(): value for name, value in scope["headers"]}
            self._require_near(headers)
            asker = await self._enter(_token(headers), remote)
            if scope["method"] != "POST":
                raise InvalidRequest("send a POST with one JSON-RPC message")
            body = await _body(receive)
        except KeyholeError as error:
            if not error.request_id:  # the door would have recorded it
                self._note_refusal(error, remote)
            await _refuse(send, error, 405 if scope["method"] != "POST" else 400)
            return
        if body is None:
            return
        if (wrong := fault(body)) is not None:
            await _answer(send, 400, wrong.model_dump_json(exclude_unset=True).encode(), [])
            return
        await self._manager.handle_request({**scope, _ASKER: asker}, _again(body, receive), send)

    def _require_near(self, headers: dict[bytes, bytes]) -> None:
        """A page in a browser must not reach an agent's tools, whatever name it resolves to this address."""
        if b"origin" in headers or b"sec-fetch-site" in headers:
            raise PolicyDenied("browsers cannot use this endpoint", "use an MCP client that is a program")
        named = headers.get(b"host", b"").decode("latin-1")
        host = named.rpartition(":")[0] or named
        if self._hosts and host.strip("[]").lower() not in self._hosts:
            raise PolicyDenied("the endpoint is asked under a name that is not its own", "use its address")


def _asker_of(context: ServerRequestContext[Any, Any]) -> Asker:
    request = context.request
    if request is None:
        raise Unauthenticated("a request without a token")
    asker: Asker = request.scope[_ASKER]
    return asker


def _token(headers: dict[bytes, bytes]) -> str:
    kind, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    token = token.strip()
    if kind.lower() != "bearer" or not token or not token.isascii() or " " in token:
        raise Unauthenticated("the request brings no token", "send Authorization: Bearer TOKEN of an agent")
    return token


async def _body(receive: Receive) -> bytes | None:
    """The whole body; ``None`` where its sender has gone. Raises ``BodyTooLarge``."""
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return None
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > _BODY:
            raise BodyTooLarge(f"a message has at most {_BODY} bytes", "send less at once")
    return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    """A body that was read, and then what else comes."""
    left = [body]

    async def again() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": left.pop(), "more_body": False} if left else await receive()

    return again


async def _refuse(send: Send, error: KeyholeError, otherwise: int) -> None:
    status = _STATUS.get(type(error), otherwise)
    detail = {"code": error.code, "reason": error.reason, "hint": error.hint, "request_id": error.request_id}
    body = json.dumps({"errors": [str(error)], "error": detail}).encode()
    headers = []
    if status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="keyhole"'))
    if status == 405:
        headers.append((b"allow", b"POST"))
    await _answer(send, status, body, headers)


async def _answer(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    headers += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

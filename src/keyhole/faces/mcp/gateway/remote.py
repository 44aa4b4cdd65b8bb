"""A server that is asked over HTTP: each message is one request, which the guard of the vault's calls lets through.

No redirect is followed, so a header with a credential goes to the server that it was given to, and nowhere else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import anyio
import mcp_types as types
from mcp.client._transport import TransportStreams
from mcp.shared.message import ClientMessageMetadata, SessionMessage

from keyhole.core.errors import KeyholeError
from keyhole.faces.mcp.gateway.gate import Gate
from keyhole.faces.mcp.gateway.wants import Wants
from keyhole.net.ask import Asks, Heard

_FIXED = [("Content-Type", "application/json"), ("Accept", "application/json, text/event-stream")]
_FAILED = -32000  # of JSON-RPC: a fault of the server that has no number of its own


class _Endpoint:
    """The endpoint of one session."""

    def __init__(self, asks: Asks, url: str, headers: Sequence[tuple[str, str]], allow: Sequence[str]) -> None:
        self._asks = asks
        self._url = url
        self._headers = headers
        self._allow = allow
        self._session = ""

    async def post(self, message: SessionMessage) -> Heard:
        headers = [*_FIXED, *self._headers]
        if isinstance(message.metadata, ClientMessageMetadata) and message.metadata.headers:
            headers += message.metadata.headers.items()
        if self._session:
            headers.append(("Mcp-Session-Id", self._session))
        body = message.message.model_dump_json(by_alias=True, exclude_unset=True).encode(errors="replace")
        heard = await self._asks.ask("POST", self._url, headers=headers, body=body, allow=self._allow)
        named = heard.headers.get(b"mcp-session-id", b"").decode("latin-1")
        if named and len(named) <= 512 and named.isascii() and named.isprintable():
            self._session = named
        return heard

    async def leave(self) -> None:
        if self._session:
            with suppress(KeyholeError):
                headers = [*self._headers, ("Mcp-Session-Id", self._session)]
                await self._asks.ask("DELETE", self._url, headers=headers, allow=self._allow)


@asynccontextmanager
async def connected(
    asks: Asks,
    url: str,
    headers: Sequence[tuple[str, str]],
    allow: Sequence[str],
    gate: Gate,
    closed: Callable[[], None],
    wants: Wants,
) -> AsyncIterator[TransportStreams]:
    """Speak with a server over HTTP.

    Args:
        asks: makes the requests, guarded and bounded.
        url: of its endpoint.
        headers: with its credentials.
        allow: addresses that may be dialled although they are private.
        gate: what it may send.
        closed: called when it knows our session no more.
        wants: takes what it says of authorization.
    """
    endpoint = _Endpoint(asks, url, headers, allow)
    to_session, reading = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    writing, from_session = anyio.create_memory_object_stream[SessionMessage](0)

    async def post(message: SessionMessage) -> None:
        asked, marked = message.message, None
        try:
            heard = await endpoint.post(message)
            found = [each for line in _messages(heard) if (each := gate.message(line)) is not None]
            if heard.status == 404:
                closed()
            marked = wants.note(heard)
            failure = "" if 200 <= heard.status < 300 else f"the server answers {heard.status}"
        except KeyholeError as error:
            found, failure = [], error.reason
        if marked is not None:
            found = []
        if isinstance(asked, types.JSONRPCRequest) and not any(_answers(each, asked.id) for each in found):
            data = types.ErrorData(code=_FAILED, message=failure or "the server did not answer", data=marked)
            found.append(SessionMessage(types.JSONRPCError(jsonrpc="2.0", id=asked.id, error=data)))
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            for each in found:
                await to_session.send(each)

    async def write() -> None:
        with suppress(anyio.ClosedResourceError):
            async for message in from_session:
                group.start_soon(post, message)

    async with anyio.create_task_group() as group:
        group.start_soon(write)
        try:
            yield reading, writing
        finally:
            group.cancel_scope.cancel()
            with anyio.move_on_after(2, shield=True):
                await endpoint.leave()
            for stream in (to_session, reading, writing, from_session):
                stream.close()


def _answers(message: SessionMessage, request: types.RequestId) -> bool:
    said = message.message
    return isinstance(said, types.JSONRPCResponse | types.JSONRPCError) and said.id == request


def _messages(heard: Heard) -> list[bytes]:
    """The messages of an answer: one of JSON, or the data of its events (server-sent events, HTML 9.2)."""
    kind = heard.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind == b"application/json":
        return [heard.body] if heard.body.strip() else []
    if kind != b"text/event-stream":
        return []
    events = heard.body.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n\n")
    found = []
    for event in events:
        lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
        if any(line.strip() for line in lines):
            found.append(b"\n".join(lines))
    return found

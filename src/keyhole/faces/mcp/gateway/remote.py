"""A server that is asked over HTTP: each message is one request, which the guard of the vault's calls lets through.

No redirect is followed, so a header with a credential goes to the server that it was given to, and nowhere else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import mcp_types as types
from anyio.streams.memory import MemoryObjectSendStream
from mcp.client._transport import TransportStreams
from mcp.shared.message import ClientMessageMetadata, SessionMessage

from keyhole.core.errors import KeyholeError
from keyhole.faces.mcp.gateway.gate import Gate
from keyhole.faces.mcp.gateway.wants import Wants
from keyhole.net.ask import Heard, Heed, Heeds

_FIXED = [("Content-Type", "application/json"), ("Accept", "application/json, text/event-stream")]
_FAILED = -32000  # of JSON-RPC: a fault of the server that has no number of its own


class _Endpoint:
    """The endpoint of one session."""

    def __init__(
        self, asks: Heeds, url: str, headers: Sequence[tuple[str, str]], allow: Sequence[str], *, by_events: bool
    ) -> None:
        self._by_events = by_events
        self._asks = asks
        self._url = url
        self._headers = headers
        self._allow = allow
        self._session = ""

    async def post(self, message: SessionMessage, heed: Heed) -> Heard:
        headers = [*_FIXED, *self._headers]
        if isinstance(message.metadata, ClientMessageMetadata) and message.metadata.headers:
            headers += message.metadata.headers.items()
        if self._session:
            headers.append(("Mcp-Session-Id", self._session))
        body = message.message.model_dump_json(by_alias=True, exclude_unset=True).encode(errors="replace")

        async def heeds(head: Heard, piece: bytes) -> None:
            self._note(head)  # what is asked in between is answered within the session
            await heed(head, piece)

        more: dict[str, Any] = {"heed": heeds} if self._by_events else {}
        heard = await self._asks.ask("POST", self._url, headers=headers, body=body, allow=self._allow, **more)
        self._note(heard)
        return heard

    def _note(self, heard: Heard) -> None:
        named = heard.headers.get(b"mcp-session-id", b"").decode("latin-1")
        if named and len(named) <= 512 and named.isascii() and named.isprintable():
            self._session = named

    async def leave(self) -> None:
        if self._session:
            with suppress(KeyholeError):
                headers = [*self._headers, ("Mcp-Session-Id", self._session)]
                await self._asks.ask("DELETE", self._url, headers=headers, allow=self._allow)


class _Posts:
    """The requests of one session, several at a time.

    Args:
        endpoint: that they go to.
        gate: what the server may send.
        closed: called when it knows our session no more.
        wants: takes what it says of authorization.
        to_session: takes its messages.
    """

    def __init__(
        self,
        endpoint: _Endpoint,
        gate: Gate,
        closed: Callable[[], None],
        wants: Wants,
        to_session: MemoryObjectSendStream[SessionMessage | Exception],
    ) -> None:
        self._endpoint = endpoint
        self._gate = gate
        self._closed = closed
        self._wants = wants
        self._to_session = to_session
        self._going = dict[types.RequestId, anyio.CancelScope]()

    async def post(self, message: SessionMessage) -> None:
        """Send one message; of a request, the answer is waited for until it is there, or nobody wants it."""
        said = message.message
        if isinstance(said, types.JSONRPCRequest):
            with anyio.CancelScope() as self._going[said.id]:
                await self._exchange(message)
            self._going.pop(said.id, None)
            return
        await self._exchange(message)
        if isinstance(said, types.JSONRPCNotification) and said.method == "notifications/cancelled":
            given_up = self._going.get((said.params or {}).get("requestId", ""))
            if given_up is not None:
                given_up.cancel()

    async def _exchange(self, message: SessionMessage) -> None:
        asked, marked, events = message.message, None, Events()

        async def heed(head: Heard, piece: bytes) -> None:
            if _is_events(head) and 200 <= head.status < 300:
                await self._pass(asked, events.feed(piece))

        try:
            heard = await self._endpoint.post(message, heed)
            lines = events.end() if events.begun else _messages(heard)
            found = [each for line in lines if (each := self._gate.message(line)) is not None]
            if heard.status == 404:
                self._closed()
            marked = self._wants.note(heard)
            failure = "" if 200 <= heard.status < 300 else f"the server answers {heard.status}"
        except KeyholeError as error:
            found, failure = [], error.reason
        if marked is not None:
            found = []
        if isinstance(asked, types.JSONRPCRequest) and not any(_answers(each, asked.id) for each in found):
            data = types.ErrorData(code=_FAILED, message=failure or "the server did not answer", data=marked)
            found.append(SessionMessage(types.JSONRPCError(jsonrpc="2.0", id=asked.id, error=data)))
        for each in found:
            await self._send(each)

    async def _pass(self, asked: types.JSONRPCMessage, lines: list[bytes]) -> None:
        """Pass on what comes before the end. With the answer there is nothing more to wait for."""
        for line in lines:
            if (each := self._gate.message(line)) is not None:
                await self._send(each)
                if isinstance(asked, types.JSONRPCRequest) and _answers(each, asked.id):
                    self._going[asked.id].cancel()

    async def _send(self, message: SessionMessage) -> None:
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await self._to_session.send(message)


@asynccontextmanager
async def connected(
    asks: Heeds,
    url: str,
    headers: Sequence[tuple[str, str]],
    allow: Sequence[str],
    gate: Gate,
    closed: Callable[[], None],
    wants: Wants,
    *,
    may_ask: bool = False,
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
        may_ask: it is listened to while it answers, because it may ask something before it goes on.
    """
    endpoint = _Endpoint(asks, url, headers, allow, by_events=may_ask)
    to_session, reading = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    writing, from_session = anyio.create_memory_object_stream[SessionMessage](0)
    posts = _Posts(endpoint, gate, closed, wants, to_session)

    async def write() -> None:
        with suppress(anyio.ClosedResourceError):
            async for message in from_session:
                group.start_soon(posts.post, message)

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


def _kind(heard: Heard) -> bytes:
    return heard.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()


def _is_events(heard: Heard) -> bool:
    return _kind(heard) == b"text/event-stream"


def _messages(heard: Heard) -> list[bytes]:
    """The messages of an answer that is there as a whole: one of JSON, or the data of its events."""
    if _kind(heard) == b"application/json":
        return [heard.body] if heard.body.strip() else []
    events = Events()
    return [*events.feed(heard.body), *events.end()] if _is_events(heard) else []


class Events:
    """The data of server-sent events (HTML 9.2), piece by piece.

    Attributes:
        begun: whether there was a piece.
    """

    def __init__(self) -> None:
        self.begun = False
        self._held = b""

    def feed(self, piece: bytes) -> list[bytes]:
        """Those that are whole now."""
        self.begun = True
        held = self._held + piece
        last = b"\r" if held.endswith(b"\r") else b""  # the line may go on with its other half
        *whole, rest = _plain(held.removesuffix(b"\r")).split(b"\n\n")
        self._held = rest + last
        return [data for event in whole if (data := _data(event)) is not None]

    def end(self) -> list[bytes]:
        """What is left when no more comes."""
        data = _data(_plain(self._held))
        self._held = b""
        return [] if data is None else [data]


def _plain(text: bytes) -> bytes:
    return text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def _data(event: bytes) -> bytes | None:
    lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines) if any(line.strip() for line in lines) else None
